"""What Python gives for the tests of the page. The first argument names a function below, the others are its own."""

import base64
import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import skimage.data
from PIL import Image, features

from keras_psr.errors import ImageFileError
from keras_psr.images.compression import read_compression
from keras_psr.images.decoding import read_photo
from keras_psr.images.encoding import save_photo
from keras_psr.images.pixels import resize_bicubic
from keras_psr.images.tiling import upscale_in_tiles
from keras_psr.inference.litert import LiteRTNetwork
from keras_psr.inference.painting import Painter
from keras_psr.inference.photos import upscale_photo
from keras_psr.inference.upscaler import load


def pictures(folder: str) -> None:
    """Writes the pictures that the tests choose."""
    coffee = skimage.data.coffee()
    to = Path(folder)
    Image.fromarray(coffee[60:316, 150:406]).save(to / "photo.png")
    Image.fromarray(coffee[100:201, 200:330]).save(to / "odd.png")
    Image.fromarray(coffee[:1, :1]).save(to / "one pixel.png")
    soft_disc(coffee[100:220, 200:340]).save(to / "disc.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    Image.fromarray(coffee[100:180, 200:330]).save(to / "turned.jpg", quality=95, exif=exif)
    Image.fromarray(coffee[100:180, 200:330]).save(to / "lossy.jpg", quality=60)
    Image.fromarray(coffee[40:370, 100:365]).save(to / "above.png")
    soft_disc(np.tile(coffee, (2, 1, 1))[:600, :540]).save(to / "large disc.png")
    Image.fromarray(np.tile(coffee, (6, 4, 1))[:2050, :2051]).save(to / "large.png")
    whole = (to / "photo.png").read_bytes()
    (to / "cut off.png").write_bytes(whole[: len(whole) // 2])
    (to / "notes.png").write_text("Dear reader,\n")
    (to / "empty.png").write_bytes(b"")
    Image.new("1", (16000, 16000)).save(to / "huge.png")
    film(to / "camera.y4m", Image.fromarray(coffee[:, 20:]).resize((320, 240)))


def soft_disc(pixels: np.ndarray) -> Image.Image:
    """Returns a picture of which a disc with a soft edge is opaque."""
    height, width, _ = pixels.shape
    distance = np.hypot(*np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j])
    alpha = np.rint(np.clip(1.5 - 1.5 * distance, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.dstack([pixels, alpha]))


def film(path: Path, picture: Image.Image) -> None:
    """Writes a film of two equal frames, as Chromium's camera of a file wants it."""
    luma, *chroma = picture.convert("YCbCr").split()
    luma = np.asarray(luma) * (219 / 255) + 16
    halves = [np.asarray(plane.resize((160, 120))) * (224 / 255) + 16 for plane in chroma]
    frame = b"FRAME\n" + b"".join(np.rint(plane).astype(np.uint8).tobytes() for plane in (luma, *halves))
    path.write_bytes(b"YUV4MPEG2 W320 H240 F30:1 Ip A1:1 C420jpeg\n" + 2 * frame)
    picture.save(path.with_suffix(".png"))


def models(folder: str) -> None:
    """Writes tiny models of both tasks: their weights are random, their files are like those of real ones."""
    import keras

    from keras_psr.export.conversion import convert
    from keras_psr.inference.tflite_metadata import with_metadata
    from keras_psr.networks.receptive_field import measure_geometry
    from keras_psr.networks.style_transfer import build_style_network
    from keras_psr.networks.super_resolution import build_network

    keras.utils.set_random_seed(1)
    enlarging = build_network(scale=2, num_filters=4, num_residual_blocks=1)
    painting = build_style_network(num_filters=2, num_residual_blocks=1)
    calibration = [skimage.data.coffee()[top : top + 128, 200:328] for top in (0, 100, 200)]
    for name, network, task, variants in (
        ("x2-tiny", enlarging, "super-resolution", ("float32", "int8")),
        ("soft-lines", painting, "style transfer", ("float32",)),
    ):
        network.set_weights([weight + np.random.normal(0, 0.1, weight.shape) for weight in network.get_weights()])
        facts = {"name": name, "task": task, "tile": 128, **asdict(measure_geometry(network))}
        for variant in variants:
            content = with_metadata(convert(network, variant, 128, calibration), facts | {"variant": variant})
            (Path(folder) / f"{name}_{variant}.tflite").write_bytes(content)


def floats(model: str, picture: str, out: str) -> None:
    """Writes what a model gives for a picture before it is clipped and rounded, as raw float32."""
    network = LiteRTNetwork(Path(model))
    image = np.asarray(Image.open(picture).convert("RGB"))
    upscale_in_tiles(network, image, network.geometry, tile=network.tile_size(0, 0)).tofile(out)


def upscaled(model: str, picture: str, out: str) -> None:
    """Writes what `keras-psr upscale` writes."""
    save_photo(Path(out), upscale_photo(load(model), read_photo(Path(picture))))


def painted(model: str, picture: str, paint_size: str, strength: str, keeps_colours: str, out: str) -> None:
    """Writes what `keras-psr stylize --paint-size --strength --preserve-colors` writes."""
    paint = Painter(load(model, device="cpu"), int(paint_size))
    preserve_colors = keeps_colours == "true"
    photo = upscale_photo(paint, read_photo(Path(picture)), strength=float(strength), preserve_colors=preserve_colors)
    save_photo(Path(out), photo)


def bicubic(out: str) -> None:
    """Writes a channel of a tile, the same enlarged by bicubic, and a picture resized to many sizes."""
    channel = skimage.data.coffee()[:20, :20, 0]
    enlarged = {scale: resize_bicubic(channel, 20 * scale, 20 * scale).ravel().tolist() for scale in (1, 2, 4, 8)}
    picture = skimage.data.coffee()[:23, :31]
    sizes = ((23, 31), (9, 31), (23, 7), (5, 4), (60, 50), (24, 40))
    resized = [[*size, resize_bicubic(picture, *size).ravel().tolist()] for size in sizes]
    document = {"channel": channel.ravel().tolist(), "enlarged": enlarged}
    document |= {"picture": picture.ravel().tolist(), "resized": resized}
    Path(out).write_text(json.dumps(document), encoding="utf-8")


def compressions(out: str) -> None:
    """Writes files of many kinds, and what `read_compression` finds in them."""
    picture = Image.fromarray(skimage.data.coffee()[100:140, 200:260])
    options: list[dict[str, Any]] = [{"format": name} for name in ("PNG", "GIF", "BMP", "TIFF", "WEBP")]
    options += [{"format": "JPEG", "quality": quality} for quality in range(1, 101)]
    options += [{"format": "JPEG", "progressive": True, "comment": 300 * "\xff"}]
    options += [{"format": "JPEG", "qtables": [range(9, 73)]}]
    options += [{"format": "WEBP", "lossless": True}, {"format": "WEBP", "icc_profile": b"odd"}]
    frames = {"save_all": True, "append_images": [picture.transpose(Image.Transpose.ROTATE_180)]}
    options += [{"format": "WEBP", "lossless": lossless, **frames} for lossless in (True, False)]
    if features.check("avif"):
        options.append({"format": "AVIF"})
    contents = [save(picture, **kinds) for kinds in options] + [save(picture.convert("CMYK"), format="JPEG")]
    grey = save(picture.convert("L"), format="JPEG", quality=73)
    at = grey.index(b"\xff\xdb")  # its only table, of 64 steps
    wide = b"\xff\xdb\0\x83\x10" + b"".join(b"\0" + grey[place : place + 1] for place in range(at + 5, at + 69))
    contents += [grey[:at] + grey[at + 69 :], grey[:at] + wide + grey[at + 69 :]]
    lossless, lossy = (save(picture, format="WEBP", lossless=lossless, **frames) for lossless in (True, False))
    contents.append(lossless + lossy[lossy.index(b"ANMF") :])
    contents += [content[:length] for content in (grey, contents[4]) for length in (16, 40, 200)]
    rows = [{"content": base64.b64encode(content).decode(), "expected": find(content)} for content in contents]
    Path(out).write_text(json.dumps(rows), encoding="utf-8")


def save(picture: Image.Image, **options: Any) -> bytes:
    """Returns a picture as a file."""
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def find(content: bytes) -> dict[str, Any] | None:
    """Returns what `read_compression` finds; None if it is an error."""
    with NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            return asdict(read_compression(file.name))
        except ImageFileError:
            return None


if __name__ == "__main__":
    functions = (compressions, painted, pictures, models, floats, upscaled, bicubic)
    {function.__name__: function for function in functions}[sys.argv[1]](*sys.argv[2:])
