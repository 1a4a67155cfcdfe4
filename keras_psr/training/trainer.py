"""The Keras model whose `train_step` fits a network to a `PerceptualLoss`."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_psr.losses import PerceptualLoss
from keras_psr.training.devices import is_multiworker


class Trainer(keras.Model):
    """Fits `network` to a loss. `PerceptualLoss` is no Keras object, so VGG16 is neither trained nor saved with it.

    Attributes:
        network: The network.
        perceptual_loss: The weighted terms.
        steps_done: Gradient steps done, over all sessions of a run. The optimizer's own number leaves out those that
            float16 skips because a gradient overflows.
    """

    def __init__(self, network: keras.Model, perceptual_loss: PerceptualLoss) -> None:
        """Wraps a network (`networks.build_network`) and its loss for `compile` and `fit`."""
        super().__init__()
        self.network = network
        self.perceptual_loss = perceptual_loss
        self.steps_done = 0
        self.loss_means = {name: keras.metrics.Mean(name=name) for name in ("loss", *perceptual_loss.weights)}
        self.built = True  # a strategy for several machines cannot build it within `fit`

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means of the loss and of each unweighted term."""
        return list(self.loss_means.values())

    def call(self, low_res: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The network's output."""
        return self.network(low_res, training=training)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One gradient step on (input, target), uint8 or float (batch, height, width, 3) in [0, 255].

        It follows Keras's own step (keras/src/backend/tensorflow/trainer.py): the loss is divided by the number of
        replicas, whose gradients are summed, and scaled by the optimizer, which matters under float16.
        """
        pictures, targets = (ops.cast(images, "float32") for images in data)
        with tf.GradientTape() as tape:
            output = self.network(pictures, training=True)
            terms = self.perceptual_loss.terms(output, targets, ops.convert_to_tensor(self.optimizer.iterations))
            loss = self.perceptual_loss.total(terms)
            num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
            scaled_loss = self.optimizer.scale_loss(loss / num_replicas)
        variables = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, variables), variables, strict=True))
        for name, value in {"loss": loss, **terms}.items():
            self.loss_means[name].update_state(value)
        # Keras averages what replicas return over their first axis, which fails for scalars on several machines (keras
        # issue 20585; tests/test_distribution.py tells when this is mended).
        several = is_multiworker(self.distribute_strategy)
        return {metric.name: metric.result()[None] if several else metric.result() for metric in self.metrics}

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step and log line depend on besides the batch, by name."""
        return {name: np.asarray(variable) for name, variable in self._state_variables().items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Takes up a `state()`; the optimizer must have been built."""
        for name, variable in self._state_variables().items():
            variable.assign(state[name])

    def copy_average_to(self, network: keras.Model) -> None:
        """Gives another network of the same architecture the averaged weights (the current ones without averaging)."""
        network.set_weights(self.network.get_weights())
        self.optimizer.finalize_variable_values(network.trainable_variables)

    def _state_variables(self) -> dict[str, keras.Variable]:
        groups = {
            "network": self.network.variables,
            "optimizer": self.optimizer.variables,
            "means": [variable for metric in self.metrics for variable in metric.variables],
        }
        return {
            f"{group}/{index:03d}": variable
            for group, variables in groups.items()
            for index, variable in enumerate(variables)
        }
