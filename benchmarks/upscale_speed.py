"""Measures speed and memory of `keras-psr upscale`: a whole call, its parts compared with the network, and a batch.

Run it on an idle machine, with a model of scale 4: `python benchmarks/upscale_speed.py x4-fast`. If the machine
is not idle, only the ratios are meaningful, because both of their sides are measured in turns.
"""

import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import skimage.data

from keras_psr.images.decoding import read_photo
from keras_psr.images.encoding import save_photo
from keras_psr.images.photo import Photo
from keras_psr.images.tiling import spans
from keras_psr.inference.litert import TileInterpreter
from keras_psr.inference.photos import upscale_photo
from keras_psr.inference.registry import find_runnable
from keras_psr.inference.upscaler import load

CALLS = 5
BATCH = 200


def seconds(function: Callable[[], object]) -> float:
    """Returns the wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def call_command(model: Path, *arguments: object) -> float:
    """Returns the wall time of `keras-psr upscale` in a separate process."""
    command = [sys.executable, "-m", "keras_psr", "upscale", "--model", model, "--overwrite", *arguments]
    return seconds(lambda: subprocess.run([str(part) for part in command], check=True, capture_output=True))


def run_network_alone(interpreters: list[TileInterpreter], tiles: int) -> None:
    """Computes a number of tiles, one on each thread, and does nothing else."""
    left = iter(range(tiles))

    def work(interpreter: TileInterpreter) -> None:
        while next(left, None) is not None:
            interpreter.time()

    with ThreadPoolExecutor(len(interpreters)) as executor:
        list(executor.map(work, interpreters))


def measure_parts(model: Path, source: Path, target: Path) -> dict[str, float]:
    """Returns the seconds of `upscale`'s parts for one photograph, medians of `CALLS` rounds.

    Returns:
        By name: `network`, the tiles and nothing else; `reading`; `enlarging`, which is the network with cutting and
        joining; `writing`; `command`, from the start of the process to the finished file; and of the last and of
        `enlarging` the `..._ratio` to `network`, medians of the ratios of each round.
    """
    upscaler = load(model, device="cpu")
    content, height, width = model.read_bytes(), *read_photo(source).pixels.shape[:2]
    tile, geometry = upscaler.network.tile_size(0, 0)[0], upscaler.network.geometry
    tiles = len(spans(height, tile, geometry)) * len(spans(width, tile, geometry))
    interpreters = [TileInterpreter(content) for _ in range(upscaler.network.workers)]
    noise = np.random.default_rng(0).integers(0, 256, (tile, tile, 3), np.uint8)
    for interpreter in interpreters:
        interpreter(noise)
    upscaler(noise)
    rounds = []
    for _ in range(CALLS):
        marks = [time.perf_counter()]
        photo = read_photo(source)
        marks.append(time.perf_counter())
        enlarged = upscale_photo(upscaler, photo)
        marks.append(time.perf_counter())
        save_photo(target, enlarged)
        marks.append(time.perf_counter())
        row = dict(zip(("reading", "enlarging", "writing"), np.diff(marks), strict=True))
        row["network"] = seconds(lambda: run_network_alone(interpreters, tiles))
        row["command"] = call_command(model, source, "-o", target, "--device", "cpu")
        rounds.append(row | {f"{name}_ratio": row[name] / row["network"] for name in ("enlarging", "command")})
    return {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}


def upscale_large(model: Path, source: Path, target: Path, results: "multiprocessing.Queue[dict]") -> None:
    """Puts wall time, megapixels per second by quarter, and peak memory of one photograph, in a fresh process."""
    marks = [(time.perf_counter(), 0)]

    def note(pixels: int) -> None:
        marks.append((time.perf_counter(), marks[-1][1] + pixels))

    wall = seconds(lambda: save_photo(target, upscale_photo(load(model), read_photo(source), on_pixels=note)))
    quarters = [marks[round(part * (len(marks) - 1) / 4)] for part in range(5)]
    rates = [(b[1] - a[1]) / (b[0] - a[0]) / 1e6 for a, b in zip(quarters, quarters[1:], strict=False)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    results.put({"wall": wall, "rates": rates, "peak_mb": peak / 1e6, "output_mb": marks[-1][1] * 3 / 1e6})


@click.command()
@click.argument("model", default="x4-fast", callback=lambda context, parameter, value: find_runnable(value))
@click.option("--parts-only", is_flag=True, help="Only a photograph of 1000x750 to 12 MP, by parts.")
def main(model: Path, parts_only: bool) -> None:
    """Prints the measurements."""
    photograph = skimage.data.coffee()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "batch").mkdir()
        save_photo(folder / "middle.png", Photo(np.tile(photograph, (2, 2, 1))[:750, :1000]))
        parts = measure_parts(model, folder / "middle.png", folder / "large.png")
        click.echo(f"1000x750 to 4000x3000 with {model.stem}, by parts, medians of {CALLS}:")
        for name in ("network", "reading", "enlarging", "writing", "command"):
            click.echo(f"  {name:10} {parts[name]:6.2f} s, {parts[name] / parts['network']:.2f} of the network alone")
        click.echo(f"  enlarging over the network alone, in turns: {parts['enlarging_ratio']:.3f}")
        click.echo(f"  the whole command over the network alone, in turns: {parts['command_ratio']:.3f}")
        if parts_only:
            return
        save_photo(folder / "photo.png", Photo(photograph[100:228, 200:328]))
        save_photo(folder / "large.jpg", Photo(np.tile(photograph, (8, 7, 1))[:3000, :4000]))
        for index in range(BATCH):
            save_photo(folder / "batch" / f"{index}.png", Photo(photograph[index : index + 64, index : index + 64]))
        starts = [call_command(model, folder / "photo.png", "-o", folder / "out") for _ in range(CALLS)]
        click.echo(f"128x128 to 512x512, start to finished file: median {statistics.median(starts):.2f} s of {CALLS}")
        results: multiprocessing.Queue = multiprocessing.get_context("spawn").Queue()
        arguments = (model, folder / "large.jpg", folder / "large.png", results)
        process = multiprocessing.get_context("spawn").Process(target=upscale_large, args=arguments)
        process.start()
        large = results.get()
        process.join()
        click.echo(
            f"3000x4000: {large['wall']:.0f} s, MP/s by quarter {' '.join(f'{rate:.2f}' for rate in large['rates'])}, "
            f"peak {large['peak_mb']:.0f} MB for {large['output_mb']:.0f} MB of pixels"
        )
        together = call_command(model, folder / "batch", "-o", folder / "out")
        few = sorted((folder / "batch").iterdir())[:CALLS]
        alone = statistics.mean(call_command(model, path, "-o", folder / "out") for path in few)
        click.echo(f"{BATCH} pictures of 64x64 in one call: {together:.1f} s; in a call each: {alone * BATCH:.0f} s")


if __name__ == "__main__":
    main()
