"""Writes files atomically: they appear complete or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

UNFINISHED = ".part."
"""Prefix of the name of a file that is being written. It hides the incomplete file from whoever lists the folder."""

_unfinished: set[Path] = set()


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Provides a temporary path to write to, and renames the file at the end, or removes it after an error.

    The temporary name depends only on the path, so that the next process replaces what a killed one left.

    Args:
        path: Final path of the file; an existing file is replaced. Missing folders are created.

    Yields:
        The path to write to, in the same folder and with the same ending.

    Raises:
        OSError: The file cannot be written.

    Example:
        with write_whole(path) as unfinished:
            unfinished.write_bytes(content)
    """
    unfinished = path.with_name(UNFINISHED + path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    _unfinished.add(unfinished)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
        _unfinished.discard(unfinished)


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Provides a new hidden folder, and removes it at the end.

    Args:
        parent: The folder to create it in; None for the system's folder for temporary files.

    Yields:
        The path of the folder.

    Raises:
        OSError: The folder cannot be created.

    Example:
        with temporary_folder() as folder:
            network.save(folder / "model.keras")
    """
    folder = Path(mkdtemp(prefix=UNFINISHED, dir=parent))
    _unfinished.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unfinished.discard(folder)


def remove_unfinished() -> None:
    """Removes the files and folders that this process has not finished, for an exit that does not wait for threads."""
    for path in list(_unfinished):
        with suppress(OSError):  # Windows does not remove open files
            if path.is_dir():
                # Under another name first, because a thread may still write into it.
                shutil.rmtree(path.rename(path.with_name(f"{path.name}.removed")))
            else:
                path.unlink(missing_ok=True)
