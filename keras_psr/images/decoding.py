"""Picture files: finding, measuring, reading and writing them; what is read is uint8 RGB and upright."""

import glob
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from keras_psr.errors import ConfigError, DataError, ImageFileError
from keras_psr.images.atomic import write_whole
from keras_psr.images.pixels import to_uint8

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings, in lower case, by which picture files are found in folders."""

_READABLE = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".bmp": {"format": "BMP"},
    ".jpeg": _JPEG,
    ".jpg": _JPEG,
    ".png": {"format": "PNG"},
    ".tif": {"format": "TIFF"},
    ".tiff": {"format": "TIFF"},
    ".webp": {"format": "WEBP", "lossless": True},
}
"""Pillow's options by ending, in lower case, of all formats that are written."""


def find_images(path_or_glob: str | os.PathLike[str]) -> list[Path]:
    """List the picture files that an argument names.

    Args:
        path_or_glob: A file, which is listed whatever its ending; a folder, searched recursively; or a glob
            such as `"photos/**/*.jpg"`. Hidden files and folders within are ignored.

    Returns:
        Sorted paths, at least one.

    Raises:
        DataError: Nothing is there, or nothing that ends like a picture.
    """
    where = Path(path_or_glob).expanduser()
    if where.is_file():
        return [where]
    if where.is_dir():
        below = (path.relative_to(where) for path in where.rglob("*"))
        found = (where / path for path in below if not any(part.startswith(".") for part in path.parts))
    elif glob.has_magic(str(where)):
        found = (Path(path) for path in glob.iglob(str(where), recursive=True))
    else:
        raise DataError(f"no such file or folder: {where}; give a picture, a folder or a quoted glob.")
    images = sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not images:
        raise DataError(f"no pictures in {where}; looked for files ending in {', '.join(IMAGE_SUFFIXES)}.")
    return images


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size of the picture that `read_rgb` would return, from the file's header alone.

    Args:
        path: Picture file.

    Returns:
        (height, width) in pixels, after EXIF orientation.

    Raises:
        ImageFileError: The file is missing or no picture.
    """
    with open_image(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # Pillow has applied the orientation already
            return height, width
        # Not image.getexif(): for a PNG without EXIF that decodes all pixels to look behind them.
        sideways = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (width, height) if sideways else (height, width)


def read_rgb(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture, whatever its kind, as plain RGB.

    EXIF orientation is applied; grey becomes three equal channels; CMYK and palettes are converted;
    transparency is laid over white; 16-bit grey is scaled to 8 bits and rounded (16-bit RGB is cut to 8 bits
    by Pillow itself); of an animation the first frame is taken. Colour profiles are ignored.

    Args:
        path: Picture file.

    Returns:
        uint8 RGB, (height, width, 3).

    Raises:
        ImageFileError: The file is missing, broken, truncated, too large to be decoded safely, or no picture.
    """
    with open_image(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith(("I", "F")):
            levels = np.asarray(upright)  # mode I, of 32 bits, is how some Pillow versions hold 16 bits
            if upright.mode == "F" or levels.max() > 65535:
                raise ValueError(f"{levels.dtype} pixels of unknown range; expected 8 or 16 bits")
            upright = Image.fromarray(to_uint8(levels / 257))
        elif upright.has_transparency_data:
            coloured = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
        return np.array(upright.convert("RGB"))


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[ImageFile.ImageFile]:
    """Open a picture; whatever goes wrong until it is closed becomes an ImageFileError of one line.

    Args:
        path: Picture file.

    Yields:
        Pillow's picture, not decoded yet.

    Raises:
        ImageFileError: The file is missing, no picture, or anything was raised while it was open.
    """
    try:
        with Image.open(path, formats=_READABLE) as image:
            yield image
    except FileNotFoundError:
        raise ImageFileError(f"no such picture: {path}; check the path.") from None
    except Image.UnidentifiedImageError:
        raise ImageFileError(f"{path} is not a picture; expected one of {', '.join(_READABLE)}.") from None
    except Image.DecompressionBombError:
        raise ImageFileError(
            f"{path} has too many pixels to be decoded safely (at most {2 * (Image.MAX_IMAGE_PIXELS or 0)}); "
            "cut it into parts."
        ) from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageFileError(f"{path} cannot be read ({reason}); replace or remove it.") from error


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write a picture in the format of the path's ending; either the whole file appears or none.

    Missing folders are created. JPEG has quality 95 and full colour resolution; WebP is lossless.

    Args:
        path: Where to; an existing file is replaced.
        image: uint8; RGB (height, width, 3), grey (height, width), or RGBA (height, width, 4), which JPEG and
            BMP do not hold.

    Raises:
        ConfigError: Unknown ending, or an array that is no picture of that format.
        ImageFileError: The file cannot be written.
    """
    path = Path(path)
    options = SAVE_OPTIONS.get(path.suffix.lower())
    if options is None:
        raise ConfigError(f"cannot write {path}: expected an ending of {', '.join(SAVE_OPTIONS)}.")
    if image.dtype != np.uint8 or not (image.ndim == 2 or image.ndim == 3 and image.shape[2] in (3, 4)):
        raise ConfigError(
            "image must be uint8 of shape (height, width), (height, width, 3) or (height, width, 4), "
            f"received {image.dtype} of shape {image.shape}; round with pixels.to_uint8."
        )
    if options["format"] in ("BMP", "JPEG") and image.shape[2:] == (4,):
        raise ConfigError(
            f"cannot write {path}: {options['format']} holds no transparency; use .png or three channels."
        )
    with write_picture(path) as unfinished:
        Image.fromarray(image).save(unfinished, **options)


@contextmanager
def write_picture(path: Path) -> Iterator[Path]:
    """`atomic.write_whole` for pictures, whose formats have limits.

    Raises:
        ImageFileError: The file cannot be written.
    """
    try:
        with write_whole(path) as unfinished:
            yield unfinished
    except (OSError, ValueError, struct.error) as error:  # the latter two: larger than the format's limits
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ImageFileError(f"cannot write {path} ({reason}); check the folder.") from error
