"""What happens beside the gradient steps of a fit: progress, log, validation, checkpoints and the guard against NaN."""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_psr.errors import TrainingError
from keras_psr.image_files import write_image
from keras_psr.training.run_folder import RunFolder

LOG_EVERY = 50
"""Steps whose losses are averaged into one line of the log."""

Validation = Callable[[keras.Model], tuple[dict[str, float], np.ndarray]]
"""Scores a network: numbers by name, each beginning with `val_`, and a sheet of pictures, uint8 RGB."""

OnLog = Callable[[int, dict[str, float]], None]
"""Called with the step and the numbers that were logged there."""


class StepCallback(keras.callbacks.Callback):
    """A callback that knows the number of gradient steps done, over all sessions of a run."""

    def step(self) -> int:
        """Gradient steps done."""
        return int(self.model.optimizer.iterations)


class StopOnNaN(StepCallback):
    """Ends the fit with a message when the loss is no longer a finite number."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the running mean, which one bad step makes NaN."""
        bad = [name for name, value in (logs or {}).items() if not math.isfinite(float(value))]
        if bad:
            raise _diverged(self.step(), ", ".join(bad))


class Log(StepCallback):
    """Appends the mean losses of every `LOG_EVERY` steps, and whatever it is told, to `log.jsonl` and TensorBoard."""

    def __init__(self, run: RunFolder, batch_size: int, last: int, on_log: OnLog) -> None:
        """Opens the files of a run folder; the step `last` ends the fit, and `on_log` hears of each line too."""
        super().__init__()
        self.run, self.batch_size, self.last, self.on_log = run, batch_size, last, on_log
        self.writer = tf.summary.create_file_writer(str(run.tensorboard))
        self.clock: tuple[int, float] | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the losses since the last line and starts new means."""
        step = self.step()
        if self.clock is None:  # starts behind the first step, which compiles
            self.restart_clock()
        if step % LOG_EVERY and step != self.last:
            return
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        steps_before, time_before = self.clock or (step, 0.0)
        if step > steps_before:
            numbers["crops_per_second"] = (step - steps_before) * self.batch_size / (time.perf_counter() - time_before)
        self.restart_clock()
        self.write(step, numbers)
        for metric in self.model.metrics:
            metric.reset_state()

    def restart_clock(self) -> None:
        """Leaves what happened since the last step out of the rate."""
        self.clock = (self.step(), time.perf_counter())

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Appends one line of numbers; those that are not defined, such as a flat picture's ratios, are left out."""
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        with self.run.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        with self.writer.as_default(step=step):
            for name, value in numbers.items():
                tf.summary.scalar(name, value)
        self.writer.flush()
        self.on_log(step, numbers)

    def write_sheet(self, step: int, sheet: np.ndarray) -> None:
        """Shows a sheet in TensorBoard."""
        with self.writer.as_default(step=step):
            tf.summary.image("sheet", sheet[None])
        self.writer.flush()


class SaveAndValidate(StepCallback):
    """Every so many steps, and at the last: writes a checkpoint, the averaged network, its scores and a sheet."""

    def __init__(
        self, run: RunFolder, averaged: keras.Model, validation: Validation, log: Log, every: int, last: int
    ) -> None:
        """Takes what it calls: the run folder, the network that receives the averaged weights, and the log."""
        super().__init__()
        self.run, self.averaged, self.validation, self.log = run, averaged, validation, log
        self.every, self.last = every, last

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves when it is time."""
        step = self.step()
        if step % self.every and step != self.last:
            return
        state = self.model.state()
        if not all(np.isfinite(values).all() for values in state.values()):
            raise _diverged(step, "a weight")  # a ReLU can hide it from the loss
        self.run.save_checkpoint(step, state)
        self.model.copy_average_to(self.averaged)
        self.run.save_network(self.averaged)
        numbers, sheet = self.validation(self.averaged)
        self.log.write(step, numbers)
        self.log.write_sheet(step, sheet)
        write_image(self.run.samples / f"step-{step:08d}.png", sheet)
        self.log.restart_clock()


def _diverged(step: int, what: str) -> TrainingError:
    return TrainingError(
        f"The fit diverged at step {step}: {what} is not finite. The last checkpoint is kept; start anew with a "
        "smaller --learning-rate."
    )
