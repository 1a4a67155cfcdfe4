"""Writes files atomically: they appear complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".part."
"""Prefix of the name of a file that is being written. It hides the incomplete file from whoever lists the folder."""


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
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
