"""The devices and machines that a fit uses."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from keras_psr.environment import available_cores
from keras_psr.errors import ConfigError, TrainingError

NVIDIA_DRIVER = ("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1")
"""Files that show that a driver is installed: on Linux, and on Linux inside Windows (WSL2)."""

log = logging.getLogger(__name__)


def build_strategy(name: str, devices: Sequence[str], batch_sizes: Sequence[int]) -> tf.distribute.Strategy:
    """Builds the TensorFlow strategy of a fit.

    Call it before TensorFlow does anything else, because several machines require that.

    Args:
        name: `none` for one device; `mirrored` for all GPUs; `multiworker` for the machines in the environment variable
            TF_CONFIG, with all GPUs of each; `auto` for all GPUs if there are several, else one device.
        devices: Devices that `auto` and `mirrored` are limited to, such as `("GPU:0", "GPU:2")`; empty for all.
        batch_sizes: Samples per step in each stage of the fit, which the replicas share.

    Returns:
        The strategy.

    Raises:
        ConfigError: A device does not exist, a batch cannot be divided equally, or TF_CONFIG is missing or wrong.
        TrainingError: The other machines cannot be reached.

    Example:
        strategy = build_strategy("auto", devices=(), batch_sizes=[16])
    """
    if devices and name not in ("auto", "mirrored"):
        raise ConfigError(f"devices go only with the strategies auto and mirrored. Received: strategy {name}.")
    if name == "multiworker":
        strategy = _build_multiworker()
    elif name == "mirrored" or devices or (name == "auto" and len(tf.config.list_physical_devices("GPU")) > 1):
        strategy = tf.distribute.MirroredStrategy(_check_devices(devices) or None)
    else:
        strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    for batch_size in batch_sizes:
        if batch_size % replicas:
            raise ConfigError(
                f"batch_size must be a multiple of the number of devices, {replicas}. Received: {batch_size}."
            )
    return strategy


def is_multiworker(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy spans several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes files."""
    if not is_multiworker(strategy):
        return True
    resolver = strategy.cluster_resolver
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return resolver.task_type == chief and resolver.task_id == 0


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """Returns a description of a fit's devices, such as `GPU:0 (NVIDIA H100)` or `the CPU (2 cores)`."""
    if isinstance(strategy, tf.distribute.MirroredStrategy | tf.distribute.MultiWorkerMirroredStrategy):
        names = [name.split("device:")[-1] for name in strategy.extended.worker_devices]
    else:
        names = ["GPU:0"] if tf.config.list_physical_devices("GPU") else ["CPU:0"]
    devices = ", ".join(dict.fromkeys(map(_describe_device, names)))
    if not is_multiworker(strategy):
        return devices
    addresses = strategy.cluster_resolver.cluster_spec().as_dict().values()
    return f"{sum(map(len, addresses))} machines, this one on {devices}"


def _describe_device(name: str) -> str:
    kind, number = name.split(":")
    if kind == "CPU":
        cores = available_cores()
        return f"the CPU ({cores} core{'s' if cores > 1 else ''})"
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices(kind)[int(number)])
    return f"{name} ({details.get('device_name', 'unknown')})"


def warn_of_unused_gpu() -> None:
    """Warns if there is an NVIDIA driver but TensorFlow sees no GPU, unless CUDA_VISIBLE_DEVICES hides it."""
    if tf.config.list_physical_devices("GPU") or os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return
    found = [path for path in (*NVIDIA_DRIVER, shutil.which("nvidia-smi")) if path and Path(path).exists()]
    if not found:
        return
    if sys.platform == "win32":
        remedy = "TensorFlow has no GPU on Windows itself; install keras-psr in WSL2"
    else:
        remedy = "pip install 'keras-psr[cuda]' brings what TensorFlow needs for a GPU"
    log.warning(
        "There is an NVIDIA driver here (%s), but TensorFlow sees no GPU, and the fit computes on the CPU. %s.",
        found[0],
        remedy,
    )


def _check_devices(devices: Sequence[str]) -> list[str]:
    known = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    unknown = [device for device in devices if device not in known]
    if unknown:
        raise ConfigError(f"devices must be among {', '.join(known)}. Received: {', '.join(unknown)}.")
    return list(devices)


def _build_multiworker() -> tf.distribute.Strategy:
    text = os.environ.get("TF_CONFIG", "")
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        settings = json.loads(text)
        workers = settings["cluster"][settings["task"]["type"]]
        workers[int(settings["task"]["index"])]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            f"strategy multiworker needs the environment variable TF_CONFIG, such as {example}. Received: {text!r}."
        ) from error
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"The machines of TF_CONFIG cannot be reached: {reason}") from error
