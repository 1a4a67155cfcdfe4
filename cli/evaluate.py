"""`keras-psr evaluate`: the score table of a network, beside bicubic and Lanczos, or beside optimisation for styles."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from keras_psr.cli.model_options import device_option, load_any_model, model_option, scale_option
from keras_psr.cli.terminal import say
from keras_psr.errors import ConfigError
from keras_psr.installation import require_everything
from keras_psr.tasks.config import FitConfig, StyleConfig

if TYPE_CHECKING:
    from keras_psr.inference.upscaler import Upscaler

COLUMNS = {
    "psnr_y": ("PSNR", ".2f"),
    "ssim_y": ("SSIM", ".4f"),
    "psnr_rgb": ("PSNR RGB", ".2f"),
    "feature_distance_ratio": ("features", ".3f"),
    "lpips_vgg": ("LPIPS", ".3f"),
    "lattice_ratio": ("lattice", ".2f"),
}
"""Heading and format of each score that the table shows."""


STYLE_COLUMNS = {
    "loss": ("objective", ".4f"),
    "feature_loss": ("content", ".4f"),
    "style_loss": ("style", ".4f"),
    "total_variation": ("TV", ".0f"),
    "lattice_ratio": ("lattice", ".2f"),
    "seconds": ("seconds", ".3f"),
}
"""The same for styles; a term without weight, and what took no time, is a dash."""

OnPicture = Callable[[str, int, int], None]


@click.command()
@model_option
@scale_option
@device_option
@click.option(
    "--data",
    metavar="SRC",
    multiple=True,
    required=True,
    help="Pictures at full resolution: a folder, a quoted glob, tfds:NAME[:SPLIT] or sample:val. Repeatable.",
)
@click.option(
    "--style",
    type=click.Path(dir_okay=False),
    help="The painting of a style network.  [default: the one that it was fitted to, if it is still there]",
)
@click.option(
    "--iterations",
    type=click.IntRange(0),
    help="Of a style network: also optimise each picture, and look at 50, 100, 300 and 500 iterations.  [default: 0]",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.File("w", encoding="utf-8"),
    help="Write all scores, also of each picture, as JSON; - for stdout.",
)
def evaluate(
    model: str | None,
    scale: int | None,
    device: str,
    data: tuple[str, ...],
    style: str | None,
    iterations: int | None,
    json_file: IO[str] | None,
) -> None:
    """Score a network on a folder of pictures, beside what one can do without it.

    Each picture is reduced by the scale, enlarged again, and compared with itself. PSNR (dB) and SSIM are of luma, with
    a border of the scale left out; more is better. Features is the distance in VGG16's relu2_2 over that of bicubic;
    LPIPS is of VGG16 without learned weights; less is better. A lattice ratio far above 1 means a visible grid.

    Of a style network the loss that it was fitted to is measured, but for the phase loss, in squares of 256 pixels,
    beside the photograph's own and that of optimising the pixels from noise; the lattice ratio tells of a grid of four
    pixels.

    \b
    Examples:
      keras-psr evaluate --data Set14/
      keras-psr evaluate --model runs/x4 --data Set5/ --data Set14/ --json scores.json
      keras-psr evaluate --scale 2 --data Set14/ --json -
      keras-psr evaluate --model runs/starry-night --data photos/ --iterations 100
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    require_everything("keras-psr evaluate")
    network = load_any_model(model, scale, device=device)
    name = model or f"x{network.scale}"
    with show_pictures() as on_picture:
        if network.scale == 1:
            result = score_style(network, name, data, style, iterations or 0, on_picture)
        elif style or iterations is not None:
            raise ConfigError(
                f"--style and --iterations are for style networks. {name} enlarges {network.scale} times."
            )
        else:
            from keras_psr.tasks.super_resolution.evaluation import evaluate as score

            result = score(network, data, on_picture=on_picture)
    Console(stderr=True).print(build_table(name, result))
    if result.get("iterations_to_match"):
        say(f"{name} is as good as {result['iterations_to_match']} iterations of L-BFGS.")
    if json_file:
        document = without_nan({"model": name, "data": list(data), **result})
        json_file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def score_style(
    stylizer: "Upscaler", name: str, data: tuple[str, ...], style: str | None, iterations: int, on_picture: OnPicture
) -> dict[str, Any]:
    """Measures a style network by the loss that it was fitted to.

    Raises:
        ConfigError: Nobody knows which painting that was.
    """
    from keras_psr.inference.registry import fit_settings
    from keras_psr.tasks.style_transfer.evaluation import evaluate_style
    from keras_psr.tasks.style_transfer.task import build_objective

    config = FitConfig.from_json(fit_settings(name) or {"style": style or "unknown"})
    assert isinstance(config, StyleConfig)
    if style is None and not Path(config.style).is_file():
        raise ConfigError(f"--style must be the painting of {name}. There is no file {config.style}.")
    objective = build_objective(replace(config, style=style or config.style))
    return evaluate_style(stylizer, objective, data, iterations=iterations, on_step=on_picture)


@contextmanager
def show_pictures() -> Iterator[OnPicture]:
    """Gives what to call before each picture; a terminal shows a bar."""
    console = Console(stderr=True)
    columns = [MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


def build_table(model: str, result: dict[str, Any]) -> Table:
    """The summary, a row for each method."""
    title, columns = f"x{result.get('scale')}", COLUMNS
    if "weights" in result:
        title, columns = f"{result['size']}x{result['size']}", STYLE_COLUMNS
    table = Table(title=f"{title}, number of pictures: {len(result['pictures'])}", title_justify="left")
    table.add_column("")
    for heading, _ in columns.values():
        table.add_column(heading, justify="right")
    for method, scores in result["summary"].items():
        cells = (format_score(scores.get(metric, math.nan), layout) for metric, (_, layout) in columns.items())
        table.add_row(model if method == "model" else method, *cells)
    return table


def format_score(score: float, layout: str) -> str:
    """A number as text; a score that is not defined is a dash."""
    return format(score, layout) if math.isfinite(score) else "-"


def without_nan(value: Any) -> Any:
    """The same document with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
