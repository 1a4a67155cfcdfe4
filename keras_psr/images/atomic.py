"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".part."
"""Begins the name of a file that is being written; hidden, so that nobody who lists the folder finds half a file."""


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Gives a temporary name to write to, and renames it at the end; a file of another name is never left behind.

    The name is always the same for a path, so that what a killed process left is replaced by the next one.

    Args:
        path: Where the file will be; an existing one is replaced. Missing folders are created.

    Yields:
        Where to write: the same folder and ending.

    Raises:
        OSError: The file cannot be written.
    """
    unfinished = path.with_name(UNFINISHED + path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
