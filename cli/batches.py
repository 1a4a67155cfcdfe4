"""Pictures in, pictures out: what `upscale` and `stylize` share."""

import glob
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from keras_psr.cli.shared import say
from keras_psr.errors import ConfigError, DataError, KerasPSRError

if TYPE_CHECKING:
    from keras_psr.images.photo import Photo

FORMATS = ("png", "jpg", "webp", "tif", "bmp")

OnPixels = Callable[[int], None]
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Work:
    """What a command does to each picture.

    Attributes:
        verb: Its name, which ends in e: `upscale`.
        process: From a photograph, and what to call with numbers of computed pixels, to the result.
        scale: Factor of the sides of what is computed.
        output_scale: Factor of the sides of what is written.
        suffix: What ends the names of results.
        passes: How often each pixel is computed.
    """

    verb: str
    process: "Callable[[Photo, OnPixels], Photo]"
    scale: int
    output_scale: float
    suffix: str
    passes: int = 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What is asked for of all pictures: the options of `batch_options`, by their names."""

    inputs: tuple[str, ...]
    output: Path | None
    suffix: str | None
    file_format: str | None
    quality: int | None
    skip_existing: bool
    overwrite: bool
    dry_run: bool
    jobs: int
    max_pixels: float
    json_file: IO[str] | None


@dataclass
class Job:
    """One picture of a batch.

    Attributes:
        source: Its file.
        target: The file to write.
        size: Height and width of the result, in pixels; None until the header has been read.
        network_pixels: Pixels that are computed for it.
        status: `planned`, `written`, `skipped` or `failed`.
        error: Why it failed, in one line.
        notes: What could not be kept.
        seconds: From reading to renaming the written file.
    """

    source: Path
    target: Path
    size: tuple[int, int] | None = None
    network_pixels: int = 0
    status: str = "planned"
    error: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def fail(self, error: str) -> None:
        """Marks it as failed; the text names the file."""
        self.status, self.error = "failed", error

    def describe(self) -> str:
        """A line for people."""
        height, width = self.size or (0, 0)
        return f"{self.source} -> {self.target} ({'; '.join([f'{width}x{height}', *self.notes])})"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        height, width = self.size or (None, None)
        return {
            "input": str(self.source),
            "output": str(self.target),
            "status": self.status,
            "height": height,
            "width": width,
            "seconds": round(self.seconds, 3),
            "notes": self.notes,
            "error": self.error or None,
        }


def batch_options(suffix: str, file_format: str) -> Callable[[Command], Command]:
    """Adds the argument and the options of `Batch` to a command.

    Args:
        suffix: The default suffix, for the help.
        file_format: The default format.
    """
    options = [
        click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            help="Folder to write to, where the trees of folders are mirrored; or for one picture a file.  "
            "[default: beside each picture]",
        ),
        click.option("--suffix", metavar="TEXT", help=f"Ends the names of what is written.  [default: {suffix}]"),
        click.option(
            "--format",
            "file_format",
            type=click.Choice(FORMATS),
            help=f"Format of what is written.  [default: {file_format}]",
        ),
        click.option(
            "--quality",
            type=click.IntRange(1, 100),
            help="Quality of JPEG and WebP.  [default: 95 for JPEG, lossless for WebP]",
        ),
        click.option("--skip-existing", is_flag=True, help="Leave out pictures whose result exists."),
        click.option("--overwrite", is_flag=True, help="Replace files that exist."),
        click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing."),
        click.option(
            "--jobs",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Pictures in memory at once; more than 1 is faster for small ones.",
        ),
        click.option(
            "--max-pixels",
            type=click.FloatRange(0, min_open=True),
            default=500.0,
            show_default=True,
            metavar="MP",
            help="Refuse pictures that would become larger than this, in million pixels.",
        ),
        click.option(
            "--json", "json_file", type=click.File("w"), metavar="FILE", help="Write a report as JSON; - is stdout."
        ),
    ]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def work_through(batch: Batch, load: Callable[[], Work]) -> None:
    """Does a command's work on all pictures, and ends with exit code 1 if any failed.

    Args:
        batch: The options.
        load: Gives the work, once there is a picture.

    Raises:
        click.UsageError: Options exclude each other.
        KerasPSRError: There is nothing to do, or the only picture failed.
    """
    output = batch.output
    if batch.skip_existing and batch.overwrite:
        raise click.UsageError("--skip-existing and --overwrite exclude each other.")
    if batch.file_format and output and is_file(output):
        raise click.UsageError(
            f"--format {batch.file_format} does not go with -o {output}, whose ending tells the format."
        )
    found, failures = find_inputs(batch.inputs)
    if not found:
        end(failures, [], batch.json_file)
    work = load()
    suffix = work.suffix if batch.suffix is None else batch.suffix
    ending = f"{suffix}.{batch.file_format or 'png'}"
    chosen = {path: root for path, (root, named) in found.items() if named or not is_result(path, suffix)}
    if not chosen:
        raise DataError(f"Nothing to {work.verb}: the names of all {len(found)} pictures end in {suffix} already.")
    if output and is_file(output) and len(chosen) > 1:
        raise click.UsageError(f"-o {output} is one file, but there are {len(chosen)} pictures. Give a folder.")
    plan = [Job(path, choose_target(path, root, output, ending)) for path, root in chosen.items()]
    with trusted_headers():
        check(plan, work, batch)
        if batch.dry_run:
            say("\n".join(["Would write:", *(f"  {job.describe()}" for job in plan if job.status == "planned")]))
        else:
            run(plan, work, batch)
    end(failures, plan, batch.json_file, f"{work.verb}d")


def find_inputs(inputs: tuple[str, ...]) -> tuple[dict[Path, tuple[Path, bool]], list[str]]:
    """The pictures, in order, each with the folder that is mirrored and whether it was named; why inputs gave none."""
    from keras_psr.images.finding import find_images

    found: dict[Path, tuple[Path, bool]] = {}
    failures = []
    for text in inputs:
        path = Path(text).expanduser()
        root = path if path.is_dir() else path.parent if path.is_file() else plain_part(path)
        try:
            for image in find_images(text):
                found[image] = (root, image == path or found.get(image, (root, False))[1])
        except DataError as error:
            failures.append(str(error))
    return found, failures


def plain_part(pattern: Path) -> Path:
    """The folder of a glob before its first wildcard."""
    return Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))


def is_result(path: Path, suffix: str) -> bool:
    """Whether a picture's name says that it is a result."""
    return suffix != "" and path.stem.endswith(suffix)


def is_file(output: Path) -> bool:
    """Whether `-o` means a file: it has an ending, and no folder has its name."""
    return output.suffix != "" and not output.is_dir()


def choose_target(source: Path, root: Path, output: Path | None, ending: str) -> Path:
    """Where the result goes."""
    if output and is_file(output):
        return output
    folder = output / source.parent.relative_to(root) if output else source.parent
    return folder / f"{source.stem}{ending}"


@contextmanager
def trusted_headers() -> Iterator[None]:
    """Turns off Pillow's own limit, for sizes are compared with --max-pixels, and its warnings of odd metadata."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check(plan: Sequence[Job], work: Work, batch: Batch) -> None:
    """Reads the headers, and marks what is skipped or fails: no picture, too large, or its target is in the way."""
    from keras_psr.images.decoding import image_size
    from keras_psr.upscaling import output_size

    targets: dict[Path, Path] = {}
    for job in plan:
        try:
            if job.target in targets:
                raise ConfigError(
                    f"{job.source}: {job.target} is written for {targets[job.target]} already. "
                    "Give another -o or --suffix."
                )
            targets[job.target] = job.source
            if job.target.exists() and batch.skip_existing:
                job.status = "skipped"
                continue
            if job.target.exists() and not batch.overwrite:
                raise ConfigError(
                    f"{job.source}: {job.target} exists. Use --skip-existing, --overwrite, or another -o or --suffix."
                )
            height, width = image_size(job.source)
            computed = height * width * work.scale**2
            job.size, job.network_pixels = output_size(height, width, work.output_scale), computed * work.passes
            pixels = max(job.size[0] * job.size[1], computed)
            if pixels > batch.max_pixels * 1e6:
                raise ConfigError(
                    f"{job.source} would become {job.size[1]}x{job.size[0]}, {pixels / 1e6:.1f} million pixels. If you "
                    f"trust it and have {pixels * 8 / 1e9:.1f} GB of memory, raise --max-pixels {batch.max_pixels:g}."
                )
        except KerasPSRError as error:
            job.fail(str(error))


def run(plan: Sequence[Job], work: Work, batch: Batch) -> None:
    """Does what is planned, several pictures at once; Ctrl-C ends it after the tiles and files under way."""
    waiting = [job for job in plan if job.status == "planned"]
    stopped = threading.Event()
    with show_progress(waiting) as on_pixels, ThreadPoolExecutor(batch.jobs) as executor:

        def advance(pixels: int) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            on_pixels(pixels)

        futures: list[Future[Job]] = [
            executor.submit(process_file, job, work, batch.quality, advance) for job in waiting
        ]
        try:
            for future in as_completed(futures):
                job = future.result()
                if job.status == "written":
                    say(job.describe())
        except BaseException:
            stopped.set()
            executor.shutdown(wait=True, cancel_futures=True)
            raise


def process_file(job: Job, work: Work, quality: int | None, on_pixels: OnPixels) -> Job:
    """Reads, processes and writes one picture, and notes how that went."""
    from keras_psr.images.decoding import read_photo
    from keras_psr.images.encoding import fit_to_format, save_photo

    start, done = time.perf_counter(), 0

    def count(pixels: int) -> None:
        nonlocal done
        done += pixels
        on_pixels(pixels)

    try:
        photo = work.process(read_photo(job.source), count)
        photo = fit_to_format(photo, job.target.suffix)
        save_photo(job.target, photo, quality)
        job.status, job.notes = "written", list(photo.notes)
    except KerasPSRError as error:
        job.fail(str(error) if str(job.source) in str(error) else f"{job.source}: {error}")
    except MemoryError:
        job.fail(f"{job.source}: there is not enough memory for it. Use fewer --jobs, or cut it into parts.")
    on_pixels(job.network_pixels - done)
    job.seconds = time.perf_counter() - start
    return job


@contextmanager
def show_progress(waiting: Sequence[Job]) -> Iterator[OnPixels]:
    """Gives what to call with numbers of pixels; a terminal shows one bar over all tiles of all pictures."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda pixels: None
        return
    columns = [
        TextColumn(f"{len(waiting)} picture{'' if len(waiting) == 1 else 's'}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:.1f} MP/s"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=sum(job.network_pixels for job in waiting), rate=0.0)
        yield lambda pixels: bar.update(task, advance=pixels, rate=(bar.tasks[0].speed or 0) / 1e6)


def end(failures: Sequence[str], plan: Sequence[Job], json_file: IO[str] | None, done: str = "done") -> None:
    """Writes the report, and ends with exit code 1 if anything failed: in one line, or in a summary that names all."""
    count = {status: sum(job.status == status for job in plan) for status in ("written", "planned", "skipped")}
    failures = [*failures, *(job.error for job in plan if job.status == "failed")]
    if json_file:
        json.dump({"failures": failures, "pictures": [job.to_json() for job in plan]}, json_file, indent=2)
        json_file.write("\n")
        json_file.flush()
    if len(failures) == 1 and not sum(count.values()):
        raise KerasPSRError(failures[0])
    if count["skipped"]:
        say(f"{count['skipped']} skipped, for their results exist.")
    if failures:
        say("\n  ".join([f"{count['written']} {done}, {len(failures)} failed:", *failures]))
        raise click.exceptions.Exit(1)
