"""Speed and memory of `keras-psr upscale`: start to finished file, the tiler's own cost, a large photograph, a batch.

Run it on an idle machine, with a `.tflite` of scale 4: `python benchmarks/upscale_speed.py x4_int8.tflite`.
"""

import itertools
import multiprocessing
import queue
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
from keras_psr.inference import load
from keras_psr.litert import LiteRTNetwork
from keras_psr.upscaling import upscale_photo

CALLS = 5
BATCH = 200


def seconds(function: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def call_command(model: Path, *arguments: object) -> float:
    """Wall time of `keras-psr upscale` in a process of its own."""
    command = [sys.executable, "-m", "keras_psr", "upscale", "--model", model, "--overwrite", *arguments]
    return seconds(lambda: subprocess.run([str(part) for part in command], check=True, capture_output=True))


def tiler_cost(model: Path, image: np.ndarray) -> float:
    """Time of the tiler over that of bare invocations of the same tiles on as many threads; median of pairs."""
    upscaler, network = load(model), LiteRTNetwork(model)
    tile, halo = network.tile_size(0, 0)[0], network.halo
    extended = np.pad(image, [(halo, halo), (halo, halo), (0, 0)], mode="symmetric")
    starts = [span.start for span in spans(len(image), tile, halo)]
    places = list(itertools.product(starts, starts))
    interpreters: queue.Queue = queue.Queue()
    for _ in range(network.workers):
        interpreters.put(network._make_interpreter())

    def invoke(place: tuple[int, int]) -> None:
        interpreter = interpreters.get()
        details = interpreter.get_input_details()[0]
        pixels = extended[place[0] : place[0] + tile, place[1] : place[1] + tile]
        interpreter.set_tensor(details["index"], pixels[None].astype(details["dtype"]))
        interpreter.invoke()
        interpreters.put(interpreter)

    with ThreadPoolExecutor(network.workers) as executor:

        def bare() -> None:
            list(executor.map(invoke, places))

        bare(), upscaler(image)
        return statistics.median(seconds(lambda: upscaler(image)) / seconds(bare) for _ in range(CALLS))


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
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(model: Path) -> None:
    """Prints the four measurements."""
    photograph = skimage.data.coffee()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "batch").mkdir()
        save_photo(folder / "photo.png", Photo(photograph[100:228, 200:328]))
        save_photo(folder / "large.jpg", Photo(np.tile(photograph, (8, 7, 1))[:3000, :4000]))
        for index in range(BATCH):
            save_photo(folder / "batch" / f"{index}.png", Photo(photograph[index : index + 64, index : index + 64]))
        starts = [call_command(model, folder / "photo.png", "-o", folder / "out") for _ in range(CALLS)]
        click.echo(f"128x128 to 512x512, start to finished file: median {statistics.median(starts):.2f} s of {CALLS}")
        click.echo(f"tiler over bare invocations: {tiler_cost(model, photograph[:384, :384]):.3f}")
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
