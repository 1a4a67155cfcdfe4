"""Finds picture files in folders and with globs."""

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
"""Endings, in lower case, of the picture files that are found in folders: the formats that this installation reads."""


def find_images(path_or_glob: str | os.PathLike[str]) -> list[Path]:
    """Lists the picture files in a folder, or those that match a glob.

    Args:
        path_or_glob: A file, which is listed whatever its ending; a folder, searched recursively; or a glob
            such as `"photos/**/*.jpg"`. Hidden files and subfolders are ignored. Symbolic links to folders are
            followed, and each folder is searched once.

    Returns:
        Sorted paths, at least one.

    Raises:
        DataError: There is no such file or folder, or no file with a picture's ending.

    Example:
        for path in find_images("photos"):
            print(path)
    """
    return find_images_and_others(path_or_glob)[0]


def find_images_and_others(
    path_or_glob: str | os.PathLike[str], more: tuple[str, ...] = ()
) -> tuple[list[Path], Counter[str]]:
    """Returns the paths of `find_images`, and the number of other visible files by ending, in lower case.

    Args:
        path_or_glob: As for `find_images`.
        more: Endings, in lower case, of other files that are listed too.

    Example:
        pictures, others = find_images_and_others("photos")
    """
    suffixes = (*IMAGE_SUFFIXES, *more)
    where = Path(path_or_glob).expanduser()
    if where.is_file():
        return [where], Counter()
    if not where.is_dir() and not glob.has_magic(str(where)):
        raise DataError(f"no such file or folder: {where}; give a picture, a folder or a quoted glob.")
    found = _list_all(where) if where.is_dir() else _match(where)
    files = [path for path in found if path.is_file()]
    images = sorted(path for path in files if path.suffix.lower() in suffixes)
    others = Counter(path.suffix.lower() for path in files if path.suffix.lower() not in suffixes)
    closed = sum(path.is_dir() and not os.access(path, os.R_OK | os.X_OK) for path in found)
    others += Counter({"folders without permission": closed})
    if not images:
        there = f" There are {describe_endings(others)}." if others else ""
        raise DataError(f"no pictures in {where}; looked for files ending in {', '.join(suffixes)}.{there}")
    return images, others


def describe_endings(endings: Counter[str]) -> str:
    """Returns the numbers of files by ending as text: `3 .heic, 1 without ending`.

    Example:
        >>> describe_endings(Counter({".heic": 3, "": 1}))
        '3 .heic, 1 without ending'
    """
    return ", ".join(f"{number} {ending or 'without ending'}" for ending, number in endings.most_common())


def _list_all(folder: Path) -> list[Path]:
    """Returns everything visible below a folder, including linked folders."""
    return [entry for below in _list_folders(folder) for entry in _list_visible(below)]


def _list_folders(folder: Path) -> list[Path]:
    """Returns a folder and all visible folders below it, each once, preferably by a path without links."""
    listed: dict[str, Path] = {}
    waiting, links = [folder], list[Path]()
    while waiting or links:
        below = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(below)
        # A link to a parent folder would lead back here, and into everything next to this folder.
        leads_back = below != folder and os.path.realpath(below.parent).startswith(os.path.join(real, ""))
        if real in listed or leads_back:
            continue
        listed[real] = below
        folders = [entry for entry in _list_visible(below) if entry.is_dir()]
        links += [entry for entry in folders if entry.is_symlink()]
        waiting += [entry for entry in folders if not entry.is_symlink()]
    return list(listed.values())


def _list_visible(folder: Path) -> list[Path]:
    """Returns the visible entries of a folder, sorted; none if the folder may not be read."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def _match(pattern: Path) -> list[Path]:
    """Returns the paths that match a glob, each once. `**` follows links, but not in circles as `glob` does."""
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
