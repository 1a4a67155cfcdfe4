"""Gives the work of `upscale` and `stylize` to engines that compute on many machines, such as Ray Data.

Needs `pip install 'keras-psr[ray]'`. docs/distributed.md shows a whole program.
"""

import contextlib
import io
import logging
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import click
import fsspec
import pyarrow
import pyarrow.dataset
from fsspec.implementations.local import LocalFileSystem

from keras_psr.cli.batch_jobs import Job
from keras_psr.cli.batch_plan import Inputs, check_plan, leave_out_results, make_plan
from keras_psr.cli.batch_run import find_suffix, run_plan
from keras_psr.errors import ConfigError, DataError, ImageFileError
from keras_psr.films.formats import LISTED_SUFFIXES
from keras_psr.images.decoding import image_size
from keras_psr.images.finding import IMAGE_SUFFIXES, describe_endings, find_images_and_others

log = logging.getLogger(__name__)

COMMANDS = ("upscale", "stylize")

PICTURES = pyarrow.schema([("input", pyarrow.string()), ("namesake", pyarrow.string())])
"""Columns of the table of pictures: each one's path, and that of an earlier one whose result would have its name."""

MANIFEST = pyarrow.schema(
    [
        *(("input", pyarrow.string()), ("output", pyarrow.string()), ("status", pyarrow.string())),
        *(("model", pyarrow.string()), ("height", pyarrow.int64()), ("width", pyarrow.int64())),
        *(("seconds", pyarrow.float64()), ("notes", pyarrow.list_(pyarrow.string())), ("error", pyarrow.string())),
    ]
)
"""Columns of the manifest, with the names and meanings that they have in the report of `--json`."""


def find_pictures(source: str, manifest: str | None = None) -> pyarrow.Table:
    """Lists the picture files in a folder that are still to be done. Films are left out, and a warning names them.

    Args:
        source: A folder, searched recursively: a local path, or a URL that fsspec knows, as `s3://bucket/photos`.
        manifest: Folder of the manifest of earlier runs, in Parquet. Pictures that it lists as written or skipped are
            left out; failed ones are tried again. It need not exist yet.

    Returns:
        A table with the columns `PICTURES`, sorted by path; it is empty if everything has been done.

    Raises:
        DataError: There is no picture in the folder.

    Example:
        table = find_pictures("photos", "enlarged_manifest")
    """
    folder = _Folder(source)
    rows, earlier = [], dict[str, str]()
    for name in folder.list_pictures():
        namesake = earlier.setdefault(str(PurePosixPath(name).with_suffix("")), name)
        rows.append({"input": folder.url_of(name), "namesake": folder.url_of(namesake) if namesake != name else None})
    done = _read_done(manifest) if manifest else set()
    return pyarrow.Table.from_pylist([row for row in rows if row["input"] not in done], PICTURES)


def _read_done(manifest: str) -> set[str]:
    """Returns the inputs that a manifest lists as done. Files that a killed run left incomplete are ignored."""
    system, path = fsspec.url_to_fs(manifest)
    if not system.exists(path):
        return set()
    files = pyarrow.dataset.dataset(path, filesystem=system, format="parquet", exclude_invalid_files=True)
    if "status" not in files.schema.names:
        return set()
    return set(files.to_table(["input"], filter=pyarrow.dataset.field("status") != "failed")["input"].to_pylist())


class PictureWorker:
    """Upscales or stylizes the pictures of a table as the command does, and returns rows of the manifest.

    An engine creates one in each of its processes, which loads the model once, and calls it with parts of the table of
    `find_pictures`. Results get the names, formats and metadata that the command gives them, the folders of the source
    are mirrored, and a picture that fails is a row with an error. Results appear whole or not at all, and existing ones
    are kept. So what a killed process did not finish may be given to another one.

    Files on local disks are read and written in place. Others pass through a temporary folder.

    Example:
        worker = PictureWorker("upscale --model x4-fast --threads 1", "photos", "enlarged")
        manifest = worker(find_pictures("photos"))
    """

    def __init__(self, command: str, source: str, output: str) -> None:
        """Loads the model.

        Args:
            command: `upscale` or `stylize` with its options, without inputs and `-o`, as
                `stylize --model starry-night --threads 1`.
            source: The folder that was given to `find_pictures`.
            output: The folder to write to: a local path, or a URL that fsspec knows.

        Raises:
            ConfigError: The command is not one of the two, or has an option that is unknown or belongs elsewhere.
            ModelError: There is no such model.
        """
        name, *args = shlex.split(command) or [""]
        if name not in COMMANDS:
            raise ConfigError(f"command must begin with {' or '.join(COMMANDS)}. Received: {command!r}.")
        module = import_module(f"keras_psr.cli.{name}")
        try:
            self._context = getattr(module, name).make_context(name, args)
            batch, load = module.prepare(**self._context.params)
        except click.UsageError as error:
            raise ConfigError(f"command {command!r}: {error.format_message()}") from error
        if batch.all_inputs or batch.output or batch.report or batch.overwrite or batch.dry_run:
            raise ConfigError(
                f"command {command!r} must have no inputs, -o, --json, --overwrite or --dry-run. Give folders as "
                "source and output; results that exist are kept."
            )
        self._batch, work = replace(batch, skip_existing=True), load()
        self._work = replace(work, load=cache(work.load))
        self._source, self._output = source, output

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Processes the pictures of a part of the table of `find_pictures`.

        Args:
            table: Rows with the columns `PICTURES`.

        Returns:
            A row for each picture, with the columns `MANIFEST`. Pictures whose result existed are `skipped`, and so are
            those that are themselves results of keras-psr.
        """
        with TemporaryDirectory(prefix="keras-psr-") as scratch:
            source, output = _Folder(self._source, f"{scratch}/in"), _Folder(self._output, f"{scratch}/out")
            jobs = self._process(table, source, output)
            rows = [_describe(job, source, output) for job in jobs]
        return pyarrow.Table.from_pylist(rows, MANIFEST)

    def _process(self, table: pyarrow.Table, source: "_Folder", output: "_Folder") -> list[Job]:
        """Processes pictures, and returns a job for each of them."""
        batch = replace(self._batch, output=f"{output.local}/")
        paths = [source.path_of(url) for url in table["input"].to_pylist()]
        jobs = {path: Job(path, path, path, path.suffix) for path in paths}
        for job in jobs.values():
            with _recorded(job):
                source.fetch(job.file)
        # Namesakes are only planned, so that no two pictures are written into one file.
        namesakes = [source.path_of(url) for url in table["namesake"].to_pylist() if url]
        present = [path for path, job in jobs.items() if job.status != "failed"]
        found = Inputs(roots=dict.fromkeys([*namesakes, *present], source.local))
        suffix = find_suffix(batch, self._work)
        plan = make_plan(leave_out_results(found, batch, suffix)[0], found, batch, suffix)
        for job in plan:
            with _recorded(job):
                output.fetch(job.target, missing_ok=True)
        with self._context, contextlib.redirect_stderr(io.StringIO()):  # what it says is in the manifest
            check_plan(plan, self._work, batch)
            plan = [job for job in plan if job.source in jobs]
            run_plan(plan, self._work, batch, Path())
        for job in plan:
            if job.status == "written":
                with _recorded(job):
                    output.deliver(job.target)
        return list((jobs | {job.source: job for job in plan}).values())


@contextlib.contextmanager
def _recorded(job: Job) -> Iterator[None]:
    """Marks a job as failed if a file cannot be copied, whatever error the store's library raises for it."""
    try:
        yield
    except Exception as error:
        job.fail(DataError(f"{job.source}: {type(error).__name__}: {error}"))


def _describe(job: Job, source: "_Folder", output: "_Folder") -> dict[str, Any]:
    """Returns a job's row of the manifest."""
    if job.status == "planned":
        job.status, job.notes = "skipped", ["it is a result of keras-psr"]
    elif job.status == "skipped" and job.size is None:
        with contextlib.suppress(ImageFileError):  # whatever bears the result's name
            job.size = image_size(job.target)
    row = job.to_json() | {"output": str(job.target) if job.target != job.source else None}
    height, width = job.size or (None, None)
    row |= {"height": height, "width": width}
    shown = {str(folder.local): folder.url for folder in (source, output)}
    for column in ("input", "output", "error"):
        for local, url in shown.items():
            row[column] = row[column] and row[column].replace(f"{local}/", f"{url}/")
    return row


class _Folder:
    """A folder on a local disk, or one in a store, whose files are worked on in a local copy.

    Attributes:
        url: The folder's URL, or its absolute path if it is local.
        local: The folder itself, or that of the copies.
    """

    def __init__(self, url: str, copies: str = "") -> None:
        self._system, self._root = fsspec.url_to_fs(url)
        self._is_local = isinstance(self._system, LocalFileSystem)
        self.url = self._root if self._is_local else url.rstrip("/")
        self.local = Path(self._root if self._is_local else copies)

    def list_pictures(self) -> list[str]:
        """Returns the paths of all pictures, relative to the folder and sorted. Warns of films, which it leaves out.

        Raises:
            DataError: There is none.
        """
        if self._is_local:
            pictures, others = find_images_and_others(self.local)
            names = [path.relative_to(self.local).as_posix() for path in pictures]
        else:
            paths = (PurePosixPath(path).relative_to(self._root) for path in self._system.find(self._root))
            visible = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
            names = sorted(str(path) for path in visible if path.suffix.lower() in IMAGE_SUFFIXES)
            others = Counter(path.suffix.lower() for path in visible)
        if not names:
            raise DataError(f"no pictures in {self.url}; looked for files ending in {', '.join(IMAGE_SUFFIXES)}.")
        if films := Counter({suffix: others[suffix] for suffix in LISTED_SUFFIXES if others[suffix]}):
            remedy = "Process them with keras-psr upscale or stylize."
            log.warning("Films in %s are left out: %s. %s", self.url, describe_endings(films), remedy)
        return names

    def url_of(self, name: str) -> str:
        """Returns the path or URL of a file, given its path in the folder."""
        return f"{self.url}/{name}"

    def path_of(self, url: str) -> Path:
        """Returns the local path of a file, given its path or URL.

        Raises:
            ConfigError: It does not lie in the folder.
        """
        if not url.startswith(f"{self.url}/"):
            raise ConfigError(f"source must be the folder of the table's pictures. Received: {self.url}, but {url}.")
        return self.local / url.removeprefix(f"{self.url}/")

    def fetch(self, path: Path, *, missing_ok: bool = False) -> None:
        """Copies a file of a store to its local path."""
        if self._is_local:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if not missing_ok or self._system.exists(self._path_in_store(path)):
            self._system.get_file(self._path_in_store(path), str(path))

    def deliver(self, path: Path) -> None:
        """Copies a local file into the store, where it appears whole or not at all."""
        if not self._is_local:
            with self._system.transaction:
                self._system.put_file(str(path), self._path_in_store(path))

    def _path_in_store(self, path: Path) -> str:
        return f"{self._root}/{path.relative_to(self.local).as_posix()}"
