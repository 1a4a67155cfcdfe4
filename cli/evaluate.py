"""The `keras-psr evaluate` command, which scores a network and compares it with ways that need no network."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from keras_psr.cli.model_options import device_option, load_any_model, model_option, scale_option
from keras_psr.cli.terminal import say
from keras_psr.environment import require_everything
from keras_psr.tasks.report import REPORTS

if TYPE_CHECKING:
    from keras_psr.data.sources import OnPicture


@click.command()
@model_option("the shipped model for the scale")
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
    "--degradation",
    metavar="NAME",
    help="How pictures are reduced: bicubic, photo (as for fit), jpeg:75, noise:10 or blur:0.5, with any number.  "
    "[default: bicubic]",
)
@click.option(
    "--style",
    type=click.Path(dir_okay=False),
    help="The painting of a style network.  [default: the one that it was fitted to, if the file still exists]",
)
@click.option(
    "--iterations",
    type=click.IntRange(0),
    help="For a style network: also optimise each picture, and score it after 50, 100, 300 and 500 iterations.  "
    "[default: 0]",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.File("w", encoding="utf-8"),
    help="Write all scores, including those of each picture, as JSON; - for stdout.",
)
def evaluate(
    model: str | None,
    scale: int | None,
    device: str,
    data: tuple[str, ...],
    degradation: str | None,
    style: str | None,
    iterations: int | None,
    json_file: IO[str] | None,
) -> None:
    """Score a network on a folder of pictures, and compare it with ways that need no network.

    Each picture is reduced by the scale, enlarged again, and compared with the original. PSNR (dB) and SSIM are those
    of luma, without a border as wide as the scale; more is better. "Features" is the distance in VGG16's relu2_2,
    divided by bicubic's; LPIPS uses VGG16 without learned weights; less is better. "Texture" is the distance between
    the textures of all results and those of all originals, wherever they lie, in VGG16's relu3_3; 0 is best. It needs
    2,000 patches of 32x32 pixels. A lattice ratio far above 1 means that there is a visible grid. --degradation reduces
    pictures like those from phones and web sites; a block ratio above 1.5 means that JPEG's blocks are visible.

    For a style network, the score is the paper's loss, without the terms that a fit adds to it, in squares of 256
    pixels. It is compared with the loss of the photographs themselves and, with --iterations, of pictures that are
    optimised from noise. Chroma is the power of Cb and Cr above a quarter cycle per pixel; it should not exceed the
    painting's. The lattice ratio measures a grid of four pixels. Flicker is that of a film with sensor noise, still
    and moving, as a multiple of the film's own.

    \b
    Examples:
      keras-psr evaluate --data Set14/
      keras-psr evaluate --model runs/x4 --data Set5/ --data Set14/ --json scores.json
      keras-psr evaluate --scale 2 --data Set14/ --json -
      keras-psr evaluate --model x4-photo --data Set14/ --degradation jpeg:75
      keras-psr evaluate --model runs/starry-night --data photos/ --iterations 100
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    require_everything("keras-psr evaluate")
    network = load_any_model(model, scale, device=device)
    name = model or f"x{network.scale}"
    with show_pictures() as on_picture:
        from keras_psr.inference.registry import fit_settings
        from keras_psr.tasks.registry import TASKS

        result = TASKS[network.task].evaluate(
            network,
            data,
            settings=fit_settings(name),
            degradation=degradation,
            style=style,
            iterations=iterations,
            on_picture=on_picture,
        )
    Console(stderr=True).print(build_table(name, result))
    for reason in result.get("missing", {}).values():
        say(reason)
    if result.get("iterations_to_match"):
        say(f"{name} is as good as {result['iterations_to_match']} iterations of L-BFGS.")
    if json_file:
        document = without_nan({"model": name, "data": list(data), **result})
        json_file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


@contextmanager
def show_pictures() -> Iterator["OnPicture"]:
    """Yields a function to call before each picture. A terminal shows a bar."""
    console = Console(stderr=True)
    columns = [MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


def build_table(model: str, result: dict[str, Any]) -> Table:
    """Builds a table of the summary, with a row per method."""
    report = REPORTS[result["task"]]
    title = f"{report.evaluation_title.format(**result)}, number of pictures: {len(result['pictures'])}"
    present = {metric for scores in result["summary"].values() for metric in scores}
    columns = {metric: measure for metric, measure in report.evaluation.items() if metric in present}
    padding = (0, 1 if len(columns) < 9 else 0)  # a terminal of 80 characters then has room for nine whole headings
    table = Table(title=title, title_justify="left", collapse_padding=True, padding=padding)
    table.add_column("")
    for measure in columns.values():
        table.add_column(measure.heading, justify="right")
    for method, scores in result["summary"].items():
        cells = (measure.show(scores.get(metric)) for metric, measure in columns.items())
        table.add_row(model if method == "model" else method, *cells)
    return table


def without_nan(value: Any) -> Any:
    """Returns a document with None in place of numbers that JSON does not have, such as NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
