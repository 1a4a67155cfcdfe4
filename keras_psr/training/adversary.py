"""The opponent of a network in a fit with an adversarial loss: discriminators that learn while the network does."""

from dataclasses import replace

import keras
import tensorflow as tf
from keras import ops

from keras_psr.constants import DISCRIMINATOR_GRID
from keras_psr.losses.discriminators import JUDGED_LAYERS, PICTURE, build_discriminators, picture_bands
from keras_psr.losses.functional import relativistic_loss, texture_map, without_lattice
from keras_psr.losses.terms import Comparison, Verdict
from keras_psr.tasks.config import Stage
from keras_psr.training.optimizer import StagedCosineDecay

LEARNING_RATE = 1e-3
"""Peak of the discriminators' learning rate: our own choice. They must learn faster than the network changes."""

BETA_1, BETA_2 = 0.5, 0.99
"""Adam's decays for the discriminators; short, because the network that they judge changes with each step."""

RANGE = 2.0**16
"""Factor that keeps the adversarial gradient within the range of float16 inside VGG16; it is scaled afterwards."""


class Adversary:
    """Judges the outputs of a network, draws them towards originals, and learns in each step.

    Attributes:
        weight: Norm of the adversarial gradient at the output, divided by that of all other terms.
        period: Period of the network's upsampling lattice, in pixels.
        discriminators: The networks (`losses.discriminators`).
        optimizer: Their optimizer.

    Example:
        adversary = Adversary(1.0, 4, SuperResolutionConfig(scale=4, steps=2000).stages()[-1])
    """

    def __init__(self, weight: float, period: int, stage: Stage, dtype: str = "float32") -> None:
        """Creates discriminators and optimizer. Under a strategy, call this inside its scope.

        Args:
            weight: As in `terms.adversarial_loss`.
            period: Period of the network's upsampling lattice, in pixels.
            stage: The stage of the fit with the adversarial loss. The discriminators' learning rate decays over it.
            dtype: Keras dtype policy of the discriminators.
        """
        self.weight, self.period = weight, period
        self.discriminators = build_discriminators(dtype)
        own = replace(
            stage,
            config=replace(stage.config, learning_rate=LEARNING_RATE),
            first_step=0,
            last_step=stage.last_step - stage.first_step,
        )
        self.optimizer = keras.optimizers.Adam(StagedCosineDecay([own]), beta_1=BETA_1, beta_2=BETA_2)
        self.optimizer.build(self.discriminators.trainable_variables)

    def judge(self, comparison: Comparison, step: tf.Tensor) -> Comparison:
        """Returns a comparison with the discriminators' verdict. Pictures are shifted from step to step.

        Args:
            comparison: Pictures and responses.
            step: Number of gradient steps so far.
        """
        images = _shifted(ops.concatenate([comparison.output, comparison.target]), step)
        responses = {name: ops.concatenate([comparison.found[name], comparison.wanted[name]]) for name in JUDGED_LAYERS}
        decisions = self.discriminators({PICTURE: picture_bands(images), **responses})
        pairs = {name: ops.split(decision, 2) for name, decision in decisions.items()}
        losses = [relativistic_loss(original, output) for output, original in pairs.values()]
        right = [ops.mean(original > output) for output, original in pairs.values()]
        verdict = Verdict(
            generator_losses={name: relativistic_loss(output, original) for name, (output, original) in pairs.items()},
            discriminator_loss=sum(losses) / len(losses),
            accuracy=sum(right) / len(right),
        )
        return replace(comparison, verdict=verdict)

    def gradient_at_output(self, tape: tf.GradientTape, loss: tf.Tensor, comparison: Comparison) -> tf.Tensor:
        """Returns the gradient of all terms at the network's output, (batch, height, width, 3).

        The discriminator of the picture and those of responses have an equal say, and only where the original has
        texture: in skies and skin, whatever they ask for looks like noise or a mesh. What repeats with the upsampling
        lattice is left out, because a grid is what a network adds most easily. All devices use the same factors, so
        that several take the same steps as one.

        Args:
            tape: The persistent tape of the step.
            loss: The weighted sum of all other terms.
            comparison: What `judge` returned.
        """
        assert comparison.verdict is not None, "no discriminator has seen the pictures"
        output, losses = comparison.output, comparison.verdict.generator_losses
        texture = texture_map(comparison.target)
        of_others = tape.gradient(loss, output)
        of_discriminators = [
            texture * tape.gradient([losses[name] for name in names], output, [tf.constant(RANGE)] * len(names))
            for names in ([PICTURE], JUDGED_LAYERS)
        ]
        of_discriminators = [without_lattice(one, texture, self.period) for one in of_discriminators]
        norms = _norms(of_discriminators)
        together = sum(ops.divide_no_nan(one, norm) for one, norm in zip(of_discriminators, norms, strict=True))
        norm_of_others, norm = _norms([of_others, together])
        return of_others + self.weight * ops.divide_no_nan(norm_of_others, norm) * together

    def learn(self, tape: tf.GradientTape, comparison: Comparison) -> dict[str, tf.Tensor]:
        """Takes a gradient step of the discriminators, and returns their loss and accuracy by name, for the log."""
        assert comparison.verdict is not None, "no discriminator has seen the pictures"
        verdict = comparison.verdict
        variables = self.discriminators.trainable_variables
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        gradients = tape.gradient(verdict.discriminator_loss, variables)
        gradients = [gradient / num_replicas for gradient in gradients]  # which are summed
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"discriminator_loss": verdict.discriminator_loss, "discriminator_accuracy": verdict.accuracy}


def _shifted(image: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Returns the part of pictures that begins at each position in a cell of the discriminator's grid in turn."""
    rows, columns = ((side - DISCRIMINATOR_GRID + 1) // DISCRIMINATOR_GRID for side in image.shape[1:3])
    step = tf.cast(step, tf.int32)
    begin = (0, step % DISCRIMINATOR_GRID, step // DISCRIMINATOR_GRID % DISCRIMINATOR_GRID, 0)
    size = (-1, rows * DISCRIMINATOR_GRID, columns * DISCRIMINATOR_GRID, 3)
    return tf.ensure_shape(tf.slice(image, begin, size), (None, *size[1:]))


def _norms(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the norm of each tensor over the batch of all devices."""
    squares = tf.stack([tf.reduce_sum(tf.square(tensor)) for tensor in tensors])
    return tf.unstack(tf.sqrt(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, squares)))
