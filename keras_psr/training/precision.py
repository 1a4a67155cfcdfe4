"""The choice of a fit's precision, which is measured on its device and not assumed."""

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
"""Batch, height, width and channels of the timed convolution, as in the default network and in VGG16's first layers."""

PROBE_ROUNDS = 8
"""Maximum number of measurements of each precision."""

PROBE_SECONDS = 1.0
"""Time after which no further round of measurements begins."""

CLEAR_WIN = 0.8
"""A reduced precision must take at most this share of float32's time, because it costs accuracy."""

SLOW = 1.25
"""A precision that takes more than this many times as long as float32 leads to a warning."""

MAX_ERROR = 0.02
"""Largest accepted error of a gradient: the root mean square relative to float32's. For bfloat16 it is .003."""

BFLOAT16_CAPABILITY = (8, 0)
"""Lowest compute capability of NVIDIA GPUs with bfloat16 (Ampere)."""


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of a fit, and why it was chosen.

    Attributes:
        precision: `float32`, `bfloat16` or `float16`.
        reason: The reason, as part of a sentence.
        warning: A warning for the user, such as that this precision is slow here; empty if there is none.
    """

    precision: str
    reason: str
    warning: str = ""


@dataclass(frozen=True)
class Probe:
    """The result of timing a convolution and its gradients.

    Attributes:
        seconds: Time of a forward and a backward pass.
        gradients: The gradients of the input and of the kernel, in float32.
    """

    seconds: float
    gradients: tuple[np.ndarray, np.ndarray]


def choose_precision(
    config: FitConfig, strategy: tf.distribute.Strategy, began_with: str | None = None
) -> PrecisionChoice:
    """Chooses the precision of a fit.

    `auto` means bfloat16 on GPUs that have it. On other devices, a convolution with its gradients is timed, which takes
    well under three seconds, and bfloat16 is chosen if it is clearly faster than float32 and as accurate as it should
    be. Fits on several machines and deterministic fits must not depend on a measurement, and use float32.

    Args:
        config: The settings of the fit.
        strategy: The strategy of the fit.
        began_with: The precision of a run that is resumed, which is kept; None for a new run.

    Returns:
        The precision with its reason.

    Raises:
        ConfigError: The device does not support the requested precision.

    Example:
        choice = choose_precision(config, tf.distribute.get_strategy())
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
    """Returns TensorFlow's name for the first device of a fit, which the default strategy does not know."""
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
    """Returns the precision that the user has set, with a warning if float32 is faster."""
    if "GPU" in device:
        return PrecisionChoice(precision, reason)
    if precision == "float16":  # not measured, because one step of the probe takes half a minute
        return PrecisionChoice(precision, reason, "float16 is for GPUs: processors take a hundred times as long.")
    probes = probe(device)
    if precision not in probes:
        raise ConfigError(f"precision {precision} is not supported by this device, {device}. Use auto or float32.")
    ratio = probes[precision].seconds / probes["float32"].seconds
    warning = f"{precision} takes {ratio:.2g} times as long as float32 on this device." if ratio > SLOW else ""
    return PrecisionChoice(precision, reason, warning)


@cache
def probe(device: str) -> dict[str, Probe]:
    """Times a convolution and its gradients in float32 and in bfloat16, in turns, so that other load affects both.

    Args:
        device: TensorFlow's name for the device.

    Returns:
        The results by precision, without one that the device does not support.

    Example:
        seconds = probe("CPU:0")["bfloat16"].seconds
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
            except tf.errors.OpError:  # oneDNN refuses bfloat16 on processors without it
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
    """Returns the larger error of both gradients; NaN if one is not a number."""
    errors = [
        float(np.linalg.norm(one - other) / np.linalg.norm(other))
        for one, other in zip(found.gradients, reference.gradients, strict=True)
    ]
    return float(np.max(errors))
