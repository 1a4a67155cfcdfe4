"""Picture files: finding, measuring, reading and writing them; what is read is uint8 RGB and upright."""

import fnmatch
import glob
import os
import struct
from collections import Counter
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
            such as `"photos/**/*.jpg"`. Hidden files and folders within are ignored. Linked folders are searched
            too, each folder once.

    Returns:
        Sorted paths, at least one.

    Raises:
        DataError: Nothing is there, or nothing that ends like a picture.
    """
    return find_images_and_others(path_or_glob)[0]


def find_images_and_others(path_or_glob: str | os.PathLike[str]) -> tuple[list[Path], Counter[str]]:
    """As `find_images`, with the number of visible files of each ending that is no picture's, in lower case."""
    where = Path(path_or_glob).expanduser()
    if where.is_file():
        return [where], Counter()
    if not where.is_dir() and not glob.has_magic(str(where)):
        raise DataError(f"no such file or folder: {where}; give a picture, a folder or a quoted glob.")
    found = _list_all(where) if where.is_dir() else _match(where)
    files = [path for path in found if path.is_file()]
    images = sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    others = Counter(path.suffix.lower() for path in files if path.suffix.lower() not in IMAGE_SUFFIXES)
    closed = sum(path.is_dir() and not os.access(path, os.R_OK | os.X_OK) for path in found)
    others += Counter({"folders without permission": closed})
    if not images:
        there = f" There are {describe_endings(others)}." if others else ""
        raise DataError(f"no pictures in {where}; looked for files ending in {', '.join(IMAGE_SUFFIXES)}.{there}")
    return images, others


def describe_endings(endings: Counter[str]) -> str:
    """Numbers of files for people: `3 .heic, 1 without ending`."""
    return ", ".join(f"{number} {ending or 'without ending'}" for ending, number in endings.most_common())


def _list_all(folder: Path) -> list[Path]:
    """What is visible below a folder, in linked folders too."""
    return [entry for below in _list_folders(folder) for entry in _list_visible(below)]


def _list_folders(folder: Path) -> list[Path]:
    """A folder and the visible ones below, each once: by the path without links where there is one."""
    listed: dict[str, Path] = {}
    waiting, links = [folder], list[Path]()
    while waiting or links:
        below = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(below)
        # A link to a folder above leads back here, through all that lies beside.
        leads_back = below != folder and os.path.realpath(below.parent).startswith(os.path.join(real, ""))
        if real in listed or leads_back:
            continue
        listed[real] = below
        folders = [entry for entry in _list_visible(below) if entry.is_dir()]
        links += [entry for entry in folders if entry.is_symlink()]
        waiting += [entry for entry in folders if not entry.is_symlink()]
    return list(listed.values())


def _list_visible(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, sorted; nothing of a folder that may not be read."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def _match(pattern: Path) -> list[Path]:
    """What matches a glob, each once; `**` takes linked folders, but does not go round in circles as `glob` does."""
    parts = pattern.parts
    plain = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    found = [Path(*parts[:plain])]
    for part in parts[plain:]:
        if part == "**":
            below = [path for folder in found if folder.is_dir() for path in _list_folders(folder)]
            found = list({os.path.realpath(path): path for path in reversed(below)}.values())[::-1]
            if part == parts[-1]:
                found += [entry for folder in found for entry in _list_visible(folder)]
        elif not glob.has_magic(part):
            found = [folder / part for folder in found if (folder / part).exists()]
        elif part.startswith("."):
            found = [entry for folder in found for entry in folder.glob(part)]
        else:
            found = [entry for folder in found for entry in _list_visible(folder) if fnmatch.fnmatch(entry.name, part)]
    return list(dict.fromkeys(found))


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
