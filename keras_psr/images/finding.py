"""Picture files by name: in folders, by globs, one by one."""

import fnmatch
import glob
import os
from collections import Counter
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
