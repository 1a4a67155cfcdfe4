"""The kinds of layer that networks may contain: which pixels each reads, and how it changes the size of a picture."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction
from typing import Any

import keras
from keras import layers

from keras_psr.errors import ModelError
from keras_psr.networks.style_transfer import ReflectionPadding2D

Interval = tuple[int, int]
"""First and last pixel of an interval of a row, both included."""


class Kind(Enum):
    """What a layer does to its input. Exports handle all layers of a kind alike."""

    INPUT = auto()
    CONVOLUTION = auto()
    TRANSPOSED_CONVOLUTION = auto()
    UPSAMPLING = auto()
    BORDER = auto()
    """Adds or removes rows and columns at the borders."""
    LINEAR = auto()
    """Multiplies by a gain and adds a shift, both of which can be folded into the convolution before it."""
    ACTIVATION = auto()
    ADDITION = auto()


@dataclass(frozen=True)
class LayerRule:
    """Properties of the layers of one Keras class.

    Attributes:
        kind: What they do to their input.
        reads: Maps a layer and an interval of its output pixels to the input pixels that these depend on. By default,
            each output pixel depends only on the input pixel at the same position.
        density: Maps a layer to its number of output pixels per input pixel along one side.
    """

    kind: Kind
    reads: Callable[[Any, Interval], Interval] = lambda layer, pixels: pixels
    density: Callable[[Any], Fraction] = lambda layer: Fraction(1)


def find_rule(layer: keras.Layer) -> LayerRule:
    """Returns the row of `RULES` for a layer.

    Raises:
        ModelError: The layer's kind is unknown.

    Example:
        is_linear = find_rule(layer).kind is Kind.LINEAR
    """
    for ancestor in type(layer).__mro__:
        if ancestor in RULES:
            return RULES[ancestor]
    raise unknown_layer(layer)


def unknown_layer(layer: keras.Layer) -> ModelError:
    """Returns the error for a layer that neither tiling nor export supports."""
    known = sorted(kind.__name__ for kind in RULES)
    return ModelError(
        f"The layer {layer.name} is of an unknown kind, {type(layer).__name__}. A network may contain "
        f"{', '.join(known)}; with square kernels and strides, and padding 'same', or 'valid' without strides."
    )


def side(layer: keras.Layer, name: str) -> int:
    """Returns one side of a square property of a layer, such as its kernel size or strides.

    Raises:
        ModelError: The property is not square, or the layer has strides and its padding is not 'same'.

    Example:
        >>> side(keras.layers.Conv2D(8, 3), "kernel_size")
        3
    """
    value = getattr(layer, name)
    is_valid = isinstance(layer, layers.Conv2D) and layer.padding == "valid" and set(layer.strides) == {1}
    if len(set(value)) != 1 or not (is_valid or getattr(layer, "padding", "same") == "same"):
        raise unknown_layer(layer)
    return int(value[0])


def transposed_crop(layer: layers.Conv2DTranspose) -> int:
    """Returns how many pixels padding 'same' crops before the first pixel of a transposed convolution's full output."""
    return max(side(layer, "kernel_size") - side(layer, "strides"), 0) // 2


def _read_by_convolution(layer: layers.Conv2D, pixels: Interval) -> Interval:
    kernel, stride, dilation = (side(layer, name) for name in ("kernel_size", "strides", "dilation_rate"))
    reach = (kernel - 1) * dilation
    padding = 0 if layer.padding == "valid" else max(reach + 1 - stride, 0) // 2
    return pixels[0] * stride - padding, pixels[1] * stride - padding + reach


def _read_by_transposed_convolution(layer: layers.Conv2DTranspose, pixels: Interval) -> Interval:
    kernel, stride = side(layer, "kernel_size"), side(layer, "strides")
    cropped = transposed_crop(layer)
    return -((kernel - 1 - cropped - pixels[0]) // stride), (pixels[1] + cropped) // stride


def _read_by_upsampling(layer: layers.UpSampling2D, pixels: Interval) -> Interval:
    factor = side(layer, "size")
    if layer.interpolation == "nearest":
        return pixels[0] // factor, pixels[1] // factor
    if layer.interpolation != "bilinear":
        raise unknown_layer(layer)
    places = [(pixel + 0.5) / factor - 0.5 for pixel in pixels]
    return math.floor(places[0]), math.ceil(places[1])


def _read_by_cropping(layer: layers.Cropping2D, pixels: Interval) -> Interval:
    cropped = layer.cropping[0][0]
    if {number for pair in layer.cropping for number in pair} != {cropped}:
        raise unknown_layer(layer)
    return pixels[0] + cropped, pixels[1] + cropped


def _read_by_reflection(layer: ReflectionPadding2D, pixels: Interval) -> Interval:
    return pixels[0] - layer.padding, pixels[1] - layer.padding  # mirrored pixels lie within the halo


RULES: dict[type[keras.Layer], LayerRule] = {
    layers.InputLayer: LayerRule(Kind.INPUT),
    layers.Conv2D: LayerRule(Kind.CONVOLUTION, _read_by_convolution, lambda layer: Fraction(1, side(layer, "strides"))),
    layers.Conv2DTranspose: LayerRule(
        Kind.TRANSPOSED_CONVOLUTION, _read_by_transposed_convolution, lambda layer: Fraction(side(layer, "strides"))
    ),
    layers.UpSampling2D: LayerRule(Kind.UPSAMPLING, _read_by_upsampling, lambda layer: Fraction(side(layer, "size"))),
    layers.Cropping2D: LayerRule(Kind.BORDER, _read_by_cropping),
    ReflectionPadding2D: LayerRule(Kind.BORDER, _read_by_reflection),
    layers.BatchNormalization: LayerRule(Kind.LINEAR),
    layers.Rescaling: LayerRule(Kind.LINEAR),
    layers.Activation: LayerRule(Kind.ACTIVATION),
    layers.LeakyReLU: LayerRule(Kind.ACTIVATION),
    layers.ReLU: LayerRule(Kind.ACTIVATION),
    layers.Add: LayerRule(Kind.ADDITION),
}
"""Maps each Keras class that a network may contain to the properties of its layers."""
