"""Which arithmetic a fit computes in: measured on the device that will compute, not assumed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import tensorflow as tf

from keras_psr.errors import ConfigError
from keras_psr.tasks.config import FitConfig
from keras_psr.training.devices import is_multiworker

PROBE_SHAPE = (4, 48, 48, 64)
"""Batch, height, width and channels of the convolution that is timed: like the default network's and VGG16's first."""

PROBE_ROUNDS = 8
PROBE_SECONDS = 1.0
"""Times that each candidate is measured at most, and the time after which no further round begins."""

CLEAR_WIN = 0.8
"""A reduced precision is taken where it needs at most this share of float32's time, because it costs accuracy."""

SLOW = 1.25
"""A precision that needs this many times as long as float32 is said to be slow."""

MAX_ERROR = 0.02
"""Largest error of a gradient, relative to float32's in the root mean square; bfloat16 has .003."""

BFLOAT16_CAPABILITY = (8, 0)
"""NVIDIA's compute capability from which on GPUs have bfloat16 (Ampere)."""


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of a fit.

    Attributes:
        precision: `float32`, `bfloat16` or `float16`.
        reason: Why, as a part of a sentence.
        warning: What the user should know, such as that it is slow here; empty for nothing.
    """

    precision: str
    reason: str
    warning: str = ""


@dataclass(frozen=True)
class Probe:
    """What a convolution and its gradients took.

    Attributes:
        seconds: Time of a forward and a backward pass.
        gradients: Of the input and of the kernel, in float32.
    """

    seconds: float
    gradients: tuple[np.ndarray, np.ndarray]


def choose_precision(
    config: FitConfig, strategy: tf.distribute.Strategy, began_with: str | None = None
) -> PrecisionChoice:
    """Returns the precision that a fit computes in.

    `auto` takes bfloat16 on GPUs that have it. On other devices it times a convolution with its gradients (well under
    three seconds) and takes bfloat16 where that is clearly faster than float32 and as accurate as bfloat16 should be.
    Where a measurement must not decide, on several machines and in deterministic fits, it takes float32.

    Args:
        config: The settings of the fit.
        strategy: What the fit computes on.
        began_with: The precision of the run that is resumed, which is kept.

    Raises:
        ConfigError: The precision that was asked for cannot be computed here.
    """
    device = _computing_device(strategy)
    wanted = began_with or config.precision
    if wanted == "float32":
        return PrecisionChoice("float32", "as the run began" if began_with else "as set")
    if wanted != "auto":
        return _check_choice(wanted, device, "as the run began" if began_with else "as set")
    if "GPU" in device:
        return _choose_for_gpu(device)
    if is_multiworker(strategy):
        return PrecisionChoice("float32", "the same on all machines")
    if config.deterministic:
        return PrecisionChoice("float32", "deterministic fits do not depend on a measurement")
    return _choose_by_time(device)


def _computing_device(strategy: tf.distribute.Strategy) -> str:
    """Returns TensorFlow's name of the first device that computes; the default strategy cannot tell."""
    if strategy.num_replicas_in_sync > 1 or is_multiworker(strategy):
        return str(strategy.extended.worker_devices[0])
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return str(devices[0].name)


def _choose_by_time(device: str) -> PrecisionChoice:
    probes = probe(device)
    reference, reduced = probes["float32"], probes.get("bfloat16")
    if reduced is None:
        return PrecisionChoice("float32", "this device does not compute bfloat16")
    error = _relative_error(reduced, reference)
    if not error <= MAX_ERROR:
        return PrecisionChoice("float32", f"gradients in bfloat16 are off by {error:.1%} here")
    ratio = reference.seconds / reduced.seconds
    if reduced.seconds > CLEAR_WIN * reference.seconds:
        return PrecisionChoice("float32", f"bfloat16 is {ratio:.2g} times as fast here")
    return PrecisionChoice("bfloat16", f"{ratio:.2g} times as fast as float32 here")


def _choose_for_gpu(device: str) -> PrecisionChoice:
    index = int(device.rsplit(":", 1)[1])
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[index])
    capability = details.get("compute_capability", (0, 0))
    if capability >= BFLOAT16_CAPABILITY:
        return PrecisionChoice("bfloat16", f"{details.get('device_name', 'the GPU')} has it in hardware")
    return PrecisionChoice("float32", f"{details.get('device_name', 'the GPU')} has no bfloat16 in hardware")


def _check_choice(precision: str, device: str, reason: str) -> PrecisionChoice:
    """Returns a choice that the user made, with a warning if float32 is faster."""
    if "GPU" in device:
        return PrecisionChoice(precision, reason)
    if precision == "float16":  # not measured: one step of the probe takes half a minute
        return PrecisionChoice(precision, reason, "float16 is for GPUs: processors take a hundred times as long.")
    probes = probe(device)
    if precision not in probes:
        raise ConfigError(f"precision {precision} cannot be computed on this device, {device}. Use auto or float32.")
    ratio = probes[precision].seconds / probes["float32"].seconds
    warning = f"{precision} takes {ratio:.2g} times as long as float32 on this device." if ratio > SLOW else ""
    return PrecisionChoice(precision, reason, warning)


@cache
def probe(device: str) -> dict[str, Probe]:
    """Times a convolution and its gradients in float32 and in bfloat16, in turns, so that other load meets both.

    Args:
        device: TensorFlow's name of the device.

    Returns:
        What each took; a precision that the device refuses is left out.
    """
    batch, height, width, channels = PROBE_SHAPE
    generator = np.random.default_rng(0)
    image = generator.standard_normal((batch, height, width, channels), np.float32)
    kernel = generator.standard_normal((3, 3, channels, channels), np.float32) / (3 * channels**0.5)
    with tf.device(device):
        tensors = tf.constant(image), tf.constant(kernel)
        steps = {precision: _build_step(tf.as_dtype(precision)) for precision in ("float32", "bfloat16")}
        for precision in list(steps):
            try:
                _run(steps[precision], tensors)  # compiles
            except tf.errors.OpError:  # oneDNN refuses bfloat16 where a processor cannot compute it
                del steps[precision]
        begin = time.perf_counter()
        found: dict[str, Probe] = {}
        for _ in range(PROBE_ROUNDS):
            for precision, step in steps.items():
                measured = _run(step, tensors)
                found[precision] = min(measured, found.get(precision, measured), key=lambda probe: probe.seconds)
            if time.perf_counter() - begin > PROBE_SECONDS:
                break
    return found


def _build_step(dtype: tf.DType) -> Callable[[tf.Tensor, tf.Tensor], list[tf.Tensor]]:
    @tf.function
    def step(image: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([image, kernel])
            output = tf.nn.conv2d(tf.cast(image, dtype), tf.cast(kernel, dtype), 1, "SAME")
            loss = tf.reduce_mean(tf.square(tf.cast(output, tf.float32)))
        return tape.gradient(loss, [image, kernel])

    return step


def _run(step: Callable[[tf.Tensor, tf.Tensor], list[tf.Tensor]], tensors: tuple[tf.Tensor, tf.Tensor]) -> Probe:
    start = time.perf_counter()
    of_image, of_kernel = (gradient.numpy() for gradient in step(*tensors))
    return Probe(time.perf_counter() - start, (of_image, of_kernel))


def _relative_error(found: Probe, reference: Probe) -> float:
    """Returns the larger error of both gradients; NaN where one is not a number."""
    errors = [
        float(np.linalg.norm(one - other) / np.linalg.norm(other))
        for one, other in zip(found.gradients, reference.gradients, strict=True)
    ]
    return float(np.max(errors))
