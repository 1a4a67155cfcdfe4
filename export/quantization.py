"""The weights of files with 8 bits: equalized, and rounded so that the responses change as little as possible."""

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_psr.export.enlargement import CENTRE, COARSEST_STEP, COPIES, Enlargement, find_enlargement
from keras_psr.export.equalization import LARGEST, equalize, recode
from keras_psr.export.folding import Weights, find_makers
from keras_psr.export.operators import find_stride_and_dilation, transposed_weights
from keras_psr.networks.layer_kinds import Kind, find_rule
from keras_psr.networks.receptive_field import walk_layers

DAMPING = 0.001
"""Added to the variance of each input, as a share of the mean variance, for inputs that hardly vary on the tiles."""

PATCH_DISTANCE = 2
"""Smallest distance in pixels between the patches on which the covariance of a convolution's inputs is measured."""

MAX_VALUES = 2**26
"""Largest number of values in all patches together: a quarter of a gigabyte."""


class Quantization:
    """Finds weights whose kernels have 255 values per output channel, and that fit equalized tensors.

    Attributes:
        concatenated: Additions that a file leaves to the convolution that reads their sum: it gets the summands as
            channels, with a copy of the kernel for each. The sum would have to be rounded once more.
        enlargement: The layers of which a file has only the exit, which enlarges the picture, too; None if the exit
            cannot do that.
        ranges: What a file covers of the equalized tensors, and of what is added to an enlarged picture, by the scope
            of the layer that makes them.

    Example:
        graph = TileGraph(network, geometry, side, Quantization(network, tiles))
        graph(tf.constant(np.stack(tiles), tf.float32))  # finds the weights of all convolutions
    """

    def __init__(self, network: keras.Model, tiles: Sequence[np.ndarray]) -> None:
        """Equalizes the network's tensors on uint8 tiles (side, side, 3)."""
        equalization = equalize(network, tiles)
        self._codings, self.concatenated = equalization.codings, equalization.concatenated
        names = {layer.name: scope_of(index) for index, (layer, _, _) in enumerate(walk_layers(network))}
        self.ranges = {names[layer]: found for layer, found in equalization.ranges.items()}
        found = find_enlargement(network, self.concatenated)
        self.enlargement = found if found and self._can_enlarge(found) else None
        if self.enlargement is None:
            self.ranges |= {names[layer]: found for layer, found in measure_details(network, tiles).items()}
        self._weights: dict[str, Weights] = {}

    def find_weights(
        self, layer: layers.Conv2D | layers.Conv2DTranspose, x: tf.Tensor, weights: Weights, block: int
    ) -> Weights:
        """Returns the weights of a convolution. The first call for a layer finds them, so its input must have values.

        Args:
            layer: The layer whose convolution it is.
            x: Its input, (batch, height, width, channels), computed with the weights found before.
            weights: Kernel and bias for plain tensors.
            block: Side of the blocks of output pixels that are computed at once.
        """
        if layer.name not in self._weights:
            self._weights[layer.name] = self._round(layer, x, weights, block)
        return self._weights[layer.name]

    def _round(
        self, layer: layers.Conv2D | layers.Conv2DTranspose, x: tf.Tensor, weights: Weights, block: int
    ) -> Weights:
        """Returns the weights for coded tensors, with those for the picture if the layer enlarges it."""
        enlargement = self.enlargement if self.enlargement and layer is self.enlargement.exit else None
        features = x[..., : -COPIES * 3] if enlargement else x
        kernel, bias = self._recode(layer, weights, features.shape[-1])
        patches = _cut_patches(features, kernel.shape[:2], layer, block)
        if enlargement is None:
            return round_weights((kernel, bias), patches)
        steps = enlargement.find_steps(kernel)
        kernel, bias = round_weights((kernel, bias), patches, steps)
        return np.concatenate([kernel, enlargement.round_kernel(steps)], axis=2, dtype=np.float32), bias + CENTRE

    def _recode(self, layer: layers.Conv2D | layers.Conv2DTranspose, weights: Weights, channels: int) -> Weights:
        """Returns the weights for coded tensors, with a copy of the kernel for each summand among the channels."""
        kernel, bias = weights
        copies = channels // kernel.shape[2]
        return recode((np.tile(kernel, (1, 1, copies, 1)), bias), *self._codings[layer.name])

    def _can_enlarge(self, enlargement: Enlargement) -> bool:
        """Returns whether the exit's weights leave steps that are fine enough for the picture's."""
        summands = enlargement.features.input
        channels = sum(tensor.shape[-1] for tensor in summands)
        kernel, _ = self._recode(enlargement.exit, transposed_weights(enlargement.exit, []), channels)
        return bool(enlargement.find_steps(kernel).max() <= COARSEST_STEP)


def scope_of(index: int) -> str:
    """Returns the name scope of a layer's operators, by the layer's position; names may be no valid scopes."""
    return f"layer{index}"


def measure_details(network: keras.Model, tiles: Sequence[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Returns the range of what a network adds to the enlarged picture, as far as it changes the result.

    Letters have the strongest details. Many go beyond what makes black or white, where the result is cut off, and
    smooth areas need a small range with fine steps.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged picture.
        tiles: uint8 tiles (side, side, 3).

    Returns:
        The smallest value, at most 0, and the largest, at least 0, by the name of the convolution that makes the
        details; empty if the network does not add those of a convolution to an enlarged picture.

    Example:
        low, high = measure_details(network, tiles)["exit"]
    """
    makers = find_makers(network)
    last, summands = makers[id(network.output)]
    kinds = {find_rule(makers[id(tensor)][0]).kind: tensor for tensor in summands}
    details = kinds.get(Kind.CONVOLUTION, kinds.get(Kind.TRANSPOSED_CONVOLUTION))
    enlarged = kinds.get(Kind.UPSAMPLING)
    if find_rule(last).kind is not Kind.ADDITION or enlarged is None or details is None:
        return {}
    model = keras.Model(network.input, [enlarged, network.output])
    low = high = 0.0
    for tile in tiles:
        before, after = (np.asarray(image) for image in model(tile[None].astype(np.float32)))
        found = np.clip(after, 0, 255) - before
        low, high = min(low, float(found.min())), max(high, float(found.max()))
    return {makers[id(details)][0].name: (low, high)}


def round_weights(weights: Weights, patches: np.ndarray, steps: np.ndarray | None = None) -> Weights:
    """Rounds a kernel so that the convolution's outputs change as little as possible, and corrects the bias.

    The nearest values would not do: neighbouring pixels and channels are similar, so that the errors of their weights
    add up. An entry convolution would answer a grey area wrongly.

    Args:
        weights: Kernel, (height, width, inputs, outputs), and bias.
        patches: What the kernel sees at some positions, (positions, height * width * inputs).
        steps: Of the output channels; None for the largest value of each divided by 127, which is that of TFLite's
            converter.

    Returns:
        Kernel and bias, float32. The kernel's values are integers from -127 to 127 times their step.

    Example:
        kernel, bias = round_weights((kernel, bias), patches)
    """
    kernel, bias = weights
    mean = patches.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = patches - mean
    covariance = (centred.T @ centred).astype(np.float64) / len(patches)
    damping = DAMPING * np.trace(covariance) / len(covariance)
    covariance += np.eye(len(covariance)) * max(damping, np.finfo(np.float32).tiny)
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    rounded = _round_matrix(matrix, covariance, steps)
    return rounded.reshape(kernel.shape).astype(np.float32), (bias + mean @ (matrix - rounded)).astype(np.float32)


def _round_matrix(matrix: np.ndarray, covariance: np.ndarray, steps: np.ndarray | None) -> np.ndarray:
    """Rounds the rows of a matrix in turn, and lets later rows make up for the error (Frantar et al. 2023, "GPTQ").

    Args:
        matrix: Kernel, (inputs, outputs).
        covariance: Of the inputs, positive definite.
        steps: Of the columns; None if the largest value of each decides it.
    """
    if steps is None:
        largest = np.abs(matrix).argmax(axis=0)  # stays as it is, because it decides the step
        steps = np.maximum(np.abs(matrix).max(axis=0), np.finfo(np.float32).tiny) / LARGEST
    else:
        largest = np.full(matrix.shape[1], -1)  # none
    order = np.argsort(-covariance.diagonal(), kind="stable")
    inverse = np.linalg.inv(covariance[np.ix_(order, order)])
    factor = np.linalg.cholesky(inverse).T
    remaining, rounded = matrix[order], np.zeros_like(matrix)
    for position, row in enumerate(order):
        nearest = np.clip(np.rint(remaining[position] / steps), -LARGEST, LARGEST)
        rounded[row] = np.where(largest == row, np.sign(matrix[row]) * LARGEST, nearest) * steps
        error = (remaining[position] - rounded[row]) / factor[position, position]
        remaining[position:] -= np.outer(factor[position, position:], error)
    return rounded


def _cut_patches(
    x: tf.Tensor, size: Sequence[int], layer: layers.Conv2D | layers.Conv2DTranspose, block: int
) -> np.ndarray:
    """Returns what a kernel of a layer's convolution sees at positions all over its input."""
    stride, dilation = find_stride_and_dilation(layer, block)
    values = np.prod(x.shape) * np.prod(size) / stride**2  # of patches at each position
    distance = stride * max(PATCH_DISTANCE, math.ceil(math.sqrt(values / MAX_VALUES)))
    sizes, strides, rates = ([1, *pair, 1] for pair in (size, [distance] * 2, [dilation] * 2))
    patches = tf.image.extract_patches(x, sizes, strides, rates, "VALID")
    return patches.numpy().reshape(-1, patches.shape[-1])
