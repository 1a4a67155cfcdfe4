"""The optimizers that fit networks, and the decay of the learning rate."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from keras_psr.tasks.config import FitConfig, Stage

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration that moves all singular values to about 1 (kellerjordan.github.io/posts/muon)."""

ITERATIONS = 5
"""Number of Newton-Schulz iterations, as in the same source."""

MOMENTUM = 0.9
"""Decay of the momentum of the kernels' gradients. The same source has 0.95, for longer fits."""


class Muon(keras.optimizers.Adam):
    """Adam, except that the steps of convolution kernels are equally long in all directions.

    The momentum of a kernel's gradient is reshaped to a matrix, with one column per output channel, and made orthogonal
    (Jordan et al. 2024, "Muon"). It is then scaled so that the step's root mean square is about the learning rate,
    which can therefore be the same as for Adam (Liu et al. 2025, arXiv:2502.16982, section 2.2, who take a fifth of
    it). Keras's own `Muon` leaves convolution kernels to Adam.
    """

    def update_step(self, gradient: KerasTensor, variable: keras.Variable, learning_rate: KerasTensor) -> None:
        """Updates one variable; called by Keras."""
        if len(variable.shape) != 4:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum = self._momentums[self._get_variable_index(variable)]
        self.assign(momentum, MOMENTUM * momentum + gradient)
        ahead = ops.reshape(gradient + MOMENTUM * momentum, (-1, variable.shape[-1]))  # Nesterov's
        step = orthogonalize(ahead) * math.sqrt(max(ahead.shape))
        self.assign_sub(variable, learning_rate * ops.reshape(step, variable.shape))


def orthogonalize(matrix: KerasTensor) -> KerasTensor:
    """Returns a matrix with the same singular vectors, and singular values between about 0.7 and 1.2.

    Args:
        matrix: Float (rows, columns).

    Returns:
        A matrix of the same shape, whose root mean square is about 1 / sqrt(the longer side).

    Example:
        step = orthogonalize(keras.ops.reshape(gradient, (-1, gradient.shape[-1])))
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide = ops.transpose(matrix) if is_tall else matrix
    wide = wide / (ops.norm(wide) + 1e-7)
    linear, cubic, quintic = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = wide @ ops.transpose(wide)
        wide = linear * wide + (cubic * gram + quintic * gram @ gram) @ wide
    return ops.transpose(wide) if is_tall else wide


class StagedCosineDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Cosine decay from a stage's learning rate to zero, in each stage of a fit (Loshchilov & Hutter 2017, SGDR)."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Stores the stages of the fit, in order."""
        super().__init__()
        self.stages = list(stages)

    def __call__(self, step: KerasTensor) -> KerasTensor:
        """Returns the learning rate of a step, counted from 0."""
        step, learning_rate = ops.cast(step, "float32"), ops.zeros(())
        for stage in self.stages:
            done = ops.clip((step - stage.first_step) / (stage.last_step - stage.first_step), 0, 1)
            decayed = stage.config.learning_rate * (1 + ops.cos(math.pi * done)) / 2
            learning_rate = ops.where(step >= stage.first_step, decayed, learning_rate)
        return learning_rate

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"stages": self.stages}


def build_optimizer(config: FitConfig) -> keras.Optimizer:
    """Returns the optimizer of a fit, with cosine decay and averaged weights, which the paper does not have.

    Args:
        config: The settings.

    Returns:
        Muon, or Adam (the paper, section 4.2). For float16, it scales the loss.

    Example:
        optimizer = build_optimizer(SuperResolutionConfig(scale=4, steps=600))
    """
    momentum = min(config.ema_momentum, 1 - min(1.0, 10 / config.steps))
    kind = Muon if config.optimizer == "muon" else keras.optimizers.Adam
    optimizer = kind(
        StagedCosineDecay(config.stages()),
        use_ema=momentum > 0,
        ema_momentum=momentum,
    )
    return keras.optimizers.LossScaleOptimizer(optimizer) if config.precision == "float16" else optimizer
