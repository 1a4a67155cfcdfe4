"""Lets the last convolution of int8 and int16x8 files enlarge the picture as well.

A network adds details to its bilinearly enlarged input. With 8 bits, the enlarged picture, the details and their sum
would be rounded one after the other. Enlarging bilinearly is a transposed convolution, too, with a kernel twice as
large as its stride, as the exit of `fast` has. So the exit can read the picture as further channels, and only its
result is rounded. The file has two operators fewer, on the largest tensors, and takes less time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from keras_psr.export.equalization import LARGEST
from keras_psr.export.folding import find_makers, find_uses
from keras_psr.export.operators import in_phases
from keras_psr.networks.layer_kinds import side

CENTRE = 128
"""Subtracted from the picture, so that int8 holds it with scale 1 and zero point 0, as it holds the responses."""

COPIES = 2
"""Each channel of the picture is read twice, and the copies share its weight: a single weight of up to 1 would force
coarse steps on the weights of the responses."""

COARSEST_STEP = 1 / 64
"""Largest step of the weights with which a picture is enlarged well enough."""


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

        Each is one over a whole number, so that the weights of the picture can add up to exactly 1.

        Args:
            kernel: The exit's kernel as a convolution that computes phases, (height, width, inputs, outputs).

        Returns:
            Steps (outputs,), at most 1. Above `COARSEST_STEP`, the kernel is too strong for the picture's weights.
        """
        # `round_kernel` corrects the largest weight by at most half a unit for each of the other three.
        pictures = self._kernel().max(axis=(0, 1, 2)) / (COPIES * LARGEST - 3)
        coarsest = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)) / LARGEST, pictures)
        return 1 / np.maximum(np.floor(1 / coarsest), 1)

    def round_kernel(self, steps: np.ndarray) -> np.ndarray:
        """Returns the kernel for the copies of the picture, (height, width, inputs, outputs).

        Its values are multiples of the steps, at most 127 of them, and one of each output channel is exactly that, so
        that TFLite's converter finds the same steps. The weights of an output channel add up to 1.

        Args:
            steps: From `find_steps`, (outputs,).
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


def find_enlargement(network: keras.Model, concatenated: Sequence[layers.Add]) -> Enlargement | None:
    """Returns how a network enlarges its input; None if its exit cannot do that as well.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged or painted picture.
        concatenated: Additions whose summands a file concatenates; the exit must read one of them.

    Example:
        enlargement = find_enlargement(network, equalize(network, tiles).concatenated)
    """
    makers, uses = find_makers(network), find_uses(network)
    addition, summands = makers[id(network.output)]
    if not isinstance(addition, layers.Add) or len(summands) != 2 or any(len(uses[id(one)]) > 1 for one in summands):
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
        and exit_layer.filters == 3
        and scale % 2 == 0
        and (side(exit_layer, "kernel_size"), side(exit_layer, "strides")) == (2 * scale, scale)
        and features in concatenated
    )
    return Enlargement(features, exit_layer, upsampling, addition) if fits else None
