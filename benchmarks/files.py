"""Prints the table of docs/deploy.md: what each shipped file costs for a megapixel of the result, and its memory.

python benchmarks/files.py

Run it on an idle machine. Files in float16 take the time of those in float32.
"""

import math
import resource
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np

from keras_psr.inference.litert import TileInterpreter
from keras_psr.inference.registry import find_runnable, shipped_models
from keras_psr.training.run_folder import describe_environment

RUNS = 15
THREADS = 2


def count_multiplications(interpreter: TileInterpreter) -> int:
    """Returns the number of multiplications of all convolutions for one tile."""
    shapes = interpreter.tensor_shapes()
    convolutions = [one for one in interpreter.describe_operators() if one["op_name"] == "CONV_2D"]
    return sum(math.prod(shapes[one["inputs"][1]]) * math.prod(shapes[one["outputs"][0]][1:3]) for one in convolutions)


def measure(path: Path) -> tuple[float, float, float]:
    """Measures a file in a process of its own.

    Returns:
        Billions of multiplications and milliseconds for a megapixel of the result, and megabytes that the process
        needs for the network.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    interpreter = TileInterpreter(path.read_bytes(), num_threads=THREADS)
    interpreter(np.random.default_rng(0).integers(0, 256, interpreter.shape[1:]).astype(interpreter.dtype))
    seconds = statistics.median(interpreter.time() for _ in range(RUNS))
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    megapixels = math.prod(interpreter.output_shape[1:3]) / 1e6
    return count_multiplications(interpreter) / 1e9 / megapixels, 1e3 * seconds / megapixels, memory


def main() -> None:
    """Prints the table."""
    click.echo(f"{describe_environment()['machine']['processor']}, {THREADS} threads\n")
    click.echo("| model | multiplications, billions | milliseconds, float32 / int8 | MB, float32 / int8 |")
    click.echo("|---|---|---|---|")
    for name in shipped_models():
        rows = []
        for variant in ("float32", "int8"):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
                rows.append(executor.submit(measure, find_runnable(f"{name}_{variant}")).result())
        (count, *float32), (_, *int8) = rows
        click.echo(f"| `{name}` | {count:.0f} | {float32[0]:.0f} / {int8[0]:.0f} | {float32[1]:.0f} / {int8[1]:.0f} |")


if __name__ == "__main__":
    main()
