"""The `keras-psr export` command, which writes a fitted network as verified `.tflite` files and as a SavedModel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from keras_psr.cli.model_options import DEFAULT_SCALE, complete_models
from keras_psr.cli.signals import run_interruptibly, wait_if_interrupted
from keras_psr.cli.terminal import say, shown
from keras_psr.environment import require_everything
from keras_psr.errors import KerasPSRError
from keras_psr.tasks.report import REPORTS

if TYPE_CHECKING:
    from keras_psr.export.verification import OnStep

QUANTIZE = {
    "none": "float32",
    "float32": "float32",
    "float16": "float16",
    "dynamic": "dynamic",
    "int8": "int8",
    "int16x8": "int16x8",
}
"""Maps values of `--quantize` to variants. `none` is an older name for float32."""

DEFAULT_VARIANTS = ("float32", "float16", "int8")


@click.command()
@click.argument("model", required=False, shell_complete=complete_models(variants=False))
@click.option("--tflite", is_flag=True, help="Write .tflite files for LiteRT on phones and small computers.")
@click.option("--saved-model", is_flag=True, help="Write a SavedModel for TensorFlow and TensorFlow Serving.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("export"),
    show_default=True,
    help="Folder to write to.",
)
@click.option(
    "--quantize",
    type=click.Choice([*QUANTIZE, "all"]),
    multiple=True,
    help="Kind of .tflite; none means float32. Repeatable.  [default: float32, float16, int8]",
)
@click.option(
    "--tile",
    type=click.IntRange(min=1),
    help="Side of the input in pixels, including the halo, which the result leaves out.  [default: 128 for x4]",
)
@click.option("--dynamic-shape", is_flag=True, help="Leave the input's size open; not for int8, and slow on phones.")
@click.option(
    "--calibration",
    metavar="SRC",
    multiple=True,
    default=["sample"],
    show_default=True,
    help="Pictures for measuring the ranges of int8 and int16x8. Repeatable.",
)
@click.option(
    "--verify",
    "verification",
    metavar="SRC",
    multiple=True,
    default=["sample:val"],
    show_default=True,
    help="Pictures on which each file is compared with the network. Repeatable.",
)
@click.option(
    "--max-drop", type=float, default=0.1, show_default=True, help="Largest accepted loss of a file, in dB of PSNR."
)
@click.option(
    "--check",
    type=click.Choice(["gpu"]),
    help="Also run each file on the GPU, if there is one, and list the operators that GPUs refuse.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def export(
    model: str | None,
    tflite: bool,
    saved_model: bool,
    out: Path,
    quantize: tuple[str, ...],
    dynamic_shape: bool,
    check: str | None,
    **settings: Any,
) -> None:
    """Turn a fitted network into files for phones and servers, and verify them.

    MODEL is a run folder, a .keras file or a shipped model's name; by default, it is the shipped x4. Each .tflite is
    run with LiteRT on held-out pictures and compared with the network; the results are in report.json. A file that
    loses more than --max-drop is kept as .rejected, and the exit code is 1.

    \b
    Examples:
      keras-psr export --tflite
      keras-psr export runs/x4 --tflite --quantize int8 --calibration photos/ --max-drop 0.05
      keras-psr export runs/x4 --saved-model --out export/x4
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    if not (tflite or saved_model):
        raise click.UsageError("Say what to write: --tflite, --saved-model or both.")
    require_everything("keras-psr export")
    variants = choose_variants(quantize) if tflite else []
    settings |= {"dynamic_shape": dynamic_shape, "check_gpu": check == "gpu"}
    num_checks = len(variants) if check else 0
    with show_steps(saved_model + len(variants) + 2 * tflite + num_checks) as on_step:
        report = run_interruptibly(lambda: write_files(model, out, saved_model, variants, on_step, settings))
    if not report:
        return
    Console(stderr=True).print(build_table(report))
    for line in describe_delegates(report):
        say(line)
    rejection = REPORTS[report["task"]].describe_rejection(report)
    if rejection:
        raise KerasPSRError(rejection)


def write_files(
    model: str | None,
    out: Path,
    saved_model: bool,
    variants: Sequence[str],
    on_step: "OnStep",
    settings: dict[str, Any],
) -> dict[str, Any] | None:
    """Loads a network and writes what was asked for.

    Args:
        model: A run folder, a `.keras` file or a shipped model's name; None for the shipped x4.
        out: Folder to write to.
        saved_model: Whether to write a SavedModel.
        variants: Variants of `.tflite` to write, if any.
        on_step: Called as steps advance.
        settings: Further arguments of `export_tflite`.

    Returns:
        The report of `export_tflite`; None without variants.
    """
    from keras_psr.export.saved_model import SAVED_MODEL_FILE, save_saved_model
    from keras_psr.export.tflite import export_tflite, refuse_existing
    from keras_psr.inference.registry import (
        default_model,
        file_sha256,
        find_model,
        named_task,
        shipped_folder,
        shipped_models,
    )
    from keras_psr.inference.upscaler import load_network

    path = find_model(model or default_model(DEFAULT_SCALE))
    network = load_network(path)
    if saved_model:
        refuse_existing([out / SAVED_MODEL_FILE], overwrite=settings["overwrite"])
        on_step("writing the SavedModel", 0, 1)
        save_saved_model(network, out)
        say(f"{path} -> {out / SAVED_MODEL_FILE}")
    if not variants:
        return None
    card = shipped_models()[path.parent.name] if path.is_relative_to(shipped_folder()) else {}
    return export_tflite(
        network,
        variants,
        out,
        name=path.stem if path.stem != "model" else path.parent.resolve().name,
        model_sha256=file_sha256(path),
        task=named_task(path),
        author=card.get("author"),
        licence=card.get("licence"),
        on_step=on_step,
        **settings,
    )


@contextmanager
def show_steps(number: int) -> Iterator["OnStep"]:
    """Yields a function to call as steps advance. A terminal shows a bar with the elapsed time, a log gets lines.

    Args:
        number: The number of steps.
    """
    console = Console(stderr=True)
    columns = [MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("loading", total=number)
    begun: list[str] = []

    def advance(step: str, done: int, total: int) -> None:
        wait_if_interrupted()
        if step not in begun:
            begun.append(step)
            if not console.is_terminal:
                say(f"{len(begun)} of {number}: {step}")
        completed = len(begun) - 1 + done / total  # TensorFlow reads the calibration tiles more than once
        bar.update(task, description=step, completed=max(completed, bar.tasks[task].completed))

    with shown(bar):
        yield advance


def choose_variants(quantize: tuple[str, ...]) -> list[str]:
    """Returns the variants that `--quantize` asks for, each once."""
    if "all" in quantize:
        return list(dict.fromkeys(QUANTIZE.values()))
    return list(dict.fromkeys(QUANTIZE[name] for name in quantize)) or list(DEFAULT_VARIANTS)


def build_table(report: dict[str, Any]) -> Table:
    """Builds a table of the report, with a row per file."""
    size = f"tile {report['tile']}, halo {report['halo']}" if report["tile"] else "open size"
    task = REPORTS[report["task"]]
    title = f"{task.export_title.format(**report)}, {size}, against the Keras network"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    quality = [measure.heading for measure in task.export.values()]
    for heading in ("", *quality, "max\ndiff", "mean\ndiff", "\nMB", "ms, 1\nthread", "ms, 2\nthreads", "\nXNNPACK"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for variant, row in report["files"].items():
        table.add_row(
            variant,
            *(measure.show(row[name]) for name, measure in task.export.items()),
            f"{row['max_difference']:.3f}",
            f"{row['mean_difference']:.3f}",
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['latency_ms']['1']:.1f}",
            f"{row['latency_ms']['2']:.1f}",
            f"{row['xnnpack_share']:.0%} in {row['xnnpack_partitions']}",
        )
    return table


def describe_delegates(report: dict[str, Any]) -> list[str]:
    """Returns lines about the operators outside delegates, and about how each file ran on a GPU."""
    lines = []
    for row in report["files"].values():
        for reason in dict.fromkeys(row["operators_outside_xnnpack"].values()):
            names = [name for name, why in row["operators_outside_xnnpack"].items() if why == reason]
            lines.append(f"{row['file']}: outside XNNPACK: {', '.join(names)}: {reason}.")
        if "gpu" in row:
            lines.append(f"{row['file']}: GPU: {describe_gpu(row['gpu'])}.")
    return lines


def describe_gpu(check: dict[str, Any]) -> str:
    """Returns how a file ran on a GPU, and which of its operators GPUs refuse, as text."""
    rules = "; ".join(check["refusals"]) or "takes every operator"
    if check["adapter"] is None:
        return f"{rules}, according to the rules for operators; not run ({check['reason']})"
    return (
        f"{rules}; run on {check['adapter']}{'' if check['is_hardware'] else ', not a real GPU'}: "
        f"{check['milliseconds']:.1f} ms for a tile, within {check['max_difference']:.2g} grey levels of the CPU"
    )
