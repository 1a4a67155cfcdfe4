"""Keeping native libraries' log lines out of the console."""

import contextlib
import ctypes
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

LOG_LINE = re.compile(
    r"(verbose|debug|info|warning|error): |[iwef]\d{4} |└|=== Source Location Trace|third_party/|\s+at |\s*$",
    re.ASCII | re.IGNORECASE,
)
"""What lines of LiteRT, and of Dawn, through which it reaches Vulkan, begin with."""

_TURN = threading.RLock()


@contextlib.contextmanager
def captured_log() -> Iterator[list[str]]:
    """Takes LiteRT's log lines off the console, because LiteRT has no setting for that.

    Standard output and standard error go to files meanwhile, by their file descriptors. Whatever else was written, by
    other threads, reaches the console afterwards. Where there is no console, nothing happens.

    Yields:
        A list that holds LiteRT's lines once the context has been left.

    Example:
        with captured_log() as lines:
            interpreter.allocate_tensors()
    """
    lines: list[str] = []
    with _TURN, contextlib.ExitStack() as stack:
        try:
            consoles = [(number, os.dup(number)) for number in (1, 2)]
        except OSError:
            yield lines
            return
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in consoles]
        _flush()
        for (number, _), file in zip(consoles, files, strict=True):
            os.dup2(file.fileno(), number)
        try:
            yield lines
        finally:
            _flush()
            for (number, console), file in zip(consoles, files, strict=True):
                os.dup2(console, number)
                os.close(console)
                file.seek(0)
                for line in file.read().splitlines(keepends=True):
                    text = line.decode(errors="replace")
                    if LOG_LINE.match(text):
                        lines.append(text.rstrip())
                    else:
                        os.write(number, line)


def silence_standard_error() -> None:
    """Ends all output on standard error; for the moment when a process ends and static objects still log."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _flush() -> None:
    """Empties the buffers of Python's streams and of C's."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream, a broken or a closed one
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
