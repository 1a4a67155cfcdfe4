"""`keras-psr evaluate`: the score table of a network, beside bicubic and Lanczos, or beside optimisation for styles."""

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
from keras_psr.installation import require_everything
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
    help="How pictures are reduced: bicubic, photo (as fit does), jpeg:75, noise:10 or blur:0.5, with any number.  "
    "[default: bicubic]",
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
    degradation: str | None,
    style: str | None,
    iterations: int | None,
    json_file: IO[str] | None,
) -> None:
    """Score a network on a folder of pictures, beside what one can do without it.

    Each picture is reduced by the scale, enlarged again, and compared with itself. PSNR (dB) and SSIM are of luma, with
    a border of the scale left out; more is better. Features is the distance in VGG16's relu2_2 over that of bicubic;
    LPIPS is of VGG16 without learned weights; less is better. A lattice ratio far above 1 means a visible grid.
    --degradation reduces pictures as phones and web sites do; blocks above 1.5 mean that those of JPEG are visible.

    Of a style network the loss that it was fitted to is measured, without the phase and the chroma loss, in squares of
    256 pixels, beside the photograph's own and that of optimising the pixels from noise. Chroma is the power of Cb
    and Cr above a quarter cycle per pixel, and should not exceed the painting's. The lattice ratio tells of a grid
    of four pixels.

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
    if result.get("iterations_to_match"):
        say(f"{name} is as good as {result['iterations_to_match']} iterations of L-BFGS.")
    if json_file:
        document = without_nan({"model": name, "data": list(data), **result})
        json_file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


@contextmanager
def show_pictures() -> Iterator["OnPicture"]:
    """Gives what to call before each picture; a terminal shows a bar."""
    console = Console(stderr=True)
    columns = [MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


def build_table(model: str, result: dict[str, Any]) -> Table:
    """The summary, a row for each method."""
    report = REPORTS[result["task"]]
    title = f"{report.evaluation_title.format(**result)}, number of pictures: {len(result['pictures'])}"
    table = Table(title=title, title_justify="left", collapse_padding=True)
    table.add_column("")
    present = {metric for scores in result["summary"].values() for metric in scores}
    columns = {metric: measure for metric, measure in report.evaluation.items() if metric in present}
    for measure in columns.values():
        table.add_column(measure.heading, justify="right")
    for method, scores in result["summary"].items():
        cells = (measure.show(scores.get(metric)) for metric, measure in columns.items())
        table.add_row(model if method == "model" else method, *cells)
    return table


def without_nan(value: Any) -> Any:
    """The same document with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
