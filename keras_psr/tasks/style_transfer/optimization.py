"""Style transfer by optimisation: minimises the loss over the pixels of a picture. It is slow, and a baseline."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from scipy.optimize import OptimizeResult, minimize

from keras_psr.errors import ConfigError
from keras_psr.images.pixels import to_three_channels, to_uint8
from keras_psr.losses.perceptual import PerceptualLoss

SMALLEST_SIDE = 16
"""Smallest side of a picture, in pixels, which is two responses of VGG16's relu4_3."""

LARGEST_SIZE = 2_000_000
"""Largest number of pixels of a picture. For each pixel, VGG16 needs about 3 KB."""

MEMORY = 10
"""Number of steps from which L-BFGS estimates the curvature; SciPy's default."""

OnIteration = Callable[[int, float, np.ndarray], None]
"""A function of the iteration's number, the loss, and the picture, float32 (height, width, 3) in [0, 255]."""


def optimize(
    photograph: np.ndarray,
    loss: PerceptualLoss,
    iterations: int,
    *,
    start: np.ndarray | None = None,
    on_iteration: OnIteration = lambda iteration, objective, image: None,
) -> np.ndarray:
    """Minimises a loss over pixels in [0, 255] with L-BFGS.

    Args:
        photograph: The content, uint8 RGB (height, width, 3).
        loss: The loss, such as that of `task.build_objective`.
        iterations: Largest number of iterations. There are fewer if no step makes the loss smaller.
        start: The picture to begin with, of the same shape, such as `white_noise`; None for the photograph.
        on_iteration: Called after each iteration.

    Returns:
        The picture, float32 (height, width, 3) in [0, 255].

    Raises:
        ConfigError: The photograph is too small or too large, or `iterations` is below 1.

    Reference:
        Johnson et al. 2016, section 4.1: projected L-BFGS from white noise, the baseline of figure 5.

    Example:
        picture = optimize(photograph, build_objective(config), iterations=300)
    """
    height, width = photograph.shape[:2]
    if min(height, width) < SMALLEST_SIDE or height * width > LARGEST_SIZE:
        raise ConfigError(
            f"a picture to optimise must have at least {SMALLEST_SIDE} pixels on each side, and at most "
            f"{LARGEST_SIZE / 1e6:g} million in all. Received: {width}x{height}. Reduce it first."
        )
    if iterations < 1:
        raise ConfigError(f"iterations must be at least 1. Received: {iterations}.")
    target = tf.constant(photograph[None], tf.float32)
    wanted = loss.responses(target)

    @tf.function
    def objective_and_gradient(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(image)
            total = loss.total(loss.compute(image, target, wanted=wanted))
        return total, tape.gradient(total, image)

    # L-BFGS begins with a step of length 1. With levels in [0, 255], rounding to float32 would swallow it.
    def evaluate(levels: np.ndarray) -> tuple[float, np.ndarray]:
        total, gradient = objective_and_gradient(tf.constant(picture(levels)[None]))
        return float(total), 255 * np.asarray(gradient, np.float64).ravel()

    def picture(levels: np.ndarray) -> np.ndarray:
        return 255 * levels.reshape(photograph.shape).astype(np.float32)

    done = 0

    def report(intermediate_result: OptimizeResult) -> None:
        nonlocal done
        done += 1
        on_iteration(done, float(intermediate_result.fun), picture(intermediate_result.x))

    first = photograph if start is None else start
    # Without tolerances, because rounding errors of float32 would end the search early.
    options = {"maxiter": iterations, "maxfun": 20 * iterations, "maxcor": MEMORY, "ftol": 0.0, "gtol": 0.0}
    result = minimize(
        evaluate,
        first.astype(np.float64).ravel() / 255,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, 1)] * first.size,
        callback=report,
        options=options,
    )
    return picture(result.x)


def white_noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns a picture (height, width, 3) of independent levels, uniform in [0, 255], float32."""
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


class PixelOptimizer:
    """Optimisation as a function of pictures, with the interface of `upscaler.Upscaler`.

    Attributes:
        scale: 1, because the size of pictures stays the same.
        takes_16_bits: False, because pictures are optimised with 8 bits.

    Example:
        paint = PixelOptimizer(build_objective(config), iterations=300)
        painted = paint(photograph)
    """

    scale = 1
    takes_16_bits = False

    def __init__(
        self,
        loss: PerceptualLoss,
        iterations: int,
        *,
        from_noise: bool = False,
        on_iteration: Callable[[int, float], None] = lambda iteration, objective: None,
    ) -> None:
        """Stores the loss and the settings.

        Args:
            loss: As for `optimize`.
            iterations: As for `optimize`.
            from_noise: Whether to begin with white noise instead of the photograph.
            on_iteration: Called after each iteration with its number and the loss.
        """
        self.loss, self.iterations = loss, iterations
        self.from_noise, self.on_iteration = from_noise, on_iteration

    def __call__(
        self, image: np.ndarray, *, strength: float = 1.0, on_pixels: Callable[[int], None] = lambda pixels: None
    ) -> np.ndarray:
        """Paints a picture.

        Args:
            image: uint8, RGB (height, width, 3) or grey (height, width).
            strength: Share of the painted picture in the result, in [0, 1]; the rest is the picture itself.
            on_pixels: Called with the number of pixels after each iteration.

        Returns:
            A uint8 picture of the same shape. For a grey picture, it is the mean of the painted channels.

        Raises:
            ConfigError: The picture is too small, is too large, or has 16 bits.
        """
        if image.dtype != np.uint8:
            raise ConfigError("image has 16 bits per channel, but is optimised with 8. Convert it first.")
        photograph = to_three_channels(image)

        def note(iteration: int, objective: float, picture: np.ndarray) -> None:
            on_pixels(image.shape[0] * image.shape[1])
            self.on_iteration(iteration, objective)

        start = white_noise(photograph.shape) if self.from_noise else None
        painted = optimize(photograph, self.loss, self.iterations, start=start, on_iteration=note)
        mixed = strength * painted + (1 - strength) * photograph
        return to_uint8(mixed if image.ndim == 3 else mixed.mean(axis=-1))
