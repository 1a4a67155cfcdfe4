"""The convolutions of a network in other forms: with what follows folded in, in blocks of pixels, on a coarser grid."""

import math
from collections import defaultdict
from typing import TypeGuard

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_psr.networks.receptive_field import (
    POINTWISE,
    pixel_densities,
    pixel_grid,
    side,
    unknown_layer,
    walk_layers,
)

ACTIVATIONS = (layers.Activation, layers.LeakyReLU, layers.ReLU)

LINEAR = (layers.BatchNormalization, layers.Rescaling)
"""Layers that multiply by a gain and add a shift, so that a convolution before them can do it."""

CHANNEL_GROUP = 16
"""XNNPACK computes the channels of a convolution in groups of 8 to 32: three cost as much as sixteen on most CPUs."""

Uses = dict[int, list[tuple[keras.Layer | None, keras.KerasTensor]]]
"""By the id of a tensor the layers that take it, each with what it gives; None is the network's end."""

Chains = dict[keras.Layer, list[keras.Layer]]
"""For each convolution the layers behind it that are folded into it."""

Weights = tuple[np.ndarray, np.ndarray]
"""Kernel, (size, size, inputs, outputs), and bias of a convolution."""


def find_uses(network: keras.Model) -> Uses:
    """Who takes what each layer gives."""
    uses: Uses = defaultdict(list)
    uses[id(network.output)].append((None, network.output))
    for layer, inputs, output in walk_layers(network):
        for tensor in inputs:
            uses[id(tensor)].append((layer, output))
    return uses


def find_foldable(uses: Uses, network: keras.Model) -> Chains:
    """For each convolution the linear layers and activations that follow it, with no branch between."""
    chains: Chains = {}
    for layer, _, output in walk_layers(network):
        if isinstance(layer, (layers.Conv2D, layers.Conv2DTranspose)):
            chain: list[keras.Layer] = []
            chains[layer] = chain
            is_linear = layer.activation is keras.activations.linear
            while len(uses[id(output)]) == 1:
                follower, output = uses[id(output)][0]
                is_linear = is_linear and isinstance(follower, LINEAR)
                if not is_linear and not isinstance(follower, ACTIVATIONS):
                    break
                chain.append(follower)
    return chains


def find_multiples(network: keras.Model) -> dict[int, int]:
    """By the id of a tensor a number of which its sides are multiples."""
    grid = pixel_grid(network)
    return {tensor: int(grid * density) for tensor, density in pixel_densities(network).items()}


def is_plain(layer: keras.Layer | None) -> TypeGuard[layers.Conv2D]:
    """Whether it is a convolution whose output pixels each lie in the middle of what they see."""
    return (
        isinstance(layer, layers.Conv2D)
        and side(layer, "strides") == side(layer, "dilation_rate") == 1
        and side(layer, "kernel_size") % 2 == 1
        and layer.padding == "same"
    )


def largest_block(layer: layers.Conv2D, multiple: int) -> int:
    """Side of the blocks of pixels that a convolution should compute at once, of a picture of `multiple`s of pixels."""
    largest = math.isqrt(CHANNEL_GROUP // layer.filters) if is_plain(layer) else 1
    return max((size for size in range(2, largest + 1) if multiple % size == 0), default=1)


def convolve(
    layer: layers.Conv2D | layers.Conv2DTranspose,
    followers: list[keras.Layer],
    x: tf.Tensor,
    weights: Weights,
    block: int = 1,
    padding: str = "VALID",
) -> tf.Tensor:
    """A layer's convolution with other weights, and the activations behind it, which fuse with it."""
    is_transposed = isinstance(layer, layers.Conv2DTranspose)
    stride, dilation = (1, 1) if is_transposed else (block * side(layer, "strides"), side(layer, "dilation_rate"))
    x = layer.activation(tf.nn.conv2d(x, weights[0], stride, padding, dilations=dilation) + weights[1])
    for follower in followers:
        x = follower(x) if isinstance(follower, ACTIVATIONS) else x
    return x


def convolve_in_blocks(
    layer: layers.Conv2D,
    followers: list[keras.Layer],
    x: tf.Tensor,
    block: int,
    *,
    padding: str = "VALID",
    rescaling: layers.Rescaling | None = None,
) -> tf.Tensor:
    """A convolution, computed for blocks of pixels at once, with what is folded into it."""
    weights = in_blocks(folded_weights(layer, followers, rescaling), block)
    return depth_to_space(convolve(layer, followers, x, weights, block, padding), block)


def in_blocks(weights: Weights, block: int) -> Weights:
    """The weights that give, at stride `block`, the block of output pixels as channels.

    Args:
        weights: Of a kernel whose size is odd, at stride 1, or any if `block` is 1.
        block: Side of the block, in pixels.

    Returns:
        A kernel (size + block - 1, size + block - 1, inputs, block * block * outputs), each pixel's at its own offset,
        and as many times the bias.
    """
    kernel, bias = weights
    size, _, inputs, outputs = kernel.shape
    wide = size + block - 1
    blocks = np.zeros((wide, wide, inputs, block, block, outputs), np.float32)
    for row, column in np.ndindex(block, block):
        blocks[row : row + size, column : column + size, :, row, column] = kernel
    return blocks.reshape(wide, wide, inputs, -1), np.tile(bias, block**2)


def transposed_weights(layer: layers.Conv2DTranspose, followers: list[keras.Layer]) -> Weights:
    """A transposed convolution as one on the coarse grid, its phases as channels.

    Pixel t of the full output sums input m times the kernel at t - m * stride. With t = j * stride + a this is, for
    each phase a, a convolution of the input with every stride-th element of the kernel.
    """
    kernel, bias = folded_weights(layer, followers)
    size, stride = side(layer, "kernel_size"), side(layer, "strides")
    if side(layer, "dilation_rate") != 1 or layer.output_padding is not None:
        raise unknown_layer(layer)
    taps = math.ceil(size / stride)
    filled = np.zeros((taps * stride, taps * stride, *kernel.shape[2:]), np.float32)
    filled[:size, :size] = kernel
    # (tap, phase, tap, phase, outputs, inputs); the last tap comes first, for a convolution does not flip its kernel.
    phases = filled.reshape(taps, stride, taps, stride, *kernel.shape[2:])[::-1, :, ::-1]
    return phases.transpose(0, 2, 5, 1, 3, 4).reshape(taps, taps, kernel.shape[3], -1), np.tile(bias, stride**2)


def folded_weights(
    layer: layers.Conv2D | layers.Conv2DTranspose,
    followers: list[keras.Layer],
    rescaling: layers.Rescaling | None = None,
) -> Weights:
    """Kernel and bias of a convolution with the linear layers behind it, and with the rescaling of what it reads."""
    if layer.data_format != "channels_last" or getattr(layer, "groups", 1) != 1:
        raise unknown_layer(layer)
    with tf.init_scope():  # read now, to become constants
        kernel = np.asarray(layer.kernel, np.float32)
        bias = np.asarray(layer.bias, np.float32) if layer.use_bias else np.zeros(layer.filters, np.float32)
    if rescaling:
        gain, shift = _gain_and_shift(rescaling)
        kernel, bias = kernel * gain, bias + shift * kernel.sum(axis=(0, 1, 2))
    for follower in followers:
        if isinstance(follower, LINEAR):
            gain, shift = _gain_and_shift(follower)
            transposed = isinstance(layer, layers.Conv2DTranspose)  # its kernel is (height, width, outputs, inputs)
            kernel, bias = kernel * (gain[..., None] if transposed else gain), bias * gain + shift
    return kernel, bias


def _gain_and_shift(layer: layers.BatchNormalization | layers.Rescaling) -> Weights:
    """What a batch norm does once it is fitted, or a rescaling: x * gain + shift, for each channel or for all."""
    if isinstance(layer, layers.Rescaling):
        return np.asarray(layer.scale, np.float32), np.asarray(layer.offset, np.float32)
    with tf.init_scope():
        gain = 1 / np.sqrt(np.asarray(layer.moving_variance, np.float32) + layer.epsilon)
        gain = gain * np.asarray(layer.gamma, np.float32) if layer.scale else gain
        beta = np.asarray(layer.beta, np.float32) if layer.center else np.zeros_like(gain)
        return gain, beta - np.asarray(layer.moving_mean, np.float32) * gain


def depth_to_space(x: tf.Tensor, block: int) -> tf.Tensor:
    """Lays out blocks of pixels that lie in channels."""
    return tf.nn.depth_to_space(x, block) if block > 1 else x


def enlarge(layer: layers.UpSampling2D, x: tf.Tensor) -> tf.Tensor:
    """Keras's UpSampling2D, which itself does not take an open size inside a function."""
    sides = [known or tf.shape(x)[axis] for axis, known in enumerate(x.shape)][1:3]
    factor = side(layer, "size")
    return tf.image.resize(x, [length * factor for length in sides], method=layer.interpolation)


def apply_pointwise(layer: keras.Layer, values: list[tf.Tensor]) -> tf.Tensor:
    """A layer that gives each pixel of the one at its own place."""
    if isinstance(layer, layers.BatchNormalization):
        gain, shift = _gain_and_shift(layer)
        return values[0] * gain + shift
    if isinstance(layer, POINTWISE):
        return layer(values if len(values) > 1 else values[0])
    raise unknown_layer(layer)
