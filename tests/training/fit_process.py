"""A fit in a process of its own, for tests: devices must be divided and machines joined before TensorFlow starts.

Takes one argument, JSON: `out`, `settings`, and optionally `logical_cpus`, `resume`, `stop_at` (end at once, as if
killed, after that step) and `step_seconds` (sleep after each step).
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import tensorflow as tf

from keras_psr.errors import KerasPSRError
from keras_psr.training.callbacks import StepCallback
from keras_psr.training.fit import fit


class Interfere(StepCallback):
    """Sleeps, and ends the process."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(task.get("step_seconds", 0))
        if self.step() == task.get("stop_at"):
            os._exit(9)


task = json.loads(sys.argv[1])
if "logical_cpus" in task:
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * task["logical_cpus"]
    tf.config.set_logical_device_configuration(cpu, devices)
keras.config.disable_traceback_filtering()
try:
    fit(task["out"], resume=task.get("resume", False), callbacks=[Interfere()], **task["settings"])
except KerasPSRError as error:
    sys.exit(f"{type(error).__name__}: {error}")
