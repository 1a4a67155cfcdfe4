"""Names of results, each claimed by one run while it works on the picture, and what runs leave when they are killed."""

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from keras_psr.images.atomic import UNFINISHED

LOCK = ".lock"
"""Ends the name of the file whose lock is the claim. The operating system frees the lock when the process ends."""


class ClaimedError(Exception):
    """Another run is working on this result."""


class Claims:
    """The claims of one run.

    Each is a locked file `.part.KEY.lock` beside the result, where KEY stands for the result's name; the result is
    written to `.part.KEY.TOKEN.png`, a name that no other run has, and renamed. Locks are no more than a way to share
    the work: without them, as on file systems that have none, two runs would compute a picture twice, and the file
    would still be whole.
    """

    def __init__(self) -> None:
        """Begins without claims."""
        self._held: dict[str, tuple[Path, FileLock | None]] = {}
        self._guard = threading.Lock()

    @contextmanager
    def claim(self, target: Path) -> Iterator[Path]:
        """Claims a result, and takes away what killed runs left of it.

        Args:
            target: The file to write; missing folders are made.

        Yields:
            A file of the same folder and ending to write to, and to rename; it is removed at the end if it is there.

        Raises:
            ClaimedError: Another run has claimed it.
            OSError: The folder cannot be made.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        lock_file = target.with_name(f"{UNFINISHED}{_key(target)}{LOCK}")
        lock = _try_lock(lock_file)
        if lock:
            _remove_parts(lock_file, "")
            with suppress(OSError):  # by `write_whole` alone; the name may be too long
                target.with_name(UNFINISHED + target.name).unlink()
        token = secrets.token_hex(4)
        with self._guard:
            self._held[token] = lock_file, lock
        try:
            yield target.with_name(f"{UNFINISHED}{_key(target)}.{token}{target.suffix}")
        finally:
            self._free(token)

    def abandon(self) -> None:
        """Frees all claims and removes their parts, for a run that ends before its threads do."""
        for token in list(self._held):
            self._free(token)

    def _free(self, token: str) -> None:
        with self._guard:
            if token not in self._held:
                return
            lock_file, lock = self._held.pop(token)
        _remove_parts(lock_file, token)
        _unlock(lock_file, lock)


def is_shared(folder: Path) -> bool:
    """Whether another run works in a folder; looks several times, because between pictures a run has no claim."""
    for _ in range(3):
        for lock_file in list(folder.glob(f"{UNFINISHED}*{LOCK}")):
            try:
                lock = _try_lock(lock_file)
            except ClaimedError:
                return True
            if lock:
                lock.release()
        time.sleep(0.02)
    return False


def remove_stale_parts(folders: Iterable[Path]) -> None:
    """Removes what killed runs left in folders, and leaves alone what other runs are working on."""
    for folder in folders:
        for lock_file in list(folder.glob(f"{UNFINISHED}*{LOCK}")):
            with suppress(ClaimedError, OSError):
                lock = _try_lock(lock_file)
                if lock:
                    _remove_parts(lock_file, "")
                    _unlock(lock_file, lock)


def _key(target: Path) -> str:
    """Stands for a name; short, because names that are near the file system's limit must not become longer."""
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]


def _try_lock(lock_file: Path) -> FileLock | None:
    """The lock; None where the file system has no locks, or another user's file is in the way.

    Raises:
        ClaimedError: Another run has it.
    """
    lock = FileLock(lock_file, thread_local=False)
    try:
        lock.acquire(timeout=0.1, poll_interval=0.02)  # others hold it for a moment to see whether it is held
    except Timeout:
        raise ClaimedError(str(lock_file)) from None
    except (OSError, NotImplementedError):
        return None
    return lock


def _unlock(lock_file: Path, lock: FileLock | None) -> None:
    if lock:
        with suppress(OSError):  # Windows removes no open file; there, releasing the lock removes it
            lock_file.unlink()
        lock.release()


def _remove_parts(lock_file: Path, token: str) -> None:
    """Removes the parts with a token, or all of a name; also those that `atomic.write_whole` makes of them."""
    key = lock_file.name.removeprefix(UNFINISHED).removesuffix(LOCK)
    for part in list(lock_file.parent.glob(f"{UNFINISHED}*{key}.{token}*")):
        if part != lock_file:
            with suppress(OSError):
                part.unlink()
