"""The Keras model whose `train_step` fits a network to a `PerceptualLoss`."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_psr.losses import PerceptualLoss


class Trainer(keras.Model):
    """Fits `network` to a loss. `PerceptualLoss` is no Keras object, so VGG16 is neither trained nor saved with it."""

    def __init__(self, network: keras.Model, perceptual_loss: PerceptualLoss) -> None:
        """Wraps a network (`networks.build_network`) and its loss for `compile` and `fit`."""
        super().__init__()
        self.network = network
        self.perceptual_loss = perceptual_loss
        self.loss_means = {name: keras.metrics.Mean(name=name) for name in ("loss", *perceptual_loss.weights)}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means of the loss and of each unweighted term."""
        return list(self.loss_means.values())

    def call(self, low_res: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The network's output."""
        return self.network(low_res, training=training)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One gradient step on (low_res, high_res), uint8 or float (batch, height, width, 3) in [0, 255].

        It follows Keras's own step (keras/src/backend/tensorflow/trainer.py): the loss is divided by the number of
        replicas, whose gradients are summed, and scaled by the optimizer, which matters under mixed precision.
        """
        low_res, high_res = (ops.cast(images, "float32") for images in data)
        with tf.GradientTape() as tape:
            output = self.network(low_res, training=True)
            step = ops.convert_to_tensor(self.optimizer.iterations)
            terms = self.perceptual_loss.terms(output, high_res, step)
            loss = self.perceptual_loss.total(terms)
            num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
            scaled_loss = self.optimizer.scale_loss(loss / num_replicas)
        variables = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, variables), variables, strict=True))
        for name, value in {"loss": loss, **terms}.items():
            self.loss_means[name].update_state(value)
        return {metric.name: metric.result() for metric in self.metrics}

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on besides its batch: weights, optimizer and averages, by name."""
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
        groups = {"network": self.network.variables, "optimizer": self.optimizer.variables}
        return {
            f"{group}/{index:03d}": variable
            for group, variables in groups.items()
            for index, variable in enumerate(variables)
        }
