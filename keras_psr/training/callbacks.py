"""What happens between the gradient steps of a fit: progress, log, validation, checkpoints, a guard against NaN."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from threading import Event
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_psr.errors import ImageFileError, TrainingError
from keras_psr.images.decoding import read_rgb
from keras_psr.images.encoding import write_image
from keras_psr.tasks.config import FitConfig
from keras_psr.tasks.task import Validation
from keras_psr.training.devices import describe_devices
from keras_psr.training.display import FitDisplay
from keras_psr.training.run_folder import RunFolder

LOG_EVERY = 50
"""Steps whose losses are averaged into one line of the log."""

EXPLODED = 1000
"""A fit ends if its loss is this many times as large as the lowest mean of `LOG_EVERY` steps so far."""

DescribeStep = Callable[[int], str]
"""A function that returns the names of a step's pictures."""

OnLog = Callable[[int, dict[str, float]], None]
"""A function that is called with a step and the numbers logged at it."""

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """What callbacks keep from step to step. Checkpoints contain it, so that a resumed run writes the same log.

    Attributes:
        summed_steps: Number of steps since the last line of the log.
        sums: Sum of each loss over these steps.
        lowest_loss: Lowest mean loss of any line so far.
        best_score: Highest value so far of the score that the validation names as `best`.
    """

    summed_steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    lowest_loss: float = math.inf
    best_score: float = -math.inf

    def to_array(self) -> np.ndarray:
        """Returns the record as JSON in an array, for a checkpoint."""
        return np.array(json.dumps(asdict(self)))

    @classmethod
    def from_array(cls, array: np.ndarray) -> "Progress":
        """Returns the record from what `to_array` made, also in older versions with `samples` and `best_psnr`."""
        values = json.loads(str(array))
        values.pop("samples", None)
        if "best_psnr" in values:
            values["best_score"] = values.pop("best_psnr")
        return cls(**values)


class StepCallback(keras.callbacks.Callback):
    """A callback that knows how many gradient steps are done, over all sessions of a run."""

    def step(self) -> int:
        """Returns the number of gradient steps done."""
        return self.model.steps_done


class CountSteps(StepCallback):
    """Counts the gradient steps. It must come before the callbacks that use the number."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts a step."""
        self.model.steps_done += 1


class StopOnDivergence(StepCallback):
    """Ends the fit with an error if the loss is not finite, or far above its earlier values."""

    def __init__(self, progress: Progress, describe_batch: DescribeStep) -> None:
        """Stores what the callback needs.

        Args:
            progress: What is kept from step to step.
            describe_batch: A function that returns the names of a step's pictures.
        """
        super().__init__()
        self.progress, self.describe_batch = progress, describe_batch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks the losses of a step.

        Raises:
            TrainingError: The fit diverged.
        """
        losses = {name: float(value) for name, value in (logs or {}).items()}
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise self.diverged(f"{', '.join(bad)} is not finite")
        if losses["loss"] > EXPLODED * self.progress.lowest_loss:
            raise self.diverged(f"the loss is {losses['loss']:.3g}, after {self.progress.lowest_loss:.3g}")

    def diverged(self, what: str) -> TrainingError:
        """Returns the error to raise."""
        return TrainingError(
            f"The fit diverged at step {self.step()}: {what}. The last checkpoint is kept. Start again with a smaller "
            f"--learning-rate, or without the picture that caused it. The pictures of this step: "
            f"{self.describe_batch(self.step())}."
        )


class Log(StepCallback):
    """Writes the mean losses of every `LOG_EVERY` steps, and the validation scores, to `log.jsonl` and TensorBoard."""

    def __init__(self, progress: Progress, run: RunFolder, config: FitConfig, listeners: Sequence[OnLog]) -> None:
        """Opens the files of a run folder.

        Args:
            progress: What is kept from step to step.
            run: The run folder.
            config: The fit's settings.
            listeners: Functions that are called for each line too.
        """
        super().__init__()
        self.progress, self.run, self.config, self.listeners = progress, run, config, listeners
        self.clock: tuple[int, float] | None = None
        self.writer = tf.summary.create_file_writer(str(run.tensorboard))
        for line in run.read_log():
            self._write_events(int(line["step"]), line)
        for path in sorted(run.samples.glob("step-*.png")):
            self._write_image(int(path.stem.removeprefix("step-")), read_rgb(path))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restarts the clock for each stage of the fit."""
        self.clock = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds up the losses, and writes their means after every `LOG_EVERY` steps."""
        step, progress = self.step(), self.progress
        progress.summed_steps += 1
        for name, value in (logs or {}).items():
            progress.sums[name] = progress.sums.get(name, 0.0) + float(value)
        if self.clock is None:  # starts after the first step, which compiles
            self.restart_clock()
        stage = self.config.stage_at(step - 1)
        if step % LOG_EVERY and step != stage.last_step:
            return
        numbers = {name: value / progress.summed_steps for name, value in progress.sums.items()}
        progress.lowest_loss = min(progress.lowest_loss, numbers["loss"])
        if step == stage.last_step:
            progress.lowest_loss = math.inf  # the next stage has another loss
        progress.summed_steps, progress.sums = 0, {}
        steps_before, time_before = self.clock or (step, 0.0)
        if step > steps_before:
            seconds = time.perf_counter() - time_before
            numbers["crops_per_second"] = (step - steps_before) * stage.config.batch_size / seconds
        self.restart_clock()
        self.write(step, numbers)

    def restart_clock(self) -> None:
        """Leaves the time since the last step out of the rate."""
        self.clock = (self.step(), time.perf_counter())

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Appends a line of numbers. Undefined ones, such as the ratios of a flat picture, are left out."""
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        with go_on_without(f"line of step {step} in {self.run.log_file}"):
            with self.run.log_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **numbers}) + "\n")
            self._write_events(step, numbers)
        for listener in self.listeners:
            listener(step, numbers)

    def write_sheet(self, step: int, sheet: np.ndarray) -> None:
        """Saves a sheet of pictures, and adds it to TensorBoard."""
        path = self.run.samples / f"step-{step:08d}.png"
        with go_on_without(f"sheet {path}"):
            write_image(path, sheet)
            self._write_image(step, sheet)

    def _write_events(self, step: int, numbers: dict[str, float]) -> None:
        with self.writer.as_default(step=step):
            for name, value in numbers.items():
                if name != "step":
                    tf.summary.scalar(name, value)
        self.writer.flush()

    def _write_image(self, step: int, sheet: np.ndarray) -> None:
        with self.writer.as_default(step=step):
            tf.summary.image("sheet", sheet[None])
        self.writer.flush()


class SaveAndValidate(StepCallback):
    """Validates and saves every `save_every` steps and at the last step, and saves when the fit is asked to stop.

    The checkpoint is written last. So everything in a folder up to its newest checkpoint is complete, and what came
    after it is written again when the run is resumed.
    """

    def __init__(
        self,
        progress: Progress,
        run: RunFolder,
        averaged: keras.Model,
        validation: Validation,
        log: Log,
        guard: StopOnDivergence,
        stop: Event,
        config: FitConfig,
    ) -> None:
        """Stores what the callback uses.

        Args:
            progress: What is kept from step to step.
            run: The run folder.
            averaged: The network that receives the averaged weights.
            validation: Scores that network.
            log: Writes the scores.
            guard: Makes the error for weights that are not finite.
            stop: Is set when the fit should stop.
            config: The fit's settings.
        """
        super().__init__()
        self.run, self.averaged, self.validation, self.log, self.guard = run, averaged, validation, log, guard
        self.progress, self.stop, self.config = progress, stop, config

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Validates and saves if it is time.

        Raises:
            TrainingError: A weight is not finite.
            KeyboardInterrupt: A signal asked the fit to stop; the checkpoint has been written.
        """
        step = self.step()
        is_due = step % self.config.save_every == 0 or step == self.config.steps
        if not is_due and not self.stop.is_set():
            return
        state = self.model.state()
        if not all(np.isfinite(values).all() for values in state.values()):
            raise self.guard.diverged("a weight is not finite")  # a ReLU can hide it from the loss
        if is_due:
            self._validate(step)
        with go_on_without(f"checkpoint of step {step} in {self.run.checkpoints}"):
            self.run.save_checkpoint(step, state | {"progress": self.progress.to_array()}, self.config.keep)
        self.log.restart_clock()
        if self.stop.is_set() and step < self.config.steps:
            raise KeyboardInterrupt

    def _validate(self, step: int) -> None:
        self.model.copy_average_to(self.averaged)
        with go_on_without(f"network {self.run.model_file}"):
            self.run.save_network(self.averaged)
        numbers, sheet = self.validation(self.averaged)
        best = self.validation.best
        if best:
            self.progress.best_score = max(self.progress.best_score, numbers[best])
            numbers[f"val_best_{best.removeprefix('val_')}"] = self.progress.best_score
        self.log.write(step, numbers)
        self.log.write_sheet(step, sheet)


class ShowProgress(StepCallback):
    """Reports the beginning of each stage, and each step, to a display."""

    def __init__(self, display: FitDisplay) -> None:
        """Stores the display."""
        super().__init__()
        self.display = display
        self.has_begun = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reports the beginning of the fit or of its next stage."""
        if self.has_begun:
            self.display.begin_stage(self.step())
            return
        self.has_begun = True
        choice = self.model.precision
        devices = describe_devices(self.model.distribute_strategy)
        self.display.begin(self.step(), devices, f"{choice.precision} ({choice.reason})")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports a step."""
        self.display.count(self.step(), logs or {})


@contextmanager
def go_on_without(what: str) -> Iterator[None]:
    """Turns a write error, as on a full disk, into a warning, because it must not end a fit that takes hours."""
    try:
        yield
    except (OSError, RuntimeError, ImageFileError, tf.errors.OpError) as error:  # RuntimeError: h5py inside Keras
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        logger.warning("Cannot write the %s: %s. The fit goes on; free some space.", what, reason)
