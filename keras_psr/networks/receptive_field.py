"""A network's receptive field, and so the halo that its tiles need, computed from its graph."""

import math
from fractions import Fraction

import keras
from keras import layers

from keras_psr.errors import ModelError
from keras_psr.images.tiling import Geometry
from keras_psr.networks.layer_kinds import Interval, find_rule


def measure_geometry(network: keras.Model) -> Geometry:
    """Measures a network's scale, receptive field and grid from its graph.

    The output pixels of one cell of the grid (one input pixel for networks without strides) are traced back through
    every layer to the input pixels that they depend on. One dimension is enough, because all kernels and strides are
    square.

    Args:
        network: A functional model from (batch, height, width, 3) to a picture of the same size or an enlarged one.

    Returns:
        The scale; the halo, in input pixels: pixels further than that from a cell do not change the cell's output; and
        the side of a cell of the coarsest grid inside the network, in input pixels, by which a picture's sides must be
        divisible.

    Raises:
        ModelError: The network is not functional, reduces pictures, or has a layer of an unknown kind.

    Example:
        geometry = measure_geometry(build_network("fast", scale=2))
        geometry.scale, geometry.halo
    """
    densities = pixel_densities(network)
    scale = densities[id(network.output)]
    if scale.denominator != 1:
        raise ModelError(f"The network {network.name} must not make pictures smaller. Its scale is {scale}.")
    grid = math.lcm(*(density.denominator for density in densities.values()))
    first, last = pixels_read(network, (0, grid * int(scale) - 1))[id(network.input)]
    reach = max(-first, last - (grid - 1))
    return Geometry(int(scale), math.ceil(reach / grid) * grid, grid)


def pixels_read(network: keras.Model, pixels: Interval) -> dict[int, Interval]:
    """Maps each tensor's `id` to the interval of its pixels that an interval of output pixels depends on.

    Pixels beyond the borders, which padding adds, count too. Tensors that do not lead to the output are left out.

    Raises:
        ModelError: The network has a layer of an unknown kind.

    Example:
        first, last = pixels_read(network, (0, 3))[id(network.input)]
    """
    reads = {id(network.output): pixels}
    for layer, inputs, output in reversed(walk_layers(network)):
        needed = reads.get(id(output))
        if needed is None:  # the layer does not lead to the output
            continue
        for tensor in inputs:
            first, last = find_rule(layer).reads(layer, needed)
            known = reads.get(id(tensor), (first, last))
            reads[id(tensor)] = (min(first, known[0]), max(last, known[1]))
    return reads


def pixel_densities(network: keras.Model) -> dict[int, Fraction]:
    """Maps each tensor's `id` to its number of pixels per input pixel along one side.

    Raises:
        ModelError: The network is not functional, or has a layer of an unknown kind.

    Example:
        scale = pixel_densities(network)[id(network.output)]
    """
    walked = walk_layers(network)
    densities = {id(network.input): Fraction(1)}
    for layer, inputs, output in walked:
        if inputs:
            densities[id(output)] = densities[id(inputs[0])] * find_rule(layer).density(layer)
    return densities


def walk_layers(network: keras.Model) -> list[tuple[keras.Layer, list[keras.KerasTensor], keras.KerasTensor]]:
    """Returns the layers of a functional network from input to output, each with its input tensors and output tensor.

    Raises:
        ModelError: The network is not functional, or calls a layer twice.

    Example:
        kernels = [layer.kernel for layer, _, _ in walk_layers(network) if isinstance(layer, keras.layers.Conv2D)]
    """
    try:
        walked = [
            (layer, [] if isinstance(layer, layers.InputLayer) else keras.tree.flatten(layer.input), layer.output)
            for layer in network.layers
        ]
        end = network.output
    except (AttributeError, ValueError) as error:
        raise ModelError(f"The network {network.name} must be a functional Keras model.") from error
    # Keras reports only the first call of a layer that is called twice, which leaves a tensor without a source.
    made = {id(output) for _, _, output in walked}
    needed = {id(tensor) for _, inputs, _ in walked for tensor in inputs} | {id(end)}
    if not needed <= made:
        raise ModelError(f"The network {network.name} must call each layer once. Give each call a layer of its own.")
    return walked
