"""`keras-psr evaluate`: the score table of a network beside bicubic and Lanczos."""

import json
import math
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from keras_psr.cli.shared import load_model, model_option, scale_option

COLUMNS = {
    "psnr_y": ("PSNR", ".2f"),
    "ssim_y": ("SSIM", ".4f"),
    "psnr_rgb": ("PSNR RGB", ".2f"),
    "feature_distance_ratio": ("features", ".3f"),
    "lpips_vgg": ("LPIPS", ".3f"),
    "lattice_ratio": ("lattice", ".2f"),
}
"""Heading and format of each score that the table shows."""


@click.command()
@model_option
@scale_option
@click.option(
    "--data",
    metavar="SRC",
    multiple=True,
    required=True,
    help="Pictures at full resolution: a folder, a quoted glob, tfds:NAME[:SPLIT] or sample:val. Repeatable.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.File("w", encoding="utf-8"),
    help="Write all scores, also of each picture, as JSON; - for stdout.",
)
def evaluate(model: str | None, scale: int | None, data: tuple[str, ...], json_file: IO[str] | None) -> None:
    """Score a network, bicubic and Lanczos on a folder of pictures.

    Each picture is reduced by the scale, enlarged again, and compared with itself. PSNR (dB) and SSIM are of luma, with
    a border of the scale left out; more is better. Features is the distance in VGG16's relu2_2 over that of bicubic;
    LPIPS is of VGG16 without learned weights; less is better. A lattice ratio far above 1 means a visible grid.

    \b
    Examples:
      keras-psr evaluate --data Set14/
      keras-psr evaluate --model runs/x4 --data Set5/ --data Set14/ --json scores.json
      keras-psr evaluate --scale 2 --data Set14/ --json -
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    upscaler = load_model(model, scale)
    from keras_psr.evaluation import evaluate as score

    console = Console(stderr=True)
    columns = [MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        result = score(
            upscaler,
            data,
            on_picture=lambda name, done, total: bar.update(task, description=name, completed=done, total=total),
        )
    name = model or f"x{upscaler.scale}"
    console.print(build_table(name, result))
    if json_file:
        document = without_nan({"model": name, "data": list(data), **result})
        json_file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def build_table(model: str, result: dict[str, Any]) -> Table:
    """The summary, a row for each method."""
    table = Table(title=f"x{result['scale']}, number of pictures: {len(result['pictures'])}", title_justify="left")
    table.add_column("")
    for heading, _ in COLUMNS.values():
        table.add_column(heading, justify="right")
    for method, scores in result["summary"].items():
        cells = (format_score(scores[metric], layout) for metric, (_, layout) in COLUMNS.items())
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
