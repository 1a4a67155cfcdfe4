"""How far a network looks: the halo that a tile needs, computed from the network's graph."""

import math
from fractions import Fraction

import keras
from keras import layers

from keras_psr.errors import ModelError
from keras_psr.images.tiling import Geometry
from keras_psr.networks.layer_kinds import Interval, find_rule


def measure_geometry(network: keras.Model) -> Geometry:
    """Measures how far a network looks, and on which grid, from its graph.

    The output pixels of a block of the grid, one input pixel for networks without strides, are followed backwards
    through every layer to the input pixels that they read. Rows and columns are alike, because all kernels and strides
    are square.

    Args:
        network: A functional model from (batch, height, width, 3) to a picture of the same size or an enlarged one.

    Returns:
        The scale; the halo: what lies further than that from a block does not change the block's output pixels; and the
        coarsest grid inside the network, in input pixels, of which a picture's sides must be multiples.

    Raises:
        ModelError: The network is not functional, makes pictures smaller, or has a layer whose reach is not known.
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
    """Maps each tensor's `id` to its pixels that an interval of output pixels depends on.

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
            first, last = find_rule(layer).reads(layer, needed)
            known = reads.get(id(tensor), (first, last))
            reads[id(tensor)] = (min(first, known[0]), max(last, known[1]))
    return reads


def pixel_densities(network: keras.Model) -> dict[int, Fraction]:
    """Maps each tensor's `id` to its pixels along one side for each pixel of the input.

    Raises:
        ModelError: The network is not functional, or a layer is of an unknown kind.
    """
    walked = walk_layers(network)
    densities = {id(network.input): Fraction(1)}
    for layer, inputs, output in walked:
        if inputs:
            densities[id(output)] = densities[id(inputs[0])] * find_rule(layer).density(layer)
    return densities


def walk_layers(network: keras.Model) -> list[tuple[keras.Layer, list[keras.KerasTensor], keras.KerasTensor]]:
    """Returns the layers of a functional network from input to output, each with its input tensors and its output.

    Raises:
        ModelError: The network is not functional, or calls a layer twice.
    """
    try:
        walked = [
            (layer, [] if isinstance(layer, layers.InputLayer) else keras.tree.flatten(layer.input), layer.output)
            for layer in network.layers
        ]
        end = network.output
    except (AttributeError, ValueError) as error:
        raise ModelError(f"The network {network.name} must be a functional Keras model.") from error
    # Keras gives only the first call of a layer that is called twice; then some tensor comes from nowhere.
    made = {id(output) for _, _, output in walked}
    needed = {id(tensor) for _, inputs, _ in walked for tensor in inputs} | {id(end)}
    if not needed <= made:
        raise ModelError(f"The network {network.name} must call each layer once. Give each call a layer of its own.")
    return walked
