"""Ends a command promptly on Ctrl-C, SIGTERM and SIGHUP, even while native code is running.

`keras-psr fit` handles signals itself, because it saves a checkpoint first (`training/signals.py`).
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

import click

from keras_psr.cli.terminal import hide_bars, say
from keras_psr.images.atomic import remove_unfinished
from keras_psr.training.signals import STOP_SIGNALS, handled_signals

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
    """Makes SIGTERM and SIGHUP end the context as Ctrl-C does (`training.signals.handled_signals`)."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    try:
        with handled_signals([number for number in STOP_SIGNALS if number != signal.SIGINT], stop):
            yield
    except Terminated as stopped:
        say("Terminated.")
        raise click.exceptions.Exit(128 + stopped.number) from None


_exiting = threading.Event()


def wait_if_interrupted() -> None:
    """Blocks the calling thread for good if the process is exiting.

    A thread of `run_interruptibly` that calls this between its steps cannot keep the main thread from the interpreter.
    """
    if _exiting.is_set():
        threading.Event().wait()


def run_interruptibly(function: Callable[[], Result]) -> Result:
    """Calls a function in a separate thread, and exits at once on Ctrl-C, SIGTERM or SIGHUP.

    TensorFlow's native code does not react to signals, and exceptions that are raised inside it get lost or crash it.
    So the process exits without waiting for the thread, after it has removed unfinished files and the progress bar.

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
    with heeded_signals():
        try:
            thread.start()
            while thread.is_alive():
                thread.join(0.2)  # on Windows, Ctrl-C does not interrupt a longer wait
        except Terminated as stopped:
            _exit_now(128 + stopped.number, "Terminated.")
        except KeyboardInterrupt:
            _exit_now(128 + signal.SIGINT, "Interrupted.")
    if errors:
        raise errors[0]
    return results[0]


def _exit_now(code: int, message: str) -> NoReturn:
    """Ends the process without waiting for its threads."""
    _exiting.set()
    hide_bars()
    say(message)
    remove_unfinished()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
