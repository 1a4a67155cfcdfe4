"""The `keras-psr benchmark` command, which times `.tflite` files on this machine."""

import json
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console
from rich.table import Table

from keras_psr.cli.model_options import complete_models, device_option
from keras_psr.cli.terminal import say


def parse_threads(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """Parses text such as `1,2` into a list such as [1, 2]."""
    try:
        threads = list(dict.fromkeys(int(number) for number in value.split(",")))
    except ValueError:
        threads = []
    if not threads or min(threads) < 1:
        raise click.BadParameter(f"expected positive numbers separated by commas, as in 1,2. Received: {value!r}.")
    return threads


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_models())
@click.option("--threads", callback=parse_threads, default="1,2", show_default=True, help="Numbers of threads.")
@device_option
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.File("w", encoding="utf-8"),
    help="Write everything as JSON; - for stdout.",
)
def benchmark(files: tuple[str, ...], threads: list[int], device: str, json_file: IO[str] | None) -> None:
    """Time .tflite files with LiteRT: latency of a tile, megapixels of output per second, memory.

    MODEL is a .tflite file, or the name of a shipped one: x4, x4_int8. The files run in turns after a warm-up, so that
    other load on the machine affects all of them equally.

    \b
    Examples:
      keras-psr benchmark x4-fast x4-fast_int8
      keras-psr benchmark export/*.tflite
      keras-psr benchmark export/*.tflite --threads 1,2,4 --json -
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    from keras_psr.export.benchmark import benchmark as measure
    from keras_psr.inference.registry import find_tflite

    console = Console(stderr=True)
    with console.status("starting") as status:
        result = measure([find_tflite(file) for file in files], threads, device=device, on_step=status.update)
    console.print(build_table(result))
    for line in describe_comparisons(result):
        say(line)
    if json_file:
        json_file.write(json.dumps(result, indent=2) + "\n")


def build_table(result: dict[str, Any]) -> Table:
    """Builds a table with a row per file and number of threads, and per file on the GPU; long names are wrapped."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("\nfile", overflow="fold")
    for heading in ("\non", "median\nms", "p95\nms", "\nMP/s", "peak\nMB", "XNNPACK\npartitions"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result["files"]:
        name = Path(row["file"]).name
        memory, partitions = f"{row['peak_memory_mb']:.0f}", str(row["xnnpack_partitions"])
        for number, times in row["threads"].items():
            on = f"{number} thread{'s' if number != '1' else ''}"
            table.add_row(name, on, *describe_times(times), memory, partitions)
            name = ""
        if row["gpu"]:
            table.add_row(name, "GPU", *describe_times(row["gpu"]), "", "")
    return table


def describe_times(times: dict[str, Any]) -> tuple[str, str, str]:
    """Returns the median and the 95th percentile in milliseconds, and megapixels per second, as text."""
    return f"{times['median_ms']:.1f}", f"{times['p95_ms']:.1f}", f"{times['megapixels_per_second']:.2f}"


def describe_comparisons(result: dict[str, Any]) -> list[str]:
    """Returns a sentence for each pair of int8 and float32 files, which warns if int8 is not faster."""
    lines = []
    for pair in result["comparisons"]:
        threads = f"{pair['threads']} thread{'s' if pair['threads'] > 1 else ''}"
        if pair["ratio"] < 1:
            lines.append(f"{pair['int8']} takes {pair['ratio']:.2f} of the time of {pair['float32']} with {threads}.")
        else:
            lines.append(
                f"{pair['int8']} is NOT faster than {pair['float32']} with {threads}: it takes {pair['ratio']:.2f} of "
                "its time. Use the float file on this machine."
            )
    return lines
