"""The operators that replace a network's layers, with weights that give the same pixels."""

import math
from typing import TypeGuard

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_psr.export.folding import Weights, folded_weights, gain_and_shift
from keras_psr.networks.layer_kinds import Kind, find_rule, side, unknown_layer
from keras_psr.networks.receptive_field import pixel_densities

CHANNEL_GROUP = 16
"""Channels that XNNPACK computes at the cost of three on most CPUs, because it works in groups of 8 to 32."""


def find_multiples(network: keras.Model) -> dict[int, int]:
    """Maps each tensor's id to a divisor of its height and width."""
    densities = pixel_densities(network)
    grid = math.lcm(*(density.denominator for density in densities.values()))
    return {tensor: int(grid * density) for tensor, density in densities.items()}


def is_plain(layer: keras.Layer | None) -> TypeGuard[layers.Conv2D]:
    """Returns whether a layer is a convolution whose output pixels lie in the centre of their receptive fields."""
    return (
        isinstance(layer, layers.Conv2D)
        and side(layer, "strides") == side(layer, "dilation_rate") == 1
        and side(layer, "kernel_size") % 2 == 1
        and layer.padding == "same"
    )


def largest_block(layer: layers.Conv2D, multiple: int) -> int:
    """Returns the side of blocks of pixels to compute at once, for pictures whose sides are multiples of `multiple`."""
    largest = math.isqrt(CHANNEL_GROUP // layer.filters) if is_plain(layer) else 1
    return max((size for size in range(2, largest + 1) if multiple % size == 0), default=1)


def find_stride_and_dilation(layer: layers.Conv2D | layers.Conv2DTranspose, block: int) -> tuple[int, int]:
    """Returns those of the convolution that `convolve` computes. That of a transposed convolution has none."""
    is_transposed = isinstance(layer, layers.Conv2DTranspose)
    return (1, 1) if is_transposed else (block * side(layer, "strides"), side(layer, "dilation_rate"))


def convolve(
    layer: layers.Conv2D | layers.Conv2DTranspose,
    followers: list[keras.Layer],
    x: tf.Tensor,
    weights: Weights,
    block: int = 1,
    padding: str = "VALID",
) -> tf.Tensor:
    """Applies a layer's convolution with the given weights, and the activations after it, which fuse with it."""
    stride, dilation = find_stride_and_dilation(layer, block)
    x = layer.activation(tf.nn.conv2d(x, weights[0], stride, padding, dilations=dilation) + weights[1])
    for follower in followers:
        x = follower(x) if find_rule(follower).kind is Kind.ACTIVATION else x
    return x


def convolve_in_blocks(
    layer: layers.Conv2D,
    followers: list[keras.Layer],
    x: tf.Tensor,
    block: int,
    padding: str,
) -> tf.Tensor:
    """Computes a convolution for blocks of pixels at once, including the layers folded into it."""
    weights = in_blocks(folded_weights(layer, followers), block)
    return depth_to_space(convolve(layer, followers, x, weights, block, padding), block)


def in_blocks(weights: Weights, block: int) -> Weights:
    """Returns weights that compute, at stride `block`, a block of output pixels as channels.

    Args:
        weights: Weights of a convolution with an odd kernel size and stride 1, or of any convolution if `block` is 1.
        block: Side of the block, in pixels.

    Returns:
        A kernel (size + block - 1, size + block - 1, inputs, block * block * outputs), which contains the original
        kernel at the offset of each pixel, and the repeated bias.
    """
    kernel, bias = weights
    size, _, inputs, outputs = kernel.shape
    wide = size + block - 1
    blocks = np.zeros((wide, wide, inputs, block, block, outputs), np.float32)
    for row, column in np.ndindex(block, block):
        blocks[row : row + size, column : column + size, :, row, column] = kernel
    return blocks.reshape(wide, wide, inputs, -1), np.tile(bias, block**2)


def transposed_weights(layer: layers.Conv2DTranspose, followers: list[keras.Layer]) -> Weights:
    """Returns weights of a convolution that computes a transposed convolution's phases as channels (`in_phases`)."""
    kernel, bias = folded_weights(layer, followers)
    stride = side(layer, "strides")
    if side(layer, "dilation_rate") != 1 or layer.output_padding is not None:
        raise unknown_layer(layer)
    return in_phases(kernel, stride), np.tile(bias, stride**2)


def in_phases(kernel: np.ndarray, stride: int) -> np.ndarray:
    """Returns the kernel of a convolution that computes a transposed convolution's phases as channels.

    Pixel t of the full output is the sum over m of input m times the kernel at t - m * stride. With t = j * stride + a,
    this is, for each phase a, a convolution of the input with every stride-th element of the kernel.

    Args:
        kernel: Kernel of the transposed convolution, (size, size, outputs, inputs).
        stride: Its stride.

    Returns:
        A kernel (taps, taps, inputs, stride * stride * outputs).
    """
    size = kernel.shape[0]
    taps = math.ceil(size / stride)
    filled = np.zeros((taps * stride, taps * stride, *kernel.shape[2:]), np.float32)
    filled[:size, :size] = kernel
    # (tap, phase, tap, phase, outputs, inputs); the last tap first, because a convolution does not flip its kernel.
    phases = filled.reshape(taps, stride, taps, stride, *kernel.shape[2:])[::-1, :, ::-1]
    return phases.transpose(0, 2, 5, 1, 3, 4).reshape(taps, taps, kernel.shape[3], -1)


def depth_to_space(x: tf.Tensor, block: int) -> tf.Tensor:
    """Rearranges channels into blocks of pixels."""
    return tf.nn.depth_to_space(x, block) if block > 1 else x


def enlarge(layer: layers.UpSampling2D, x: tf.Tensor) -> tf.Tensor:
    """Applies Keras's UpSampling2D, which does not itself support open sizes inside a function."""
    sides = [known or tf.shape(x)[axis] for axis, known in enumerate(x.shape)][1:3]
    factor = side(layer, "size")
    return tf.image.resize(x, [length * factor for length in sides], method=layer.interpolation)


def apply_pointwise(layer: keras.Layer, values: list[tf.Tensor]) -> tf.Tensor:
    """Applies a layer whose output pixels depend only on the input pixels at the same position."""
    if isinstance(layer, layers.BatchNormalization):
        gain, shift = gain_and_shift(layer)
        return values[0] * gain + shift
    return layer(values if len(values) > 1 else values[0])
