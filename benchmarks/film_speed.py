"""Compares the time of a film with that of its network alone: `python benchmarks/film_speed.py x2-fast`.

The film is a moving crop of a photograph. Everything is measured in turns, so the ratios mean something even on a
machine that is not idle, above all those of processor time.
"""

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
import skimage.data
from PIL import Image
from upscale_speed import run_network_alone

from keras_psr.films.encoders import choose_encoding
from keras_psr.films.reading import FilmReader, read_film
from keras_psr.images.tiling import spans
from keras_psr.inference.films import process_film
from keras_psr.inference.litert import TileInterpreter
from keras_psr.inference.photos import upscale_photo
from keras_psr.inference.registry import find_runnable
from keras_psr.inference.upscaler import load

HEIGHT, WIDTH = 360, 640


def make_film(path: Path, frames: int) -> None:
    """Writes a film of 25 frames per second, whose crop moves over a photograph."""
    photograph = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((1100, 1100), Image.Resampling.LANCZOS))
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(frames):
            top, left = (int(20 + 400 * number / frames) for _ in range(2))
            crop = np.ascontiguousarray(photograph[top : top + HEIGHT, left : left + WIDTH])
            frame = av.VideoFrame.from_ndarray(crop).reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def measure(function: Callable[[], object]) -> tuple[float, float]:
    """Returns wall time and processor time of a call, in seconds."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    function()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@click.command()
@click.argument("model")
@click.option("--frames", default=50, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--codec", help="As for keras-psr upscale.")
def main(model: str, frames: int, rounds: int, codec: str | None) -> None:
    """Compare a film with its network: with tiles alone, and with cutting and joining them."""
    upscaler, content = load(model, device="cpu"), find_runnable(model).read_bytes()
    tile, geometry = upscaler.network.tile_size(0, 0)[0], upscaler.network.geometry
    tiles = len(spans(HEIGHT, tile, geometry)) * len(spans(WIDTH, tile, geometry))
    interpreters = [TileInterpreter(content) for _ in range(upscaler.network.workers)]
    for interpreter in interpreters:
        interpreter(np.zeros(interpreter.shape[1:], np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "film.mp4", Path(folder) / "big.mp4"
        make_film(source, frames)
        film = read_film(source)
        photos = [moment.photo for moment in FilmReader(film)]
        size, encoding = (HEIGHT * upscaler.scale, WIDTH * upscaler.scale), choose_encoding(film, ".mp4", codec)
        sides: dict[str, Callable[[], object]] = {
            "tiles alone": lambda: run_network_alone(interpreters, tiles * frames),
            "pictures": lambda: [upscaler(photo.pixels) for photo in photos],
            "film": lambda: process_film(lambda photo: upscale_photo(upscaler, photo), film, target, encoding, size),
        }
        upscaler(photos[0].pixels)
        results = [{name: measure(function) for name, function in sides.items()} for _ in range(rounds)]
    for kind, number in (("wall", 0), ("processor", 1)):
        for name in sides:
            each = statistics.median(result[name][number] for result in results) / frames
            ratio = statistics.median(result[name][number] / result["tiles alone"][number] for result in results)
            click.echo(f"{kind} time, {name}: {each:.3f} s for each frame, {ratio:.3f} times the tiles")


if __name__ == "__main__":
    main()
