"""How far a network looks: the halo that a tile needs, computed from the network's graph."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_psr.errors import ModelError
from keras_psr.networks import network_scale

Interval = tuple[int, int]
"""First and last pixel of a row, both included."""

POINTWISE = (
    layers.InputLayer,
    layers.Activation,
    layers.Add,
    layers.BatchNormalization,
    layers.LeakyReLU,
    layers.ReLU,
    layers.Rescaling,
)
"""Layers whose output pixel reads the input pixel at its own place, and no other."""


def receptive_halo(network: keras.Model) -> int:
    """The pixels around a tile that its enlarged pixels depend on.

    The s x s enlarged pixels of a low-resolution pixel are followed backwards through every layer to the input pixels
    that they read. Rows and columns are alike, for all kernels and strides are square.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged picture.

    Returns:
        The number h, in low-resolution pixels: what lies h + 1 pixels or more away from a low-resolution pixel does
        not change its enlarged pixels.

    Raises:
        ModelError: The network has a layer whose reach is not known.
    """
    reads = {id(network.output): (0, network_scale(network) - 1)}
    for layer, inputs, output in reversed(walk_layers(network)):
        needed = reads.get(id(output))
        if needed is None:  # the layer does not lead to the output
            continue
        for tensor in inputs:
            first, last = _pixels_read(layer, needed)
            known = reads.get(id(tensor), (first, last))
            reads[id(tensor)] = (min(first, known[0]), max(last, known[1]))
    first, last = reads[id(network.input)]
    return max(-first, last)


def walk_layers(network: keras.Model) -> list[tuple[keras.Layer, list[keras.KerasTensor], keras.KerasTensor]]:
    """The layers of a functional network from input to output, each with its input tensors and its output tensor.

    Raises:
        ModelError: The network is not functional, or calls a layer twice.
    """
    try:
        walked = [
            (layer, [] if isinstance(layer, layers.InputLayer) else keras.tree.flatten(layer.input), layer.output)
            for layer in network.layers
        ]
    except (AttributeError, ValueError) as error:
        raise ModelError(f"The network {network.name} must be a functional Keras model.") from error
    # Keras gives only the first call of a layer that is called twice; then some tensor comes from nowhere.
    made = {id(output) for _, _, output in walked}
    needed = {id(tensor) for _, inputs, _ in walked for tensor in inputs} | {id(network.output)}
    if not needed <= made:
        raise ModelError(f"The network {network.name} must call each layer once. Give each call a layer of its own.")
    return walked


def _pixels_read(layer: keras.Layer, pixels: Interval) -> Interval:
    """The input pixels that a layer reads for an interval of output pixels."""
    for kind, rule in RULES.items():
        if isinstance(layer, kind):
            return rule(layer, pixels)
    if isinstance(layer, POINTWISE):
        return pixels
    raise unknown_layer(layer)


def unknown_layer(layer: keras.Layer) -> ModelError:
    """The error for a layer that neither tiling nor export knows."""
    known = sorted(kind.__name__ for kind in (*RULES, *POINTWISE))
    return ModelError(
        f"The layer {layer.name} is of an unknown kind, {type(layer).__name__}. A network may be made of "
        f"{', '.join(known)}; convolutions with square kernels and strides, and padding 'same'."
    )


def _read_by_convolution(layer: layers.Conv2D, pixels: Interval) -> Interval:
    kernel, stride, dilation = (side(layer, name) for name in ("kernel_size", "strides", "dilation_rate"))
    reach = (kernel - 1) * dilation
    padding = max(reach + 1 - stride, 0) // 2
    return pixels[0] * stride - padding, pixels[1] * stride - padding + reach


def _read_by_transposed_convolution(layer: layers.Conv2DTranspose, pixels: Interval) -> Interval:
    kernel, stride = side(layer, "kernel_size"), side(layer, "strides")
    cropped = transposed_crop(kernel, stride)
    return -((kernel - 1 - cropped - pixels[0]) // stride), (pixels[1] + cropped) // stride


def _read_by_upsampling(layer: layers.UpSampling2D, pixels: Interval) -> Interval:
    factor = side(layer, "size")
    if layer.interpolation == "nearest":
        return pixels[0] // factor, pixels[1] // factor
    if layer.interpolation != "bilinear":
        raise unknown_layer(layer)
    places = [(pixel + 0.5) / factor - 0.5 for pixel in pixels]
    return math.floor(places[0]), math.ceil(places[1])


RULES: dict[type[keras.Layer], Callable[[Any, Interval], Interval]] = {
    layers.Conv2DTranspose: _read_by_transposed_convolution,  # before Conv2D, from which Keras does not derive it
    layers.Conv2D: _read_by_convolution,
    layers.UpSampling2D: _read_by_upsampling,
}


def transposed_crop(kernel: int, stride: int) -> int:
    """What padding 'same' cuts off before the first pixel of a transposed convolution's full output."""
    return max(kernel - stride, 0) // 2


def side(layer: keras.Layer, name: str) -> int:
    """A layer's kernel size, stride or the like, which must be square and padded 'same'."""
    value = getattr(layer, name)
    if len(set(value)) != 1 or getattr(layer, "padding", "same") != "same":
        raise unknown_layer(layer)
    return int(value[0])
