"""The films and animations of a batch: how they are planned, and how they are written."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_psr.cli.batch_jobs import FilmPlan, Job, Process, Work
from keras_psr.cli.batch_options import FILM_FORMATS, FORMATS, Batch
from keras_psr.cli.claims import is_shared
from keras_psr.cli.own_results import SIGNATURE, sign
from keras_psr.cli.terminal import say
from keras_psr.errors import ConfigError

if TYPE_CHECKING:
    from keras_psr.films.reading import Film
    from keras_psr.images.animation import Animation
    from keras_psr.images.compression import Compression
    from keras_psr.images.photo import Photo

UNFINISHED = ".unfinished"
"""Ends the name, before its ending, of the film that an interrupted run leaves."""

_KEPT = "_old"
"""Ends the name of an unfinished film while its frames are copied into a new one."""

_WITHOUT_EFFECT = (
    *("inputs", "more_inputs", "output", "suffix", "file_format", "skip_existing", "overwrite", "include_results"),
    *("dry_run", "jobs", "max_pixels", "report", "resume", "threads", "device", "quality"),
)
"""Options that do not change the frames of a film."""


# === Planning ===


def find_kind(path: Path, batch: Batch) -> tuple[str, str]:
    """Returns what a file is, `picture`, `animation` or `film`, and the ending of its result's name.

    If the result's format cannot hold an animation, only its first frame is processed, as a picture.
    """
    from keras_psr.films.formats import choose_ending, is_film
    from keras_psr.images.animation import ANIMATED, find_ending

    wanted = batch.file_format
    if is_film(path):
        return "film", f".{wanted}" if wanted in FILM_FORMATS else choose_ending(path)
    if own := find_ending(path):
        ending = batch.file.suffix.lower() if batch.file else f".{wanted}" if wanted in FORMATS else own
        if ending in ANIMATED:
            return "animation", ending
    return "picture", f".{wanted}" if wanted in FORMATS and wanted != "gif" else ".png"


def check_options(jobs: Sequence[Job], batch: Batch) -> None:
    """Checks that `--format` and the options for films apply to at least one job.

    Raises:
        click.UsageError: An option applies to no job.
    """
    fitting = ("film",) if batch.file_format in FILM_FORMATS else ("picture", "animation")
    purposes: dict[str, tuple[Any, tuple[str, ...]]] = {
        f"--format {batch.file_format}": (batch.file_format, ("animation",) if batch.file_format == "gif" else fitting),
        "--codec": (batch.codec, ("film",)),
        "--crf": (batch.crf is not None, ("film",)),
        "--resume": (batch.resume, ("film",)),
        "--start": (batch.start is not None, ("animation", "film")),
        "--duration": (batch.duration is not None, ("animation", "film")),
    }
    for option, (is_given, kinds) in purposes.items():
        if is_given and not any(job.kind in kinds for job in jobs):
            raise click.UsageError(f"{option} is for {' and '.join(kind + 's' for kind in kinds)}. There are none.")


def is_unfinished(path: Path) -> bool:
    """Returns whether a file is a film that an interrupted run has left."""
    return path.stem.removesuffix(_KEPT).endswith(UNFINISHED)


def name_unfinished(target: Path) -> Path:
    """Returns the path of the film that an interrupted run leaves."""
    return target.with_name(f"{target.stem}{UNFINISHED}{target.suffix}")


def name_kept(target: Path) -> Path:
    """Returns the path of an unfinished film while its frames are copied into a new one."""
    return target.with_name(f"{target.stem}{UNFINISHED}{_KEPT}{target.suffix}")


def count_frames(animation: "Animation", batch: Batch) -> int:
    """Returns how many frames of an animation are processed."""
    return sum(is_wanted for _, is_wanted in select_frames(animation, batch))


def select_frames(animation: "Animation", batch: Batch) -> list[tuple[Fraction, bool]]:
    """Returns the duration of each frame of an animation, and whether it begins in the part that is processed."""
    begin, selected, time = batch.start or Fraction(0), list[tuple[Fraction, bool]](), Fraction(0)
    for duration in animation.durations:
        is_late = batch.duration is not None and time >= begin + batch.duration
        selected.append((duration, time >= begin and not is_late))
        time += duration / 1000
    return selected


def choose_film_model(job: Job, scale: int) -> tuple[str, "Compression"]:
    """Returns the shipped model that suits a film, and how the film is compressed.

    Raises:
        ImageFileError: The film cannot be read.
        InstallationError: PyAV is not installed.
    """
    from keras_psr.images.compression import Compression
    from keras_psr.inference.registry import default_model

    is_lossy = job.film.is_lossy
    return default_model(scale, for_artefacts=is_lossy), Compression(f"{job.film.codec} film", is_lossy)


def plan_film(job: Job, work: Work, batch: Batch) -> tuple[int, int]:
    """Records in the job how its film will be written, and checks that it can be.

    Args:
        job: The job; `moving`, `frames` and `size` are set.
        work: The command's work.
        batch: The options.

    Returns:
        Height and width of the film.

    Raises:
        ConfigError: The result cannot be written, or an unfinished one is there.
        ImageFileError: The film cannot be read.
        InstallationError: PyAV is not installed.
    """
    film = job.film
    from keras_psr.films.encoders import choose_encoding
    from keras_psr.films.writing import FilmWriter
    from keras_psr.inference.photos import output_size

    if batch.to_stdout:
        raise ConfigError("a film cannot go to stdout. Give -o FILE.")
    size = output_size(film.height, film.width, work.size.factor(film.height, film.width))
    encoding = choose_encoding(film, job.ending, batch.codec, batch.crf)
    job.moving = FilmPlan(encoding, size, make_signature(film, size, job.model))
    job.frames = estimate_frames(film, batch)
    check_unfinished(job, batch)
    trial = FilmWriter(job.target, film, encoding, size, in_memory=True)
    trial.close()
    job.size = trial.size
    return film.height, film.width


def estimate_frames(film: "Film", batch: Batch) -> int | None:
    """Returns about how many frames of a film are processed, if that is known.

    Raises:
        ConfigError: `--start` is after the end.
    """
    if film.seconds is None:
        return None if batch.duration is None else round(batch.duration * film.rate)
    start = batch.start or Fraction(0)
    if start >= film.seconds:
        raise ConfigError(f"--start {float(start):g} is after its end, {float(film.seconds):.1f} s.")
    if not start and batch.duration is None:
        return film.frames
    length = film.seconds - start
    return max(1, round((length if batch.duration is None else min(batch.duration, length)) * film.rate))


def make_signature(film: "Film", size: tuple[int, int], model: str) -> str:
    """Returns who makes a film, with a digest of everything that its frames depend on."""
    options: dict[str, Any] = click.get_current_context().params
    parts = [f"{name}={options[name]!r}" for name in sorted(options) if name not in _WITHOUT_EFFECT]
    parts += [str(size), str(film.path.stat().st_size)]
    return f"{SIGNATURE} {model} #{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:8]}"


def check_unfinished(job: Job, batch: Batch) -> None:
    """Checks that an unfinished film, if there is one, is continued or may be replaced.

    Raises:
        ConfigError: It is neither.
    """
    from keras_psr.films.writing import read_signature

    found = find_unfinished(job.target)
    if not found or batch.overwrite and not batch.resume:
        return
    if not batch.resume:
        if not is_shared(job.target.parent):  # else it may be the film that another run is writing
            raise ConfigError(describe_unfinished(found))
        return
    assert isinstance(job.moving, FilmPlan)
    if read_signature(found) != job.moving.signature:
        raise ConfigError(
            f"{found} was made with another film, model or option. Give the same ones, or begin again with --overwrite."
        )


def describe_unfinished(path: Path) -> str:
    """Returns the message for an unfinished film that is neither continued nor replaced."""
    return f"{path} is there. Go on with it by --resume, or begin again with --overwrite."


def find_unfinished(target: Path) -> Path | None:
    """Returns the unfinished film with the most frames: while one is copied into another, there are two."""
    paths = [path for path in (name_unfinished(target), name_kept(target)) if path.is_file()]
    return max(paths, key=lambda path: path.stat().st_size, default=None)


# === Writing ===


def write_film(
    job: Job, process: Process, batch: Batch, count: Callable[[float], None], on_frame: Callable[[int], None]
) -> None:
    """Processes a film, and gives the file its final name.

    Args:
        job: The job.
        process: What is done to each frame.
        batch: The options.
        count: Called with numbers of computed pixels. If it raises KeyboardInterrupt, the film is closed.
        on_frame: Called with the number of frames in the result.

    Raises:
        KeyboardInterrupt: The run should end. What has been done is in the unfinished film, and a line says so.
        Exception: Anything that reading, the network or writing raises.
    """
    from keras_psr.inference.films import process_film

    plan, unfinished, kept = job.moving, name_unfinished(job.target), name_kept(job.target)
    assert isinstance(plan, FilmPlan)
    found = find_unfinished(job.target)
    if found and not (batch.resume or batch.overwrite):
        raise ConfigError(describe_unfinished(found))
    resumed = found if batch.resume else None
    if resumed:
        os.replace(resumed, kept)
    part: dict[str, Any] = {"start": batch.start or Fraction(0), "duration": batch.duration}
    try:
        outcome = process_film(
            lambda photo: process(photo, count),
            job.film,
            unfinished,
            plan.encoding,
            plan.size,
            **part,
            signature=plan.signature,
            resumed=kept if resumed else None,
            on_frame=on_frame,
        )
    except Exception:
        tell_unfinished(job.target)
        raise
    kept.unlink(missing_ok=True)
    job.notes, expected, job.frames = list(outcome.notes), job.frames, outcome.frames
    if outcome.is_complete:
        os.replace(unfinished, job.target)
        job.status = "written"
        return
    job.status = "interrupted"
    if outcome.frames:
        job.target = unfinished
        of = f" of about {expected}" if expected else ""
        say(f"{unfinished} holds {outcome.frames}{of} frames, up to {show_time(outcome.seconds)}. --resume goes on.")
    else:
        unfinished.unlink(missing_ok=True)
    raise KeyboardInterrupt


def tell_unfinished(target: Path) -> None:
    """Prints which file holds what has been done before an error, or removes it if it holds nothing."""
    from keras_psr.errors import ImageFileError
    from keras_psr.films.reading import read_film

    found = find_unfinished(target)
    if found:
        try:
            read_film(found)
        except ImageFileError:
            found.unlink()
        else:
            say(f"{found} holds what has been done. --resume goes on.")


def show_time(seconds: Fraction) -> str:
    """Returns a time as text: 0:07.5 or 1:02:03.0."""
    minutes, rest = divmod(float(seconds), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def write_animation(job: Job, process: Process, batch: Batch, part: Path, count: Callable[[float], None]) -> None:
    """Processes an animation frame by frame, and writes it to `part`.

    Args:
        job: The job.
        process: What is done to each frame.
        batch: The options.
        part: The file to write.
        count: Called with numbers of computed pixels.

    Raises:
        ImageFileError: The animation cannot be read.
    """
    from keras_psr.images.animation import read_frames
    from keras_psr.images.animation_writing import LOSSY_QUALITY, open_animation
    from keras_psr.images.compression import read_compression
    from keras_psr.images.decoding import FIRST_OF, read_photo
    from keras_psr.images.encoding import fit_to_format

    animation: Any = job.moving
    quality = batch.quality or (LOSSY_QUALITY if read_compression(job.file).has_artefacts else None)
    source = read_photo(job.file)
    notes = [note for note in source.notes if not note.startswith(FIRST_OF)]
    notes += ["16 bits cut to 8"] if source.pixels.dtype != "uint8" else []
    first: Photo | None = None
    with open_animation(part, animation.plays, has_alpha=animation.has_alpha, quality=quality) as writer:
        for frame, (duration, is_wanted) in zip(read_frames(animation), select_frames(animation, batch), strict=False):
            if not is_wanted:
                continue
            result = process(frame, count)
            if first is None:
                described = replace(source, pixels=result.pixels, alpha=result.alpha, notes=tuple(notes))
                first = result = sign(fit_to_format(described, job.ending), job.model, job.ending)
            writer.add(result, duration)
    if first is None:
        raise ConfigError(f"{job.source} has no frames in the part that --start and --duration choose.")
    job.notes = [*first.notes, *(["256 colours for each frame, because it is a GIF"] if job.ending == ".gif" else [])]
