"""`keras-psr upscale`: pictures in, enlarged pictures out."""

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
from typing import IO, TYPE_CHECKING, Any

import click

from keras_psr.cli.shared import load_model, model_option, say, scale_option
from keras_psr.errors import ConfigError, DataError, KerasPSRError

if TYPE_CHECKING:
    from keras_psr.inference import Upscaler

FORMATS = ("png", "jpg", "webp", "tif", "bmp")

OnPixels = Callable[[int], None]


@dataclass
class Job:
    """One picture to enlarge.

    Attributes:
        source: Its file.
        target: The file to write.
        size: Height and width of the result, in pixels; None until the header has been read.
        network_pixels: Pixels that the network gives for it.
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


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write to, where the trees of folders are mirrored; or for one picture a file.  "
    "[default: beside each picture]",
)
@model_option
@scale_option
@click.option("--suffix", metavar="TEXT", help="Ends the names of what is written.  [default: _x4, for scale 4]")
@click.option("--format", "file_format", type=click.Choice(FORMATS), help="Format of what is written.  [default: png]")
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Quality of JPEG and WebP.  [default: 95 for JPEG, lossless for WebP]",
)
@click.option(
    "--output-scale",
    type=click.FloatRange(0, 16, min_open=True),
    metavar="X",
    help="Resize the network's result to X times the size of the input, by antialiased bicubic.",
)
@click.option("--match-histogram", is_flag=True, help="Give the result the input's distribution of levels, by channel.")
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the network in the result; the rest is bicubic.",
)
@click.option("--skip-existing", is_flag=True, help="Leave out pictures whose result exists.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Pictures in memory at once; more than 1 is faster for small ones.",
)
@click.option("--threads", type=click.IntRange(1), help="Tiles computed at once, by a .tflite.  [default: all cores]")
@click.option(
    "--max-pixels",
    type=click.FloatRange(0, min_open=True),
    default=500.0,
    show_default=True,
    metavar="MP",
    help="Refuse pictures that would become larger than this, in million pixels.",
)
@click.option("--json", "json_file", type=click.File("w"), metavar="FILE", help="Write a report as JSON; - is stdout.")
def upscale(
    inputs: tuple[str, ...],
    output: Path | None,
    model: str | None,
    scale: int | None,
    suffix: str | None,
    file_format: str | None,
    quality: int | None,
    output_scale: float | None,
    match_histogram: bool,
    strength: float,
    skip_existing: bool,
    overwrite: bool,
    dry_run: bool,
    jobs: int,
    threads: int | None,
    max_pixels: float,
    json_file: IO[str] | None,
) -> None:
    """Upscale pictures with a fitted network.

    INPUT is a picture, a folder, which is searched recursively, or a quoted glob. photo.jpg becomes photo_x4.png beside
    it. In folders and globs, pictures whose names end in the suffix already are left out.

    Transparency, grey, 16 bits, colour profile, EXIF data and resolution are kept where the format holds them; pictures
    are turned upright. An interrupted run leaves no half files: go on with --skip-existing.

    \b
    Examples:
      keras-psr upscale photo.jpg
      keras-psr upscale photo.jpg -o big.png --model runs/x4
      keras-psr upscale holiday/ "scans/*.tif" -o enlarged/ --format jpg --quality 92 --skip-existing
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    if skip_existing and overwrite:
        raise click.UsageError("--skip-existing and --overwrite exclude each other.")
    if file_format and output and is_file(output):
        raise click.UsageError(f"--format {file_format} does not go with -o {output}, whose ending tells the format.")
    found, failures = find_inputs(inputs)
    if not found:
        end(failures, [], json_file)
    upscaler = load_model(model, scale, threads)
    factor = output_scale or upscaler.scale
    suffix = f"_x{factor:g}" if suffix is None else suffix
    ending = f"{suffix}.{file_format or 'png'}"
    chosen = {path: root for path, (root, named) in found.items() if named or not is_result(path, suffix)}
    if not chosen:
        raise DataError(f"Nothing to upscale: the names of all {len(found)} pictures end in {suffix} already.")
    if output and is_file(output) and len(chosen) > 1:
        raise click.UsageError(f"-o {output} is one file, but there are {len(chosen)} pictures. Give a folder.")
    plan = [Job(path, choose_target(path, root, output, ending)) for path, root in chosen.items()]
    with trusted_headers():
        check(plan, upscaler.scale, factor, max_pixels=max_pixels, overwrite=overwrite, skip_existing=skip_existing)
        options = {"output_scale": output_scale, "strength": strength, "match_histogram": match_histogram}
        if dry_run:
            say("\n".join(["Would write:", *(f"  {job.describe()}" for job in plan if job.status == "planned")]))
        else:
            run(plan, upscaler, jobs=jobs, quality=quality, options=options)
    end(failures, plan, json_file)


def find_inputs(inputs: tuple[str, ...]) -> tuple[dict[Path, tuple[Path, bool]], list[str]]:
    """The pictures, in order, each with the folder that is mirrored and whether it was named; why inputs gave none."""
    from keras_psr.image_files import find_images

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
    """Whether a picture's name says that it has been upscaled."""
    return suffix != "" and path.stem.endswith(suffix)


def is_file(output: Path) -> bool:
    """Whether `-o` means a file: it has an ending, and no folder has its name."""
    return output.suffix != "" and not output.is_dir()


def choose_target(source: Path, root: Path, output: Path | None, ending: str) -> Path:
    """Where the enlarged picture goes."""
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


def check(
    plan: Sequence[Job], scale: int, factor: float, *, max_pixels: float, overwrite: bool, skip_existing: bool
) -> None:
    """Reads the headers, and marks what is skipped or fails: no picture, too large, or its target is in the way."""
    from keras_psr.image_files import image_size
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
            if job.target.exists() and skip_existing:
                job.status = "skipped"
                continue
            if job.target.exists() and not overwrite:
                raise ConfigError(
                    f"{job.source}: {job.target} exists. Use --skip-existing, --overwrite, or another -o or --suffix."
                )
            height, width = image_size(job.source)
            job.size, job.network_pixels = output_size(height, width, factor), height * width * scale**2
            pixels = max(job.size[0] * job.size[1], job.network_pixels)
            if pixels > max_pixels * 1e6:
                raise ConfigError(
                    f"{job.source} would become {job.size[1]}x{job.size[0]}, {pixels / 1e6:.1f} million pixels. If you "
                    f"trust it and have {pixels * 8 / 1e9:.1f} GB of memory, raise --max-pixels {max_pixels:g}."
                )
        except KerasPSRError as error:
            job.fail(str(error))


def run(
    plan: Sequence[Job], upscaler: "Upscaler", *, jobs: int, quality: int | None, options: dict[str, Any]
) -> None:
    """Enlarges what is planned, several pictures at once; Ctrl-C ends it after the tiles and files under way."""
    waiting = [job for job in plan if job.status == "planned"]
    stopped = threading.Event()
    with show_progress(waiting) as on_pixels, ThreadPoolExecutor(jobs) as executor:

        def advance(pixels: int) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            on_pixels(pixels)

        futures: list[Future[Job]] = [
            executor.submit(upscale_file, job, upscaler, quality, options, advance) for job in waiting
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


def upscale_file(
    job: Job, upscaler: "Upscaler", quality: int | None, options: dict[str, Any], on_pixels: OnPixels
) -> Job:
    """Reads, enlarges and writes one picture, and notes how that went."""
    from keras_psr.photos import fit_to_format, read_photo, write_photo
    from keras_psr.upscaling import upscale_photo

    start, done = time.perf_counter(), 0

    def count(pixels: int) -> None:
        nonlocal done
        done += pixels
        on_pixels(pixels)

    try:
        photo = upscale_photo(upscaler, read_photo(job.source), on_pixels=count, **options)
        photo = fit_to_format(photo, job.target.suffix)
        write_photo(job.target, photo, quality)
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


def end(failures: Sequence[str], plan: Sequence[Job], json_file: IO[str] | None) -> None:
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
        say("\n  ".join([f"{count['written']} upscaled, {len(failures)} failed:", *failures]))
        raise click.exceptions.Exit(1)
