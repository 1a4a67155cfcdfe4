"""Lets the last convolution of a file with 8 bits enlarge the picture as well.

A network adds details to its bilinearly enlarged input. With 8 bits, the enlarged picture, the details and their sum
would be rounded one after the other. Enlarging bilinearly is a transposed convolution, too, with a kernel twice as
large as its stride, as the exit of `fast` has. So the exit can read the picture as further channels, and only its
result is rounded. The file has two operators fewer, on the largest tensors, and is faster.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from keras_psr.export.equalization import find_concatenated
from keras_psr.export.operators import in_phases
from keras_psr.networks.layer_kinds import side
from keras_psr.networks.receptive_field import walk_layers

CENTRE = 128
"""Subtracted from the picture, so that its values have the range of 8 bits with a sign: one scale for all channels."""

COPIES = 2
"""The picture's channels are read twice, because weights of up to 1 are large beside those of the responses."""

LARGEST = 127
"""Largest weight as an integer; TFLite's weights are symmetric."""


@dataclass(frozen=True)
class Enlargement:
    """The layers with which a network enlarges its input and adds details to it.

    Attributes:
        features: The sum that the exit reads, in a file as summands and channels of the picture.
        exit: Makes the details, in a file the whole result.
        upsampling: Enlarges the input; not in a file.
        addition: Adds both; not in a file.
    """

    features: layers.Add
    exit: layers.Conv2DTranspose
    upsampling: layers.UpSampling2D
    addition: layers.Add

    def find_steps(self, kernel: np.ndarray) -> np.ndarray:
        """Returns the steps of the exit's weights, one for each output channel.

        Each is one over a whole number, so that the weights of a grey area can add up to exactly 1.

        Args:
            kernel: The exit's kernel as a convolution that computes phases, (height, width, inputs, outputs).
        """
        # The correction of the largest weight in `round_kernel` has at most one unit for each of the other three.
        pictures = self._kernel().max(axis=(0, 1, 2)) / (COPIES * LARGEST - 3)
        coarsest = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)) / LARGEST, pictures)
        return 1 / np.maximum(np.floor(1 / coarsest), 1)

    def round_kernel(self, steps: np.ndarray) -> np.ndarray:
        """Returns the kernel for the copies of the picture, (height, width, inputs, outputs).

        Its values are multiples of the steps, at most 127 of them, and one of each output channel is exactly that, so
        that TFLite's converter finds the same steps. The weights of an output channel add up to 1.

        Args:
            steps: Of the output channels, from `find_steps`.
        """
        kernel = self._kernel()
        units = np.rint(kernel / steps).reshape(-1, len(steps))
        largest, channels = units.argmax(axis=0), np.arange(len(steps))
        units[largest, channels] += np.rint(1 / steps) - units.sum(axis=0)
        first = np.minimum(units, LARGEST)
        first[largest, channels] = LARGEST
        return np.concatenate([(copy * steps).reshape(kernel.shape) for copy in (first, units - first)], axis=2)

    def _kernel(self) -> np.ndarray:
        """Returns the kernel that enlarges a picture, as a convolution that computes phases."""
        scale = side(self.upsampling, "size")
        triangle = 1 - np.abs(np.arange(2 * scale) + 0.5 - scale) / scale
        return in_phases(np.multiply.outer(np.outer(triangle, triangle), np.eye(3)), scale)


def find_enlargement(network: keras.Model) -> Enlargement | None:
    """Returns how a network enlarges its input; None if its exit cannot do that as well.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged or painted picture.

    Example:
        find_enlargement(keras_psr.build_network("fast")).exit.name  # exit
    """
    makers = {id(output): (layer, inputs) for layer, inputs, output in walk_layers(network)}
    addition, summands = makers[id(network.output)]
    if not isinstance(addition, layers.Add) or len(summands) != 2:
        return None
    (upsampling, given), (exit_layer, read) = (makers[id(tensor)] for tensor in summands)
    if not isinstance(upsampling, layers.UpSampling2D) or not isinstance(exit_layer, layers.Conv2DTranspose):
        return None
    scale, features = side(upsampling, "size"), makers[id(read[0])][0]
    fits = (
        upsampling.interpolation == "bilinear"
        and given[0] is network.input
        and exit_layer.padding == "same"
        and exit_layer.activation is keras.activations.linear
        and (side(exit_layer, "kernel_size"), side(exit_layer, "strides")) == (2 * scale, scale)
        and features in find_concatenated(network)
    )
    return Enlargement(features, exit_layer, upsampling, addition) if fits else None
