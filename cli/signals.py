"""Ends promptly on Ctrl-C, SIGTERM and SIGHUP, even while native code is running."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import click

from keras_psr.cli.terminal import say

PATIENCE = 2.0
"""Seconds that work in progress has to finish before it is abandoned."""

Result = TypeVar("Result")


class Terminated(KeyboardInterrupt):
    """A signal other than that of Ctrl-C asked the process to end."""

    def __init__(self, number: int) -> None:
        """Stores the signal's number."""
        self.number = number


@contextmanager
def heeded_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP end the context as Ctrl-C does, unless they are ignored, as SIGHUP is under nohup."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    previous = {number: signal.getsignal(number) for number in numbers}
    previous = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, stop)
    try:
        yield
    except Terminated as stopped:
        say("Terminated.")
        raise click.exceptions.Exit(128 + stopped.number) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_interruptibly(function: Callable[[], Result]) -> Result:
    """Calls a function in a separate thread, because its native code does not react to Ctrl-C.

    On Ctrl-C the thread is asked to end, which it does as soon as it is back in Python. If that takes longer than
    `PATIENCE`, the process exits without waiting.

    Args:
        function: The function to call.

    Returns:
        The function's result. Its exceptions are raised here.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)  # on Windows, Ctrl-C does not interrupt a longer wait
    except KeyboardInterrupt:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        thread.join(PATIENCE)
        if thread.is_alive():
            say("Interrupted.")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        raise
    if errors:
        raise errors[0]
    return results[0]
