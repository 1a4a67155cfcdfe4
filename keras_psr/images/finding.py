"""Picture files by name: in folders, by globs, one by one."""

import glob
import os
from importlib.util import find_spec
from pathlib import Path

from PIL import features

from keras_psr.errors import DataError

IMAGE_SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
    *((".avif",) if "avif" in features.modules and features.check("avif") else ()),
    *((".heic", ".heif") if find_spec("pillow_heif") else ()),
)
"""Endings, in lower case, by which picture files are found in folders: those of kinds that this installation reads."""


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
