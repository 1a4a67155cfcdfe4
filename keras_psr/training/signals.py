"""Signals during a fit: the first one asks it to stop, a second one ends it at once.

SIGINT (Ctrl-C), SIGTERM (schedulers) and, where it exists, SIGHUP (the terminal was closed).
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
    """Gives an event that the first signal sets. Outside the main thread, which alone gets signals, none does.

    A hangup that is ignored, as `nohup` has it, stays ignored.
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
