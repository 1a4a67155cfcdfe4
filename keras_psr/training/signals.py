"""Signals during a fit: the first one asks the fit to save and stop, a second one ends it at once.

The signals are SIGINT (Ctrl-C), SIGTERM (from schedulers) and, where it exists, SIGHUP (a closed terminal).
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANGUP = getattr(signal, "SIGHUP", None)
"""None on Windows."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else []))


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yields an event that the first signal sets. Outside the main thread, which alone receives signals, nothing does.

    If SIGHUP is ignored, as under `nohup`, it stays ignored.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    if previous.get(HANGUP) == signal.SIG_IGN:
        del previous[HANGUP]

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    for number in previous:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
