"""Keeps native libraries' log lines off the console."""

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
"""Matches the start of log lines of LiteRT, and of Dawn, through which LiteRT uses Vulkan."""

_TURN = threading.RLock()


@contextlib.contextmanager
def captured_log() -> Iterator[list[str]]:
    """Keeps LiteRT's log lines off the console, because LiteRT has no setting for that.

    Inside the context, standard output and standard error are redirected to files at the level of file descriptors.
    Lines that are not LiteRT's, such as those of other threads, reach the console afterwards. Without a console the
    context does nothing.

    Yields:
        A list that holds LiteRT's lines once the context has exited.

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
    """Discards all further output on standard error, because static objects still log while the process exits."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _flush() -> None:
    """Flushes the buffers of Python's and C's streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # there is no stream, or it is broken or closed
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
