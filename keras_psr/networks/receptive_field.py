"""How far a network looks: the halo that a tile needs, computed from the network's graph."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import keras
from keras import layers

from keras_psr.errors import ModelError
from keras_psr.networks.style_transfer import ReflectionPadding2D

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


def network_scale(network: keras.Model) -> int:
    """The upscaling factor of a network, read from its shapes.

    Args:
        network: A model from (batch, height, width, 3) to an enlarged (batch, height, width, 3).

    Returns:
        Output height divided by input height.
    """
    probe = 64  # more than any network pads by reflection
    return int(network.compute_output_shape((1, probe, probe, 3))[1]) // probe


def receptive_halo(network: keras.Model) -> int:
    """The pixels around a tile that its enlarged pixels depend on.

    The s x s enlarged pixels of a low-resolution pixel are followed backwards through every layer to the input pixels
    that they read; of a network with strides, those of a block of `pixel_grid` pixels, which begins at a multiple of
    it. Rows and columns are alike, for all kernels and strides are square.

    Args:
        network: A functional model from (batch, height, width, 3) to a picture `network_scale` times as large.

    Returns:
        The number h, in input pixels, a multiple of `pixel_grid`: what lies h + 1 pixels or more away from a block
        does not change its output pixels.

    Raises:
        ModelError: The network has a layer whose reach is not known.
    """
    grid = pixel_grid(network)
    first, last = pixels_read(network, (0, grid * network_scale(network) - 1))[id(network.input)]
    reach = max(-first, last - (grid - 1))
    return math.ceil(reach / grid) * grid


def pixels_read(network: keras.Model, pixels: Interval) -> dict[int, Interval]:
    """The pixels of each tensor that an interval of output pixels depends on, by the tensor's `id`.

    Those beyond the borders, which padding makes, are counted too. Tensors that do not lead to the output are left out.

    Raises:
        ModelError: The network has a layer whose reach is not known.
    """
    reads = {id(network.output): pixels}
    for layer, inputs, output in reversed(walk_layers(network)):
        needed = reads.get(id(output))
        if needed is None:  # the layer does not lead to the output
            continue
        for tensor in inputs:
            first, last = pixels_read_by(layer, needed)
            known = reads.get(id(tensor), (first, last))
            reads[id(tensor)] = (min(first, known[0]), max(last, known[1]))
    return reads


def pixel_grid(network: keras.Model) -> int:
    """The number of which a picture's sides, and the places where it may be cut, must be multiples.

    Args:
        network: A functional model from (batch, height, width, 3) to a picture.

    Returns:
        The coarsest grid inside the network, in input pixels; 1 without strides.

    Raises:
        ModelError: The network is not functional, or a layer is not known.
    """
    return math.lcm(*(density.denominator for density in pixel_densities(network).values()))


def pixel_densities(network: keras.Model) -> dict[int, Fraction]:
    """Pixels of each tensor along one side for each pixel of the input, by the tensor's `id`."""
    densities = {id(network.input): Fraction(1)}
    for layer, inputs, output in walk_layers(network):
        if isinstance(layer, layers.InputLayer):
            continue
        density = densities[id(inputs[0])]
        if isinstance(layer, layers.Conv2DTranspose):
            density *= side(layer, "strides")
        elif isinstance(layer, layers.Conv2D):
            density /= side(layer, "strides")
        elif isinstance(layer, layers.UpSampling2D):
            density *= side(layer, "size")
        densities[id(output)] = density
    return densities


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


def pixels_read_by(layer: keras.Layer, pixels: Interval) -> Interval:
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
        f"{', '.join(known)}; with square kernels and strides, and padding 'same', or 'valid' without strides."
    )


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
    return pixels[0] - layer.padding, pixels[1] - layer.padding  # what is mirrored lies at the border, in the halo


RULES: dict[type[keras.Layer], Callable[[Any, Interval], Interval]] = {
    layers.Conv2DTranspose: _read_by_transposed_convolution,  # before Conv2D, from which Keras does not derive it
    layers.Conv2D: _read_by_convolution,
    layers.UpSampling2D: _read_by_upsampling,
    layers.Cropping2D: _read_by_cropping,
    ReflectionPadding2D: _read_by_reflection,
}


def transposed_crop(layer: layers.Conv2DTranspose) -> int:
    """What padding 'same' cuts off before the first pixel of a transposed convolution's full output."""
    return max(side(layer, "kernel_size") - side(layer, "strides"), 0) // 2


def side(layer: keras.Layer, name: str) -> int:
    """A layer's kernel size, stride or the like, which must be square, of a layer that pads 'same' or has no stride."""
    value = getattr(layer, name)
    is_valid = isinstance(layer, layers.Conv2D) and layer.padding == "valid" and set(layer.strides) == {1}
    if len(set(value)) != 1 or not (is_valid or getattr(layer, "padding", "same") == "same"):
        raise unknown_layer(layer)
    return int(value[0])
