"""What `keras-psr fit` shows while it fits: a bar in a terminal, lines everywhere else."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from keras_psr.tasks.report import Report

PACE_STEPS = 200
"""Steps whose time gives the rate."""

QUIET_SECONDS = 60
"""Longest time without a line of output if there is no bar."""

BAR_ROOM = 38
"""Columns of the terminal that counts, bar and elapsed time take."""


class Pace:
    """Steps a second, and how long the rest will take.

    The first step of a session compiles and is left out, so there is a rate from the second one on. The time of
    validations counts.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        """For a fit that ends with step `total`; `clock` gives seconds."""
        self.total, self.clock = total, clock
        self.done: deque[tuple[int, float]] = deque(maxlen=PACE_STEPS + 1)

    def count(self, step: int) -> None:
        """Notes that a step is done."""
        self.done.append((step, self.clock()))

    def rate(self) -> float | None:
        """Steps a second; None before the second step."""
        if len(self.done) < 2:
            return None
        (first, start), (last, end) = self.done[0], self.done[-1]
        return (last - first) / max(end - start, 1e-9)

    def describe(self, step: int) -> str:
        """As in `0.35 steps/s, 0:11:48 left`; empty before the second step."""
        rate = self.rate()
        if rate is None:
            return ""
        left = timedelta(seconds=round((self.total - step) / rate))
        return f"{describe_rate(rate)} steps/s" + (f", {left} left" if step < self.total else "")


class FitDisplay:
    """Shows how far a fit is. A terminal that was closed does not end the fit."""

    def __init__(self, total: int, report: Report, console: Console | None = None) -> None:
        """For a fit that ends with step `total`, whose task reports so; without a console it is stderr."""
        self.total, self.report, self.pace = total, report, Pace(total)
        self.console = console or Console(stderr=True)
        self.losses = ""
        self.spoke = time.monotonic()
        self.session_steps = 0
        columns = [
            MofNCompleteColumn(),
            BarColumn(12),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        ]
        self.bar = Progress(*columns, console=self.console, transient=True) if self.console.is_terminal else None
        self.task = self.bar.add_task("", total=total, status="starting") if self.bar else None

    def __enter__(self) -> "FitDisplay":
        """Shows the bar."""
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Takes the bar away."""
        if self.bar:
            with suppress(OSError):
                self.bar.stop()

    def say(self, text: str) -> None:
        """Writes lines, above the bar where there is one."""
        self.spoke = time.monotonic()
        with suppress(OSError):
            self.console.print(text, markup=False, highlight=False, soft_wrap=not self.console.is_terminal)

    def begin(self, text: str, step: int) -> None:
        """Tells what begins or, after `step` steps, goes on."""
        self.say(text)
        self._show(step, "compiling the first step")

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Takes what a fit logs: mean losses since the line before, or validation scores."""
        scores = self.report.describe_validation(numbers)
        if scores:
            self.say(f"step {step}/{self.total}: validation {scores}")
            return
        self.losses = describe_losses(only_losses(numbers))
        if not self.bar:
            self.say(self._describe_step(step))

    def count(self, step: int, losses: dict[str, float]) -> None:
        """Takes the end of each step, with its losses."""
        self.pace.count(step)
        self.session_steps += 1
        if self.bar:
            pace = self.pace.describe(step) or "timing the second step"
            losses_text = self.losses or describe_losses(losses)
            if len(f"{pace}, {losses_text}") > self.console.width - BAR_ROOM:
                losses_text = losses_text.split(",")[0]
            self._show(step, f"{pace}, {losses_text}")
        elif step < self.total and (self.session_steps == 2 or time.monotonic() - self.spoke > QUIET_SECONDS):
            self.losses = describe_losses(losses)
            self.say(self._describe_step(step))

    def _describe_step(self, step: int) -> str:
        return ", ".join(filter(None, [f"step {step}/{self.total}: {self.losses}", self.pace.describe(step)]))

    def _show(self, step: int, status: str) -> None:
        if self.bar and self.task is not None:
            with suppress(OSError):
                self.bar.update(self.task, completed=step, status=status, refresh=True)


def describe_rate(rate: float) -> str:
    """A rate with two digits, or more where it is above 100: `120`, `12`, `1.2`, `0.35`, `0.012`."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def only_losses(numbers: dict[str, float]) -> dict[str, float]:
    """Of what a fit logs, the losses of its steps."""
    return {name: value for name, value in numbers.items() if name != "crops_per_second" and name[:4] != "val_"}


def describe_losses(losses: dict[str, float]) -> str:
    """The loss and its terms, as in `loss 8.12, pixel 7.9, feature 210`."""
    names = sorted(losses, key=lambda name: name != "loss")
    return ", ".join(f"{name.removesuffix('_loss').replace('_', ' ')} {losses[name]:.3g}" for name in names)
