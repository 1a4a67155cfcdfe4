"""Signals during a fit: the first one asks the fit to save and stop, a second one ends it at once.

The signals are SIGINT (Ctrl-C), SIGTERM (from schedulers) and, where it exists, SIGHUP (a closed terminal).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

HANGUP = getattr(signal, "SIGHUP", None)
"""None on Windows."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else []))


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yields an event that the first of `STOP_SIGNALS` sets."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    with handled_signals(STOP_SIGNALS, ask):
        yield stop


@contextmanager
def handled_signals(numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handles signals inside the context. Outside the main thread, which alone receives signals, it does nothing.

    If SIGHUP is ignored, as under `nohup`, it stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in numbers}
    if HANGUP and previous.get(HANGUP) == signal.SIG_IGN:
        del previous[HANGUP]
    for number in previous:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)
