"""A network's graph rearranged for phones: the same pixels from operators that delegates take whole and run fast."""

import math
from collections import defaultdict
from typing import TypeGuard

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_psr.receptive_field import (
    POINTWISE,
    pixel_densities,
    pixel_grid,
    side,
    transposed_crop,
    unknown_layer,
    walk_layers,
)
from keras_psr.style_networks import ReflectionPadding2D

ACTIVATIONS = (layers.Activation, layers.LeakyReLU, layers.ReLU)

AS_THEY_ARE = (*POINTWISE, layers.Cropping2D, ReflectionPadding2D)
"""Layers that are applied unchanged."""

CHANNEL_GROUP = 16
"""XNNPACK computes the channels of a convolution in groups of 8 to 32: three cost as much as sixteen on most CPUs."""


def export_function(
    network: keras.Model, tile: int | None, *, clip: bool = True
) -> tf.types.experimental.GenericFunction:
    """The network as a TensorFlow function that is ready to be converted.

    Batch norm is folded into the convolution before it. A transposed convolution becomes a convolution that computes
    all positions of the finer grid as channels, which DEPTH_TO_SPACE then lays out: bias and ReLU fuse into it, where a
    TRANSPOSE_CONV would leave its ReLU outside XNNPACK in int8. A convolution to few channels at the end is computed
    for blocks of pixels at once in the same manner (`CHANNEL_GROUP`); of tiles, behind a transposed convolution whose
    phases are such blocks, it reads them as they are, so that only its few channels are laid out: a third less memory.
    Pixels that see beyond the border then see what the transposed convolution gives there instead of zeros; the halo of
    tiles hides both. Weights are constants.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged picture.
        tile: Rows and columns of the input, in pixels; None leaves them open.
        clip: Clip to [0, 255]. Off for int8, where the range of the output's type does that.

    Returns:
        A function of `image`, float32 (1, tile, tile, 3), that returns {"image": float32 (1, scale * tile, ...)}.

    Raises:
        ModelError: The network has a layer of an unknown kind.
    """

    @tf.function(input_signature=[tf.TensorSpec((1, tile, tile, 3), tf.float32, name="image")], autograph=False)
    def upscale(image: tf.Tensor) -> dict[str, tf.Tensor]:
        output = apply_rearranged(network, image, is_tile=tile is not None)
        # RELU fuses into the addition before it, where a MAXIMUM would not.
        return {"image": tf.minimum(tf.nn.relu(output), 255.0) if clip else output}

    return upscale


def apply_rearranged(network: keras.Model, image: tf.Tensor, *, is_tile: bool = False) -> tf.Tensor:
    """Applies a network's layers, rearranged as `export_function` says, to a tensor; inside a function, open sizes too.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged picture.
        image: float32 (batch, height, width, 3).
        is_tile: Whether the image has a halo, so that its borders may differ from the network's.

    Returns:
        float32 (batch, scale * height, scale * width, 3), not clipped.

    Raises:
        ModelError: The network has a layer of an unknown kind.
    """
    uses = _find_uses(network)
    folded, grid, densities = _find_foldable(network, uses), pixel_grid(network), pixel_densities(network)
    readers = _find_phase_readers(folded, uses) if is_tile else {}
    writers = {reader: writer for writer, reader in readers.items()}
    done = {layer for chain in folded.values() for layer in chain}
    tensors = {id(network.input): image}
    for layer, inputs, output in walk_layers(network):
        values = [tensors[id(tensor)] for tensor in inputs]
        if isinstance(layer, layers.InputLayer):
            continue
        elif layer in done:
            tensors[id(output)] = values[0]
        elif isinstance(layer, layers.Conv2DTranspose):
            phases = _convolve_to_phases(layer, folded[layer], values[0])
            tensors[id(output)] = phases if layer in readers else _lay_out(layer, phases)
        elif layer in writers:
            tensors[id(output)] = _convolve_phases(layer, folded[layer], values[0], writers[layer])
        elif isinstance(layer, layers.Conv2D):
            multiple = int(grid * densities[id(inputs[0])])
            tensors[id(output)] = _convolve(layer, folded[layer], values[0], multiple)
        elif isinstance(layer, layers.BatchNormalization):
            gain, shift = _gain_and_shift(layer)
            tensors[id(output)] = values[0] * gain + shift
        elif isinstance(layer, layers.UpSampling2D):
            tensors[id(output)] = _enlarge(layer, values[0])
        elif isinstance(layer, AS_THEY_ARE):
            tensors[id(output)] = layer(values if len(values) > 1 else values[0])
        else:
            raise unknown_layer(layer)
    return tensors[id(network.output)]


Uses = dict[int, list[tuple[keras.Layer | None, keras.KerasTensor]]]
"""By the id of a tensor the layers that take it, each with what it gives; None is the network's end."""


def _find_uses(network: keras.Model) -> Uses:
    uses: Uses = defaultdict(list)
    uses[id(network.output)].append((None, network.output))
    for layer, inputs, output in walk_layers(network):
        for tensor in inputs:
            uses[id(tensor)].append((layer, output))
    return uses


def _find_foldable(network: keras.Model, uses: Uses) -> dict[keras.Layer, list[keras.Layer]]:
    """For each convolution the batch norm and activations that follow it, with no branch between."""
    chains: dict[keras.Layer, list[keras.Layer]] = {}
    for layer, _, output in walk_layers(network):
        if isinstance(layer, (layers.Conv2D, layers.Conv2DTranspose)):
            chain: list[keras.Layer] = []
            chains[layer] = chain
            linear = layer.activation is keras.activations.linear
            while len(uses[id(output)]) == 1:
                follower, output = uses[id(output)][0]
                is_norm = isinstance(follower, layers.BatchNormalization) and linear and not chain
                if not is_norm and not isinstance(follower, ACTIVATIONS):
                    break
                chain.append(follower)
    return chains


def _find_phase_readers(folded: dict[keras.Layer, list[keras.Layer]], uses: Uses) -> dict[keras.Layer, keras.Layer]:
    """For transposed convolutions the convolution to few channels that alone reads what they give, if its window fits.

    It fits where it looks as far as a whole number of phases; otherwise it would have more to multiply than before.
    """
    readers = {}
    for layer, chain in folded.items():
        takers = uses[id((chain[-1] if chain else layer).output)]
        if not isinstance(layer, layers.Conv2DTranspose) or len(takers) != 1:
            continue
        reader, stride = takers[0][0], side(layer, "strides")
        if _is_plain(reader) and reader.filters * stride**2 <= CHANNEL_GROUP and _reach(reader) % stride == 0:
            readers[layer] = reader
    return readers


def _is_plain(layer: keras.Layer | None) -> TypeGuard[layers.Conv2D]:
    """Whether it is a convolution whose output pixels each lie in the middle of what they see."""
    return (
        isinstance(layer, layers.Conv2D)
        and side(layer, "strides") == side(layer, "dilation_rate") == 1
        and side(layer, "kernel_size") % 2 == 1
        and layer.padding == "same"
    )


def _reach(layer: layers.Conv2D) -> int:
    return side(layer, "kernel_size") // 2


def _convolve(layer: layers.Conv2D, followers: list[keras.Layer], x: tf.Tensor, multiple: int) -> tf.Tensor:
    """A convolution of something whose sides are multiples of `multiple`; to few channels, in blocks of pixels."""
    kernel, bias = _folded_weights(layer, followers)
    stride, dilation = side(layer, "strides"), side(layer, "dilation_rate")
    block = 1
    if _is_plain(layer):
        largest = math.isqrt(CHANNEL_GROUP // layer.filters)
        block = max((size for size in range(2, largest + 1) if multiple % size == 0), default=1)
        kernel, bias, stride = _in_blocks(kernel, block), np.tile(bias, block**2), block
    x = _activate(layer, followers, tf.nn.conv2d(x, kernel, stride, layer.padding.upper(), dilations=dilation) + bias)
    return _depth_to_space(x, block)


def _in_blocks(kernel: np.ndarray, block: int) -> np.ndarray:
    """The kernel that gives, at stride `block`, the block of output pixels as channels.

    Args:
        kernel: (size, size, inputs, outputs), size odd, stride 1, padding 'same'.
        block: Side of the block, in pixels.

    Returns:
        (size + block - 1, size + block - 1, inputs, block * block * outputs), each pixel's kernel at its own offset.
    """
    size, _, inputs, outputs = kernel.shape
    wide = size + block - 1
    blocks = np.zeros((wide, wide, inputs, block, block, outputs), np.float32)
    for row, column in np.ndindex(block, block):
        blocks[row : row + size, column : column + size, :, row, column] = kernel
    return blocks.reshape(wide, wide, inputs, -1)


def _convolve_to_phases(layer: layers.Conv2DTranspose, followers: list[keras.Layer], x: tf.Tensor) -> tf.Tensor:
    """A transposed convolution as a convolution on the coarse grid, its phases as channels, for `_lay_out`.

    Pixel t of the full output sums input m times the kernel at t - m * stride. With t = j * stride + a this is, for
    each phase a, a convolution of the input with every stride-th element of the kernel.
    """
    kernel, bias = _folded_weights(layer, followers)
    size, stride = side(layer, "kernel_size"), side(layer, "strides")
    if side(layer, "dilation_rate") != 1 or layer.output_padding is not None:
        raise unknown_layer(layer)
    taps = math.ceil(size / stride)
    filled = np.zeros((taps * stride, taps * stride, *kernel.shape[2:]), np.float32)
    filled[:size, :size] = kernel
    # (tap, phase, tap, phase, outputs, inputs); the last tap comes first, for a convolution does not flip its kernel.
    phases = filled.reshape(taps, stride, taps, stride, *kernel.shape[2:])[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(taps, taps, kernel.shape[3], -1)
    x = tf.pad(x, [[0, 0], [taps - 1, taps - 1], [taps - 1, taps - 1], [0, 0]])
    return _activate(layer, followers, tf.nn.conv2d(x, phases, 1, "VALID") + np.tile(bias, stride**2))


def _convolve_phases(
    layer: layers.Conv2D, followers: list[keras.Layer], phases: tf.Tensor, writer: layers.Conv2DTranspose
) -> tf.Tensor:
    """A convolution of what a transposed one gives, computed from the phases, where it is a smaller one."""
    kernel, bias = _folded_weights(layer, followers)
    stride = side(writer, "strides")
    blocks = _in_blocks(kernel, stride)  # starts `_reach` pixels before the block, so at a phase 0
    cells = blocks.shape[0] // stride
    blocks = blocks.reshape(cells, stride, cells, stride, kernel.shape[2], -1)
    blocks = blocks.transpose(0, 2, 1, 3, 4, 5).reshape(cells, cells, phases.shape[-1], -1)
    x = tf.nn.conv2d(phases, blocks, 1, "SAME") + np.tile(bias, stride**2)
    return _lay_out(writer, _activate(layer, followers, x))


def _lay_out(layer: layers.Conv2DTranspose, phases: tf.Tensor) -> tf.Tensor:
    """The picture of a transposed convolution from its phases, cut to its size."""
    size, stride = side(layer, "kernel_size"), side(layer, "strides")
    x = _depth_to_space(phases, stride)
    first = transposed_crop(size, stride)
    last = (math.ceil(size / stride) - 1) * stride - first
    return x[:, first:-last, first:-last] if last else x[:, first:, first:] if first else x


def _depth_to_space(x: tf.Tensor, block: int) -> tf.Tensor:
    return tf.nn.depth_to_space(x, block) if block > 1 else x


def _enlarge(layer: layers.UpSampling2D, x: tf.Tensor) -> tf.Tensor:
    """Keras's UpSampling2D, which itself does not take an open size inside a function."""
    sides = [known or tf.shape(x)[axis] for axis, known in enumerate(x.shape)][1:3]
    factor = side(layer, "size")
    return tf.image.resize(x, [length * factor for length in sides], method=layer.interpolation)


def _activate(layer: layers.Conv2D | layers.Conv2DTranspose, followers: list[keras.Layer], x: tf.Tensor) -> tf.Tensor:
    """What a convolution's own activation and those behind it do, before pixels are laid out, so that they fuse."""
    x = layer.activation(x)
    for follower in followers:
        x = follower(x) if isinstance(follower, ACTIVATIONS) else x
    return x


def _folded_weights(
    layer: layers.Conv2D | layers.Conv2DTranspose, followers: list[keras.Layer]
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution with the batch norm behind it, if there is one."""
    if layer.data_format != "channels_last" or getattr(layer, "groups", 1) != 1:
        raise unknown_layer(layer)
    with tf.init_scope():  # read now, to become constants
        kernel = np.asarray(layer.kernel, np.float32)
        bias = np.asarray(layer.bias, np.float32) if layer.use_bias else np.zeros(layer.filters, np.float32)
    if not followers or not isinstance(followers[0], layers.BatchNormalization):
        return kernel, bias
    gain, shift = _gain_and_shift(followers[0])
    transposed = isinstance(layer, layers.Conv2DTranspose)  # its kernel is (height, width, outputs, inputs)
    return kernel * (gain[:, None] if transposed else gain), bias * gain + shift


def _gain_and_shift(norm: layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """What a batch norm does once it is fitted: x * gain + shift, for each channel."""
    with tf.init_scope():
        gain = 1 / np.sqrt(np.asarray(norm.moving_variance, np.float32) + norm.epsilon)
        gain = gain * np.asarray(norm.gamma, np.float32) if norm.scale else gain
        beta = np.asarray(norm.beta, np.float32) if norm.center else np.zeros_like(gain)
        return gain, beta - np.asarray(norm.moving_mean, np.float32) * gain
