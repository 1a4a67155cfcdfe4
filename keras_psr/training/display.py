"""Shows how far a fit is: with a bar in a terminal, an updated line in a notebook, and lines everywhere else.

It does not import Keras, so that `keras-psr fit` can show it while Keras is loading.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from textwrap import fill
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from keras_psr.tasks.config import FitConfig
from keras_psr.tasks.report import REPORTS

PACE_STEPS = 200
"""Number of steps over which the rate is averaged."""

QUIET_SECONDS = 60
"""Longest time without a line of output where there is neither a bar nor a notebook."""

UPDATE_SECONDS = 0.5
"""Shortest time between two updates of a notebook's line."""

BAR_ROOM = 38
"""Columns of the terminal that the counts, the bar and the elapsed time take."""


class Pace:
    """Measures steps per second, and estimates how long the rest will take.

    The first step of a session compiles and is left out, so there is a rate from the second one on. The time of
    validations counts.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts without steps.

        Args:
            total: The step at which the fit ends.
            clock: A function that returns seconds.
        """
        self.total, self.clock = total, clock
        self.done: deque[tuple[int, float]] = deque(maxlen=PACE_STEPS + 1)

    def count(self, step: int) -> None:
        """Records that a step is done."""
        self.done.append((step, self.clock()))

    def rate(self) -> float | None:
        """Returns the steps per second, or None before the second step."""
        if len(self.done) < 2:
            return None
        (first, start), (last, end) = self.done[0], self.done[-1]
        return (last - first) / max(end - start, 1e-9)

    def describe(self, step: int) -> str:
        """Returns text such as `0.35 steps/s, 0:11:48 left`; empty before the second step."""
        rate = self.rate()
        if rate is None:
            return ""
        left = timedelta(seconds=round((self.total - step) / rate))
        return f"{describe_rate(rate)} steps/s" + (f", {left} left" if step < self.total else "")


class FitDisplay:
    """Shows a fit's settings, progress, scores and result. If the terminal is closed, the fit goes on."""

    def __init__(self, config: FitConfig, out: Path, console: Console | None = None) -> None:
        """Prepares the display.

        Args:
            config: The fit's settings.
            out: Its run folder.
            console: Where to write; None for stdout in a notebook, else stderr.
        """
        self.config, self.out, self.total = config, out, config.steps
        self.report, self.pace = REPORTS[config.task], Pace(config.steps)
        self.line = NotebookLine() if console is None and Console().is_jupyter else None
        self.console = console or (
            Console(force_jupyter=False, force_terminal=False) if self.line else Console(stderr=True)
        )
        self.losses = ""
        self.began = self.spoke = time.monotonic()
        self.session_steps = 0
        columns = [
            MofNCompleteColumn(),
            BarColumn(12),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        ]
        self.bar = Progress(*columns, console=self.console, transient=True) if self.console.is_terminal else None
        self.task = self.bar.add_task("", total=self.total, status="starting") if self.bar else None

    def __enter__(self) -> "FitDisplay":
        """Shows the bar."""
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Removes the bar."""
        if self.bar:
            with suppress(OSError):
                self.bar.stop()

    def say(self, text: str) -> None:
        """Writes lines, above the bar if there is one."""
        self.spoke = time.monotonic()
        with suppress(OSError):
            self.console.print(text, markup=False, highlight=False, soft_wrap=not self.console.is_terminal)

    def begin(self, step: int, devices: str, precision: str) -> None:
        """Says what begins or, after `step` steps, goes on."""
        begins = f"Going on after step {step} in {self.out}" if step else f"Fitting into {self.out}"
        settings = describe_settings(self.config, min(self.console.width, 100))
        self.say(f"{begins}, on {devices}, in {precision}:\n{settings}")
        self._show_bar(step, "compiling the first step")

    def begin_stage(self, step: int) -> None:
        """Says that the warm-up is over."""
        self.say(f"step {step}/{self.total}: the warm-up is over; from here on with all losses")
        self._show_bar(step, "compiling the first step")

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Shows what a fit logs: mean losses since the last call, or validation scores."""
        scores = self.report.describe_validation(numbers)
        if scores:
            self.say(f"step {step}/{self.total}: validation {scores}")
            return
        self.losses = describe_losses(only_losses(numbers))
        if not (self.bar or self.line):
            self.say(self._describe_step(step))

    def count(self, step: int, losses: dict[str, float]) -> None:
        """Shows the end of a step, with its losses."""
        self.pace.count(step)
        self.session_steps += 1
        if self.line:
            self.losses = self.losses or describe_losses(losses)
            self.line.show(self._describe_step(step), at_once=step == self.total)
        elif self.bar:
            pace = self.pace.describe(step) or "timing the second step"
            losses_text = self.losses or describe_losses(losses)
            if len(f"{pace}, {losses_text}") > self.console.width - BAR_ROOM:
                losses_text = losses_text.split(",")[0]
            self._show_bar(step, f"{pace}, {losses_text}")
        elif step < self.total and (self.session_steps == 2 or time.monotonic() - self.spoke > QUIET_SECONDS):
            self.losses = describe_losses(losses)
            self.say(self._describe_step(step))

    def end(self, log: Sequence[Mapping[str, Any]]) -> None:
        """Shows the result of a finished fit: the last scores in its log, and its folder."""
        seconds = round(time.monotonic() - self.began)
        scores = next(filter(None, (self.report.describe_validation(line) for line in reversed(log))), "none")
        self.say(
            f"\nDone after {self.total} steps; this session took {timedelta(seconds=seconds)}.\nScores: {scores}\n"
            f"Run folder: {self.out} (network: model.keras, pictures of its progress: samples/)"
        )

    def _describe_step(self, step: int) -> str:
        return ", ".join(filter(None, [f"step {step}/{self.total}: {self.losses}", self.pace.describe(step)]))

    def _show_bar(self, step: int, status: str) -> None:
        if self.bar and self.task is not None:
            with suppress(OSError):
                self.bar.update(self.task, completed=step, status=status, refresh=True)


class NotebookLine:
    """A line in the output of a notebook's cell that is replaced again and again. It needs no widgets."""

    def __init__(self) -> None:
        """Starts without a line."""
        self.handle: Any = None
        self.shown = 0.0

    def show(self, text: str, *, at_once: bool) -> None:
        """Replaces the line, or leaves it for now, unless `at_once`, if it is only `UPDATE_SECONDS` old."""
        if time.monotonic() - self.shown < UPDATE_SECONDS and not at_once:
            return
        from IPython.display import display

        self.shown = time.monotonic()
        if self.handle is None:
            self.handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self.handle.update({"text/plain": text}, raw=True)


def describe_settings(config: FitConfig, width: int) -> str:
    """Returns all settings in a paragraph whose lines have at most `width` characters."""
    settings = {name: " ".join(value) if isinstance(value, list) else value for name, value in config.to_json().items()}
    text = ", ".join(f"{name} {value}" for name, value in settings.items() if value != "")
    return fill(text, width=width, initial_indent="  ", subsequent_indent="  ")


def describe_rate(rate: float) -> str:
    """Returns a rate with two digits, or more above 100: `120`, `12`, `1.2`, `0.35`, `0.012`."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def only_losses(numbers: dict[str, float]) -> dict[str, float]:
    """Returns only the losses of what a fit logs."""
    return {name: value for name, value in numbers.items() if name != "crops_per_second" and name[:4] != "val_"}


def describe_losses(losses: dict[str, float]) -> str:
    """Returns the loss and its terms as text, as in `loss 8.12, pixel 7.9, feature 210`."""
    names = sorted(losses, key=lambda name: name != "loss")
    return ", ".join(f"{name.removesuffix('_loss').replace('_', ' ')} {losses[name]:.3g}" for name in names)
