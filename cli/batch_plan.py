"""Plans a batch: which pictures are processed, where their results go, and which fail in advance."""

import glob
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path

import click

from keras_psr.cli.batch_films import choose_film_model, count_frames, find_kind, is_unfinished, plan_film
from keras_psr.cli.batch_jobs import STDIN, STDOUT, Job, Work
from keras_psr.cli.batch_options import Batch, find_obstacle
from keras_psr.cli.claims import is_shared
from keras_psr.cli.own_results import is_signed
from keras_psr.errors import ConfigError, DataError


@dataclass
class Inputs:
    """The pictures found for the inputs of a batch.

    Attributes:
        roots: Maps each picture, in order, to the folder that the output mirrors.
        named: Pictures that were named individually, which are always processed.
        failures: Messages about inputs without pictures.
        left_out: Number of files in folders that are not pictures, by ending.
    """

    roots: dict[Path, Path] = field(default_factory=dict)
    named: set[Path] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def find_inputs(inputs: Sequence[str]) -> Inputs:
    """Finds the pictures of all inputs except stdin."""
    from keras_psr.films.formats import LISTED_SUFFIXES, can_read_films
    from keras_psr.images.finding import find_images_and_others

    found, films = Inputs(), LISTED_SUFFIXES if can_read_films() else ()
    for text in inputs:
        path = Path(text).expanduser()
        root = path if path.is_dir() else path.parent if path.is_file() else plain_part(path)
        try:
            images, others = find_images_and_others(text, films)
        except (DataError, OSError) as error:
            found.failures.append(str(error))
            continue
        found.roots |= dict.fromkeys(images, root)
        found.named |= {image for image in images if image == path}
        found.left_out += others
    return found


def plain_part(pattern: Path) -> Path:
    """Returns the part of a glob before its first wildcard."""
    return Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))


def leave_out_results(found: Inputs, batch: Batch, suffix: str) -> tuple[list[Path], list[str]]:
    """Leaves out pictures in the output folder and results of keras-psr, unless they were named individually.

    Args:
        found: The pictures that were found.
        batch: The options.
        suffix: Suffix of the names of results.

    Returns:
        The pictures to process, and descriptions of what was left out of folders and globs, one per reason.
    """
    from keras_psr.images.finding import describe_endings

    output, chosen, written, results = batch.folder, [], 0, 0
    for path, root in found.roots.items():
        if path in found.named:
            chosen.append(path)
        elif output and lies_in(output, root) and lies_in(path, output):
            written += 1
        elif is_unfinished(path) or not batch.include_results and is_result(path, suffix):
            results += 1
        else:
            chosen.append(path)
    reasons = [
        describe_endings(found.left_out),
        f"{written} in the output folder {output}" if written else "",
        f"{results} result{'' if results == 1 else 's'} of keras-psr (see --include-results)" if results else "",
    ]
    return chosen, [reason for reason in reasons if reason]


def is_result(path: Path, suffix: str) -> bool:
    """Returns whether a file was made by keras-psr, as its name or its metadata says."""
    return bool(suffix) and path.stem.endswith(suffix) or is_signed(path)


def lies_in(path: Path, folder: Path) -> bool:
    """Returns whether a file or folder lies inside a folder, at any depth."""
    return _resolve(folder) in [_resolve(path.parent), *_resolve(path.parent).parents]


@cache
def _resolve(path: Path) -> Path:
    return path.resolve()


def make_plan(chosen: Sequence[Path], found: Inputs, batch: Batch, suffix: str) -> list[Job]:
    """Returns a job for each picture.

    Raises:
        click.UsageError: There are several pictures, but the output is a single file.
    """
    one = STDOUT if batch.to_stdout else batch.file
    if one and len(chosen) > 1:
        place = "-" if batch.to_stdout else one
        raise click.UsageError(f"-o {place} is one file, but there are {len(chosen)} pictures. Give a folder.")
    jobs = []
    for path in chosen:
        folder = batch.folder / path.parent.relative_to(found.roots[path]) if batch.folder else path.parent
        kind, ending = find_kind(path, batch)
        target = one or folder / f"{path.stem}{suffix}{ending}"
        jobs.append(Job(path, target, path, ending if one == STDOUT else target.suffix.lower(), kind=kind))
    return jobs


def plan_stdin(file: Path, batch: Batch, suffix: str) -> list[Job]:
    """Returns the job for a picture from stdin, which has been copied to a file."""
    kind, ending = find_kind(file, batch)
    target = STDOUT if batch.to_stdout else batch.file or (batch.folder or Path()) / f"{STDIN}{suffix}{ending}"
    return [Job(STDIN, target, file, target.suffix.lower() or ending, kind=kind)]


def check_plan(plan: Sequence[Job], work: Work, batch: Batch) -> None:
    """Reads the headers of all pictures, and marks the jobs that are skipped or fail in advance."""
    targets: dict[Path, Path] = {}
    obstacles, shared = cache(find_obstacle), cache(is_shared)
    with trusted_headers():
        for job in plan:
            try:
                if job.target in targets:
                    raise ConfigError(
                        f"{job.source}: {job.target} is already written for {targets[job.target]}. "
                        "Give another -o or --suffix."
                    )
                targets[job.target] = job.source
                if batch.skip_existing and has_result(job):
                    job.status, job.model = "skipped", work.model or ""
                    continue  # before its file is opened
                set_model(job, work)
                check_target(job, batch, obstacles, shared)
                if job.status == "planned":
                    measure(job, work, batch)
            except Exception as error:  # whatever a library raises for one picture must not stop the others
                job.fail(error)


def has_result(job: Job) -> bool:
    """Returns whether the file that a job would write exists."""
    return job.target != STDOUT and job.target.exists()


def set_model(job: Job, work: Work) -> None:
    """Records in the job which model is for it.

    Raises:
        ImageFileError: The model depends on the file, which is not a picture or film.
        InstallationError: It is a film, and PyAV is not installed.
    """
    from keras_psr.inference.choice import choose_model

    if work.model is None and job.kind == "film":
        job.model, job.compression = choose_film_model(job, work.size.scale)
    elif work.model is None:
        job.model, job.compression = choose_model(job.file, work.size.scale)
    else:
        job.model = work.model


def check_target(
    job: Job,
    batch: Batch,
    find_obstacle: Callable[[Path], str | None],
    is_shared: Callable[[Path], bool],
) -> None:
    """Marks a job as skipped if another run with the same work has just written its result.

    Raises:
        ConfigError: The target exists and may not be replaced, or cannot be written.
    """
    if job.target == STDOUT:
        return
    if has_result(job):
        if not batch.overwrite and is_shared(job.target.parent) and is_signed(job.target, job.model):
            job.leave()
        elif not batch.overwrite:
            raise ConfigError(
                f"{job.source}: {job.target} exists. Use --skip-existing, --overwrite, or another -o or --suffix."
            )
    elif obstacle := find_obstacle(job.target.parent):
        raise ConfigError(f"{job.source}: cannot write {job.target}: {obstacle}. Give another -o.")


def measure(job: Job, work: Work, batch: Batch) -> None:
    """Records in the job how large the result will be, and how many pixels the network must compute.

    Raises:
        ConfigError: The result is too large for its format or for `--max-pixels`.
        ImageFileError: The file is not a picture, an animation or a film.
    """
    try:
        height, width = plan_film(job, work, batch) if job.kind == "film" else plan_picture(job, work, batch)
    except ConfigError as error:
        raise ConfigError(f"{job.source}: {error}") from error
    assert job.size
    computed = height * width * work.size.scale**2
    job.network_pixels = computed * work.passes * (job.frames or 1)
    pixels = max(job.size[0] * job.size[1], computed)
    if pixels > batch.max_pixels * 1e6:
        raise ConfigError(
            f"{job.source} would become {job.size[1]}x{job.size[0]}, {pixels / 1e6:.1f} megapixels. If you "
            f"trust it and have {pixels * 8 / 1e9:.1f} GB of memory, raise --max-pixels {batch.max_pixels:g}."
        )


def plan_picture(job: Job, work: Work, batch: Batch) -> tuple[int, int]:
    """Records the size of a picture's or an animation's result in the job, and checks that it can be written.

    Returns:
        Height and width of the picture.

    Raises:
        ConfigError: The result is too large for its format.
        ImageFileError: The file is not a picture.
    """
    from keras_psr.images.animation import read_animation
    from keras_psr.images.decoding import image_size
    from keras_psr.images.encoding import check_format
    from keras_psr.inference.photos import output_size

    if job.kind == "animation":
        job.moving = read_animation(job.file)
        job.frames = count_frames(job.moving, batch)
        height, width = job.moving.height, job.moving.width
    else:
        height, width = image_size(job.file)
    job.size = output_size(height, width, work.size.factor(height, width))
    target = Path(f"stdout{job.ending}") if job.target == STDOUT else job.target
    check_format(target, *job.size, channels=3, is_animated=job.kind == "animation")
    return height, width


@contextmanager
def trusted_headers() -> Iterator[None]:
    """Turns off Pillow's size limit, because --max-pixels replaces it, and its warnings about odd metadata."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
