"""The options for a batch of pictures, and the checks before any picture is read."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import click

from keras_psr.cli.film_options import FILM_OPTIONS

FORMATS = ("png", "jpg", "webp", "tif", "bmp", "gif")
"""Formats of pictures and animations; `gif` is for animations only."""

FILM_FORMATS = ("mp4", "mkv", "mov", "webm")

STREAM = "-"
"""Means stdin as an input, and stdout as the output."""

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The values of the options of `batch_options`, by name."""

    inputs: tuple[str, ...]
    more_inputs: tuple[str, ...]
    output: str | None
    suffix: str | None
    file_format: str | None
    quality: int | None
    skip_existing: bool
    overwrite: bool
    include_results: bool
    dry_run: bool
    jobs: int
    max_pixels: float
    report: str | None
    codec: str | None
    crf: int | None
    start: Fraction | None
    duration: Fraction | None
    resume: bool

    @property
    def all_inputs(self) -> tuple[str, ...]:
        """The inputs, with and without `-i`."""
        return self.more_inputs + self.inputs

    @property
    def to_stdout(self) -> bool:
        """Whether the result goes to stdout: with `-o -`, or for a picture from stdin without `-o`."""
        return self.output == STREAM or self.output is None and self.all_inputs == (STREAM,)

    @property
    def streams(self) -> bool:
        """Whether stdin or stdout is used for pictures."""
        return self.to_stdout or STREAM in self.all_inputs

    @cached_property
    def folder(self) -> Path | None:
        """The folder of `-o`: one that exists, or a path that ends in a slash or has no ending."""
        if self.output is None or self.to_stdout:
            return None
        is_folder = self.output.endswith(tuple(filter(None, (os.sep, os.altsep)))) or Path(self.output).is_dir()
        return Path(self.output) if is_folder or not Path(self.output).suffix else None

    @property
    def file(self) -> Path | None:
        """The file of `-o`, for one picture."""
        return None if self.output is None or self.to_stdout or self.folder else Path(self.output)

    def check(self) -> None:
        """Checks that the options do not exclude each other, and that the output can be written.

        Raises:
            click.UsageError: An option cannot be used; the message says which, and what is accepted.
        """
        self._check_inputs()
        if self.skip_existing and self.overwrite:
            raise click.UsageError("--skip-existing and --overwrite exclude each other.")
        if self.file_format and self.file:
            raise click.UsageError(
                f"--format {self.file_format} does not go with -o {self.output}, whose ending sets the format."
            )
        if self.to_stdout and self.report == STREAM:
            raise click.UsageError("The picture and --json - cannot both go to stdout. Give a file for one of them.")
        if self.to_stdout and not self.dry_run and sys.stdout.isatty():
            raise click.UsageError("stdout is a terminal, which cannot show pictures. Redirect it, or give -o FILE.")
        self._check_output()

    def _check_inputs(self) -> None:
        if not self.all_inputs:
            raise click.UsageError("Missing argument 'INPUT...': a picture, a folder, a quoted glob, or - for stdin.")
        if STREAM in self.all_inputs and len(self.all_inputs) > 1:
            raise click.UsageError("- means one picture from stdin. Leave the other inputs out.")

    def _check_output(self) -> None:
        from keras_psr.films.formats import CONTAINERS
        from keras_psr.images.encoding import SAVE_OPTIONS

        endings = (*SAVE_OPTIONS, ".gif", *CONTAINERS)
        if self.file and self.file.suffix.lower() not in endings:
            raise click.UsageError(
                f"-o {self.output} has an ending that cannot be written; expected one of {', '.join(endings)}. "
                f"If it is a folder, write {self.output}/."
            )
        for option, place in (("-o", self.folder or self.file), ("--json", self.report)):
            if place is None or place == STREAM:
                continue
            path = Path(place)
            reason = find_obstacle(path if path == self.folder else path.parent)
            if option == "--json" and path.is_dir():
                reason = f"{path} is a folder"
            if reason:
                raise click.UsageError(f"{option} {place} cannot be written: {reason}. Give another place.")


def find_obstacle(folder: Path) -> str | None:
    """Returns why no file can be written into a folder, which need not exist yet; None if one can."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is a file"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"the folder {folder} is write-protected"


def batch_options(suffix: str, file_format: str) -> Callable[[Command], Command]:
    """Adds the argument and the options of `Batch` to a command.

    Args:
        suffix: The default suffix, for the help.
        file_format: The default format.
    """
    options = [
        click.argument("inputs", nargs=-1, metavar="INPUT...", type=click.Path(allow_dash=True)),
        click.option(
            "-i",
            "--input",
            "more_inputs",
            multiple=True,
            metavar="INPUT",
            type=click.Path(allow_dash=True),
            help="An input, as without -i. Repeatable.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(allow_dash=True),
            help="Folder to write to, which mirrors the folders of the inputs; for one picture a file, or - for "
            "stdout. A slash at the end always means a folder.  [default: next to each picture]",
        ),
        click.option("--suffix", metavar="TEXT", help=f"Suffix of the names of results.  [default: {suffix}]"),
        click.option(
            "-f",
            "--format",
            "file_format",
            type=click.Choice(FORMATS + FILM_FORMATS),
            help=f"Format of the results.  [default: {file_format}; that of the input for animations and films]",
        ),
        click.option(
            "--quality",
            type=click.IntRange(1, 100),
            help="Quality of JPEG and WebP.  [default: 95 for JPEG, lossless for WebP]",
        ),
        *FILM_OPTIONS,
        click.option("--skip-existing", is_flag=True, help="Skip pictures whose result exists."),
        click.option("--overwrite", is_flag=True, help="Replace existing files."),
        click.option(
            "--include-results", is_flag=True, help="Include pictures made by keras-psr in folders and globs."
        ),
        click.option("--dry-run", is_flag=True, help="List what would be written, but write nothing."),
        click.option(
            "-j",
            "--jobs",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Pictures to process at once; more than 1 is faster for small pictures.",
        ),
        click.option(
            "--max-pixels",
            type=click.FloatRange(0, min_open=True),
            default=500.0,
            show_default=True,
            metavar="MP",
            help="Refuse pictures whose result would be larger than this, in megapixels.",
        ),
        click.option(
            "--json",
            "report",
            type=click.Path(allow_dash=True),
            metavar="FILE",
            help="Write a JSON report; - is stdout.",
        ),
    ]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add
