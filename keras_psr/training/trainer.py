"""The Keras model whose `train_step` fits a network to a `PerceptualLoss`."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.training.adversary import Adversary
from keras_psr.training.devices import is_multiworker
from keras_psr.training.precision import PrecisionChoice
from keras_psr.training.second_frame import second_frame


class Trainer(keras.Model):
    """Fits a network to a loss. `PerceptualLoss` is not a Keras object, so VGG16 is neither fitted nor saved.

    Attributes:
        network: The network.
        perceptual_loss: The weighted loss terms.
        adversary: The discriminators; None for a fit without an adversarial loss.
        steps_done: Number of gradient steps done, over all sessions of a run. The optimizer's own count leaves out
            steps that float16 skips because a gradient overflows.
        precision: The precision of the fit and the reason for it, for callbacks that show them; None if not chosen.
    """

    def __init__(
        self, network: keras.Model, perceptual_loss: PerceptualLoss, adversary: Adversary | None = None
    ) -> None:
        """Wraps a network and its loss for `compile` and `fit`.

        On several machines, call this outside the strategy's scope, and `compile` and `fit` inside it. If a model is
        made inside, `fit` builds it from a first batch, whose tensors Keras fails to reduce (keras issue 20585).
        """
        super().__init__()
        self.network = network
        self.perceptual_loss = perceptual_loss
        self.adversary = adversary
        self.steps_done = 0
        self.precision: PrecisionChoice | None = None
        self.built = True

    def call(self, low_res: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the network's output."""
        return self.network(low_res, training=training)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Takes a gradient step.

        As in Keras's own step (keras/src/backend/tensorflow/trainer.py), the loss is divided by the number of replicas,
        because their gradients are summed, and scaled by the optimizer, which matters for float16.

        Args:
            data: Inputs and targets, uint8 or float (batch, height, width, 3) in [0, 255].

        Returns:
            The loss and each unweighted term, which Keras averages over replicas.
        """
        pictures, targets = (ops.cast(images, "float32") for images in data)
        step = ops.convert_to_tensor(self.optimizer.iterations)
        adversary = self.adversary if self.perceptual_loss.is_adversarial else None
        with tf.GradientTape(persistent=adversary is not None) as tape:
            output, twin = self._outputs(pictures, targets.shape, step)
            comparison = self.perceptual_loss.compare(output, targets, step, twin=twin)
            if adversary:
                comparison = adversary.judge(comparison, step)
            terms = self.perceptual_loss.errors(comparison)
            loss = self.perceptual_loss.total(terms)
            num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
            scaled_loss = self.optimizer.scale_loss(loss / num_replicas)
        variables = self.network.trainable_variables
        if adversary:
            gradients = tape.gradient(output, variables, adversary.gradient_at_output(tape, scaled_loss, comparison))
            terms |= adversary.learn(tape, comparison)
        else:
            gradients = tape.gradient(scaled_loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        # On several machines, Keras averages what replicas return over a first axis, which scalars do not have (keras
        # issue 20585; a test in tests/training/test_devices.py fails when Keras is mended).
        several = is_multiworker(tf.distribute.get_strategy())
        return {name: value[None] if several else value for name, value in {"loss": loss, **terms}.items()}

    def _outputs(
        self, pictures: tf.Tensor, shape: tf.TensorShape, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns the outputs for the pictures and, if the loss needs them, for second frames of half of them.

        One pass computes both, so that batch norm takes the same statistics for both.
        """
        if not self.perceptual_loss.needs_twin:
            return _middle(self.network(pictures, training=True), shape), None
        count = tf.shape(pictures)[0]
        frames, motion = second_frame(pictures[: (count + 1) // 2], step)
        outputs = self.network(tf.concat([pictures, frames], axis=0), training=True)
        return _middle(outputs[:count], shape), _middle(outputs[count:], shape, motion)

    def use_loss(self, perceptual_loss: PerceptualLoss) -> None:
        """Replaces the loss, for the next stage of a fit."""
        self.perceptual_loss = perceptual_loss
        self.train_function = None  # otherwise Keras would continue with the traced step

    def state(self) -> dict[str, np.ndarray]:
        """Returns all that the next step depends on besides its batch: weights, optimizer and averages, by name."""
        return {name: _read(variable) for name, variable in self._state_variables().items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restores what `state` returned. The optimizer must have been built."""
        for name, variable in self._state_variables().items():
            variable.assign(state[name])

    def copy_average_to(self, network: keras.Model) -> None:
        """Copies the averaged weights, or the current ones without averaging, to a network of the same architecture."""
        # The averages take the way through this network, because under a strategy the optimizer writes only to its own
        # variables.
        current = [_read(variable) for variable in self.network.trainable_variables]
        self.optimizer.finalize_variable_values(self.network.trainable_variables)
        network.set_weights([_read(variable) for variable in self.network.variables])
        for variable, value in zip(self.network.trainable_variables, current, strict=True):
            variable.assign(value)

    def _state_variables(self) -> dict[str, keras.Variable]:
        groups = {"network": self.network.variables, "optimizer": self.optimizer.variables}
        if self.adversary:
            groups["discriminators"] = self.adversary.discriminators.variables
            groups["discriminators_optimizer"] = self.adversary.optimizer.variables
        return {
            f"{group}/{index:03d}": variable
            for group, variables in groups.items()
            for index, variable in enumerate(variables)
        }


def _middle(output: tf.Tensor, shape: tf.TensorShape, motion: Sequence[int] = (0, 0)) -> tf.Tensor:
    """Returns the middle of an output, moved by some pixels; it may show more than the target, whose shape is given."""
    margin = (output.shape[1] - shape[1]) // 2
    begin = (0, margin + motion[0], margin + motion[1], 0)
    return tf.slice(output, begin, (-1, *shape[1:]))  # the batch's size is unknown on several machines


def _read(variable: keras.Variable) -> np.ndarray:
    """Returns this process's copy of a variable. Any other way of reading it waits until all machines read it."""
    return np.asarray(tf.distribute.get_strategy().experimental_local_results(variable.value)[0])
