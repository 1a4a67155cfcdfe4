"""What Python gives for the tests of the page. The first argument names a function below, the others are its own."""

import json
import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from keras_psr.images.decoding import read_photo
from keras_psr.images.encoding import save_photo
from keras_psr.images.pixels import resize_bicubic
from keras_psr.images.tiling import _mirrored, spans, upscale_in_tiles
from keras_psr.inference import load
from keras_psr.litert import LiteRTNetwork
from keras_psr.upscaling import upscale_photo


def pictures(folder: str) -> None:
    """Writes the pictures that the tests choose."""
    coffee = skimage.data.coffee()
    to = Path(folder)
    Image.fromarray(coffee[60:316, 150:406]).save(to / "photo.png")
    Image.fromarray(coffee[100:201, 200:330]).save(to / "odd.png")
    Image.fromarray(coffee[:1, :1]).save(to / "one pixel.png")
    opacity = np.hypot(*np.mgrid[-1:1:120j, -1:1:140j])  # a disc with a soft edge
    alpha = np.rint(np.clip(1.5 - 1.5 * opacity, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(np.dstack([coffee[100:220, 200:340], alpha])).save(to / "disc.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    Image.fromarray(coffee[100:180, 200:330]).save(to / "turned.jpg", quality=95, exif=exif)
    Image.fromarray(np.tile(coffee, (6, 4, 1))[:2050, :2051]).save(to / "large.png")
    whole = (to / "photo.png").read_bytes()
    (to / "cut off.png").write_bytes(whole[: len(whole) // 2])
    (to / "notes.png").write_text("Dear reader,\n")
    (to / "empty.png").write_bytes(b"")
    Image.new("1", (16000, 16000)).save(to / "huge.png")


def models(folder: str) -> None:
    """Writes tiny models of both tasks: their weights are random, their files are like those of real ones."""
    import keras

    from keras_psr.export.convert import convert
    from keras_psr.networks import build_network
    from keras_psr.receptive_field import pixel_grid, receptive_halo
    from keras_psr.style_networks import build_style_network
    from keras_psr.tflite_metadata import with_metadata

    keras.utils.set_random_seed(1)
    enlarging = build_network(scale=2, num_filters=4, num_residual_blocks=1)
    painting = build_style_network(num_filters=2, num_residual_blocks=1)
    calibration = [skimage.data.coffee()[top : top + 128, 200:328] for top in (0, 100, 200)]
    for name, network, task, variants in (
        ("x2-tiny", enlarging, "super-resolution", ("float32", "int8")),
        ("soft-lines", painting, "style transfer", ("float32",)),
    ):
        network.set_weights([weight + np.random.normal(0, 0.1, weight.shape) for weight in network.get_weights()])
        facts = {"name": name, "task": task, "scale": 2 if network is enlarging else 1, "tile": 128}
        facts |= {"halo": receptive_halo(network), "grid": pixel_grid(network)}
        for variant in variants:
            content = with_metadata(convert(network, variant, 128, calibration), facts | {"variant": variant})
            (Path(folder) / f"{name}_{variant}.tflite").write_bytes(content)


def floats(model: str, picture: str, out: str) -> None:
    """Writes what a model gives for a picture before it is clipped and rounded, as raw float32."""
    network = LiteRTNetwork(Path(model))
    tiles = {"scale": network.scale, "tile": network.tile_size(0, 0), "halo": network.halo, "grid": network.grid}
    upscale_in_tiles(network, np.asarray(Image.open(picture).convert("RGB")), **tiles).tofile(out)


def upscaled(model: str, picture: str, out: str) -> None:
    """Writes what `keras-psr upscale` writes."""
    save_photo(Path(out), upscale_photo(load(model), read_photo(Path(picture))))


def tiles(out: str) -> None:
    """Writes the spans and the mirrored places of many sizes, and a bicubically enlarged tile."""
    shapes = ((128, 16, 1), (9, 4, 1), (12, 0, 1), (48, 8, 4))
    cases = [(size, *shape) for size in (1, 2, 5, 95, 96, 97, 192, 300) for shape in shapes]
    found = [[*case, [[s.start, s.first, s.end] for s in spans(*case)], _mirrored(*case).tolist()] for case in cases]
    channel = skimage.data.coffee()[:20, :20, 0]
    enlarged = {scale: resize_bicubic(channel, 20 * scale, 20 * scale).ravel().tolist() for scale in (1, 2, 4, 8)}
    document = {"cases": found, "channel": channel.ravel().tolist(), "enlarged": enlarged}
    Path(out).write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    functions = {"pictures": pictures, "models": models, "floats": floats, "upscaled": upscaled, "tiles": tiles}
    functions[sys.argv[1]](*sys.argv[2:])
