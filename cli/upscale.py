"""`keras-psr upscale`: pictures in, enlarged pictures out."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keras_psr.cli.shared import load_model, model_option, say, scale_option
from keras_psr.errors import ConfigError, DataError, KerasPSRError

if TYPE_CHECKING:
    from keras_psr.inference import Upscaler

MAX_OUTPUT_PIXELS = 6_000_000
"""Of the enlarged picture; the default network took 0.9 KB of memory for each at x4, 1.0 KB at x8 (measured)."""


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write to, or for one picture a file.  [default: beside each picture]",
)
@model_option
@scale_option
@click.option("--suffix", metavar="TEXT", help="Ends the names of what is written.  [default: _x4, for scale 4]")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def upscale(
    inputs: tuple[str, ...],
    output: Path | None,
    model: str | None,
    scale: int | None,
    suffix: str | None,
    overwrite: bool,
) -> None:
    """Upscale pictures with a fitted network.

    INPUT is a picture, a folder, which is searched recursively, or a quoted glob. photo.jpg becomes photo_x4.png beside
    it. In folders and globs, pictures whose names end in the suffix already are left out.

    An enlarged picture may have 6 million pixels (an input of 780x480 at x4): the network takes 6 GB of memory for it.

    \b
    Examples:
      keras-psr upscale photo.jpg
      keras-psr upscale photo.jpg -o big.png --model runs/x4
      keras-psr upscale holiday/ "scans/*.tif" -o enlarged/ --scale 2
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    found, failures = find_inputs(inputs)
    if not found:
        report_failures(failures, done=0)
    upscaler = load_model(model, scale)
    suffix = f"_x{upscaler.scale}" if suffix is None else suffix
    sources = [path for path, named in found.items() if named or not (suffix and path.stem.endswith(suffix))]
    if not sources:
        raise DataError(f"Nothing to upscale: the names of all {len(found)} pictures end in {suffix} already.")
    if output and is_file(output) and len(sources) > 1:
        raise click.UsageError(f"-o {output} is one file, but there are {len(sources)} pictures. Give a folder.")
    written: set[Path] = set()
    for source in sources:
        target = choose_target(source, output, suffix)
        try:
            check_target(source, target, overwrite=overwrite, written=written)
            upscale_file(upscaler, source, target)
            written.add(target)
        except KerasPSRError as error:
            failures.append(str(error))
    report_failures(failures, done=len(written))


def find_inputs(inputs: tuple[str, ...]) -> tuple[dict[Path, bool], list[str]]:
    """The pictures, in order, with whether each was named itself; and why inputs gave none."""
    from keras_psr.image_files import find_images

    found: dict[Path, bool] = {}
    failures = []
    for text in inputs:
        try:
            for path in find_images(text):
                found[path] = found.get(path, False) or path == Path(text)
        except DataError as error:
            failures.append(str(error))
    return found, failures


def is_file(output: Path) -> bool:
    """Whether `-o` means a file: it has an ending, and no folder has its name."""
    return output.suffix != "" and not output.is_dir()


def choose_target(source: Path, output: Path | None, suffix: str) -> Path:
    """Where the enlarged picture goes."""
    if output and is_file(output):
        return output
    return (output or source.parent) / f"{source.stem}{suffix}.png"


def check_target(source: Path, target: Path, *, overwrite: bool, written: set[Path]) -> None:
    """Refuses to lose a file.

    Raises:
        ConfigError: The target is in the way.
    """
    if target in written:
        raise ConfigError(f"{source}: {target} was written for another input already. Give another -o or --suffix.")
    if target.exists() and not overwrite:
        raise ConfigError(f"{source}: {target} exists. Use --overwrite, or another -o or --suffix.")


def upscale_file(upscaler: "Upscaler", source: Path, target: Path) -> None:
    """Reads, enlarges and writes one picture.

    Raises:
        KerasPSRError: It cannot be read or written, or is too large.
    """
    from keras_psr.image_files import image_size, read_rgb, write_image

    height, width = (side * upscaler.scale for side in image_size(source))
    if height * width > MAX_OUTPUT_PIXELS:
        raise ConfigError(
            f"{source} would become {width}x{height}, {height * width / 1e6:.1f} million pixels; at most "
            f"{MAX_OUTPUT_PIXELS // 10**6} million fit in memory. Cut it into parts, or use a smaller --scale."
        )
    write_image(target, upscaler(read_rgb(source)))
    say(f"{source} -> {target} ({width}x{height})")


def report_failures(failures: list[str], *, done: int) -> None:
    """Ends the command with exit code 1 if anything failed: in one line, or in a summary that names all."""
    if len(failures) == 1 and not done:
        raise KerasPSRError(failures[0])
    if failures:
        say("\n  ".join([f"{done} upscaled, {len(failures)} failed:", *failures]))
        raise click.exceptions.Exit(1)
