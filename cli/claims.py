"""Claims, by which several runs share the pictures of a batch, and the cleanup after killed runs."""

import hashlib
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from keras_psr.images.atomic import UNFINISHED

LOCK = ".lock"
"""Ending of the file whose lock is the claim. The operating system releases the lock when the process ends."""

RUN = f"{UNFINISHED}run-"
"""Beginning of the name of the file by whose lock a run is seen between two claims."""


class ClaimedError(Exception):
    """Another run is working on this result."""


class Claims:
    """The claims of one run, which end with the context.

    A claim is a locked file `.part.KEY.lock` next to the result, where KEY is a hash of the result's name. The result
    is written to `.part.KEY.TOKEN.png`, a name that no other run uses, and then renamed. From its first claim in a
    folder on, a run also locks `.part.run-TOKEN.lock` there, by which others see it between two claims as well.
    Locks only divide the work: on file systems without locks, two runs may compute the same picture, but the file is
    still complete.
    """

    def __init__(self) -> None:
        """Creates the object without any claims."""
        self._held: dict[str, tuple[Path, FileLock | None]] = {}
        self._present: dict[Path, FileLock | None] = {}
        self._guard = threading.Lock()
        self._run_lock = f"{RUN}{secrets.token_hex(8)}{LOCK}"

    def __enter__(self) -> "Claims":
        """Returns the object itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Releases all claims and removes their parts, even if threads that made them still run."""
        for token in list(self._held):
            self._free(token)
        with self._guard:
            while self._present:
                _unlock(*self._present.popitem())

    @contextmanager
    def claim(self, target: Path) -> Iterator[Path]:
        """Claims a result inside the context, and removes the parts of it that killed runs left.

        Args:
            target: The file to write; missing folders are created.

        Yields:
            A path with the same folder and ending, to write to and then rename; it is removed at the end if it still
            exists.

        Raises:
            ClaimedError: Another run has claimed the result.
            OSError: The folder cannot be created.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        self._show_presence(target.with_name(self._run_lock))
        lock_file = target.with_name(f"{UNFINISHED}{_key(target)}{LOCK}")
        lock = _try_lock(lock_file)
        if lock:
            _remove_parts(lock_file, "")
            with suppress(OSError):  # a part that `write_whole` left; the name may be too long
                target.with_name(UNFINISHED + target.name).unlink()
        token = secrets.token_hex(4)
        with self._guard:
            self._held[token] = lock_file, lock
        try:
            yield target.with_name(f"{UNFINISHED}{_key(target)}.{token}{target.suffix}")
        finally:
            self._free(token)

    def _show_presence(self, run_lock: Path) -> None:
        """Locks a file that tells other runs that this one works in its folder, unless it is locked already."""
        # If another run is testing the lock at this moment, the next claim tries again.
        with self._guard, suppress(ClaimedError):
            if run_lock not in self._present:
                self._present[run_lock] = _try_lock(run_lock)

    def _free(self, token: str) -> None:
        with self._guard:
            if token not in self._held:
                return
            lock_file, lock = self._held.pop(token)
        _remove_parts(lock_file, token)
        _unlock(lock_file, lock)


def is_shared(folder: Path) -> bool:
    """Returns whether another run works in a folder, which holds until that run ends."""
    for lock_file in list(folder.glob(f"{RUN}*{LOCK}")):
        try:
            _unlock(lock_file, _try_lock(lock_file))
        except ClaimedError:
            return True
    return False


def remove_stale_parts(folders: Iterable[Path]) -> None:
    """Removes the parts that killed runs left in folders, but not those of other active runs."""
    for folder in folders:
        for lock_file in list(folder.glob(f"{UNFINISHED}*{LOCK}")):
            with suppress(ClaimedError, OSError):
                lock = _try_lock(lock_file)
                if lock:
                    _remove_parts(lock_file, "")
                    _unlock(lock_file, lock)


def _key(target: Path) -> str:
    """Returns a short key for a result's name, so that long names do not exceed the file system's limit."""
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]


def _try_lock(lock_file: Path) -> FileLock | None:
    """Acquires a lock; returns None if the file system has no locks, or another user's file is in the way.

    Raises:
        ClaimedError: Another run holds the lock.
    """
    lock = FileLock(lock_file, thread_local=False)
    try:
        lock.acquire(timeout=0.1, poll_interval=0.02)  # other runs acquire it briefly to test it
    except Timeout:
        raise ClaimedError(str(lock_file)) from None
    except (OSError, NotImplementedError):
        return None
    return lock


def _unlock(lock_file: Path, lock: FileLock | None) -> None:
    if lock:
        with suppress(OSError):  # Windows does not remove open files; there, releasing the lock removes it
            lock_file.unlink()
        lock.release()


def _remove_parts(lock_file: Path, token: str) -> None:
    """Removes the parts of a claim with a token, or all parts for an empty one, including those of `write_whole`."""
    key = lock_file.name.removeprefix(UNFINISHED).removesuffix(LOCK)
    for part in list(lock_file.parent.glob(f"{UNFINISHED}*{key}.{token}*")):
        if part != lock_file:
            with suppress(OSError):
                part.unlink()
