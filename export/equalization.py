"""Equalizes the channels of a network's responses, so that each of them uses most of the range of 8 bits.

A quantized file has one scale for all channels of a tensor: the one with the widest range decides it, and the others
are rounded to few levels. Between two convolutions, each channel may be multiplied by a factor and shifted without any
change to the result, if the weights of both take that into account (Nagel et al. 2019, "Data-free quantization through
weight equalization and bias correction", section 4.1, has the factors).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from keras_psr.export.folding import Chains, Uses, Weights, find_foldable, find_uses
from keras_psr.networks.layer_kinds import Kind, find_rule
from keras_psr.networks.receptive_field import walk_layers

TYING = (Kind.ADDITION, Kind.BORDER, Kind.UPSAMPLING)
"""Kinds of layer whose output has the factors of its inputs."""

SMALLEST = 0.01
"""Added to ranges relative to the widest, so that a channel that hardly varies gets no huge factor."""

RANGE_SHARE = 0.8
"""Share of a channel's distances from its mean that a file covers: rare responses, as to black letters on white, are
cut off, and all others have finer steps."""

LARGEST = 127
"""Largest integer of int8 that has a negative counterpart: that of a weight, and the largest distance of a coded
channel from its shift, so that the step of a coded tensor is 1."""

Tensors = dict[int, keras.KerasTensor]
"""Tensors by their ids."""

Ranges = dict[int, np.ndarray]
"""Smallest and largest value that is covered of each channel, (2, channels), by the ids of tensors."""


@dataclass(frozen=True)
class Coding:
    """What a file holds of a tensor, per channel: `factor * (value - shift)`.

    Attributes:
        factor: (channels,), positive.
        shift: (channels,).
    """

    factor: np.ndarray
    shift: np.ndarray

    def of_phases(self, channels: int) -> "Coding":
        """Returns the coding of a tensor with several phases of a finer grid, each of which has all channels."""
        return Coding(*(np.tile(values, channels // len(values)) for values in (self.factor, self.shift)))


@dataclass(frozen=True)
class Equalization:
    """How a file holds a network's tensors.

    Attributes:
        codings: Those of each convolution's input and output, by its name; None where the file holds plain values.
        concatenated: Additions that a file leaves to the convolution that reads their sum.
        ranges: The smallest and largest value, at most and at least 0, that a file covers of tensors with a coding, as
            coded, by the name of the layer that makes them.
    """

    codings: dict[str, tuple[Coding | None, Coding | None]]
    concatenated: list[layers.Add]
    ranges: dict[str, tuple[float, float]]


def equalize(network: keras.Model, tiles: Sequence[np.ndarray]) -> Equalization:
    """Finds codings for the tensors that only convolutions make and read, and for sums of such tensors.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged or painted picture.
        tiles: uint8 tiles (side, side, 3), on which the ranges are measured.

    Returns:
        The codings and ranges, and which sums need not be computed.

    Example:
        kernel, bias = recode(folded_weights(entry, []), *equalize(network, tiles).codings["entry"])
    """
    uses = find_uses(network)
    chains = find_foldable(uses, network)
    groups, concatenated = _find_coded(network, chains)
    ranges = _measure_ranges(network, {name: tensor for group in groups for name, tensor in group.items()}, tiles)
    shifts = _find_shifts(network, chains, uses, ranges)
    codings: dict[int, Coding] = {}
    summands = {id(tensor) for addition in concatenated for tensor in addition.input}
    for group in groups:
        distances = {tensor: np.abs(ranges[tensor] - shifts[tensor]).max(axis=0) for tensor in group}
        last = ([tensor for tensor in group if tensor in summands] or list(group))[-1]
        factor = _find_factor(list(distances.values()), distances[last])
        codings |= {tensor: Coding(factor, shifts[tensor]) for tensor in group}
    coded_ranges = {
        layer.name: _code_range(ranges[id(output)], codings[id(output)])
        for layer, _, output in _unfolded_layers(network, chains)
        if id(output) in codings and (layer not in chains or _is_one_operator(layer, chains[layer]))
    }
    for addition in concatenated:
        parts = [codings[id(tensor)] for tensor in addition.input]
        factor, shift = (np.concatenate([getattr(part, name) for part in parts]) for name in ("factor", "shift"))
        codings[id(addition.output)] = Coding(factor, shift)
    of_convolutions = {
        layer.name: (codings.get(id(layer.input)), codings.get(id(_end(layer, chain))))
        for layer, chain in chains.items()
    }
    return Equalization(of_convolutions, concatenated, coded_ranges)


def _find_coded(network: keras.Model, chains: Chains) -> tuple[list[Tensors], list[layers.Add]]:
    """Returns the groups of tensors that can have a coding, and the sums all of whose summands are among them.

    Other sums are computed: a summand without a coding has a range of its own, and tensors that are concatenated must
    have one scale. A sum that is computed ties its summands, which may leave other tensors without a coding.
    """
    concatenated = find_concatenated(network)
    while True:
        groups = _find_groups(network, chains, concatenated)
        coded = {tensor for group in groups for tensor in group}
        kept = [addition for addition in concatenated if coded >= {id(tensor) for tensor in addition.input}]
        if kept == concatenated:
            return groups, concatenated
        concatenated = kept


def _code_range(found: np.ndarray, coding: Coding) -> tuple[float, float]:
    """Returns the range of all channels of a tensor, as coded."""
    coded = coding.factor * (found - coding.shift)
    return min(float(coded.min()), 0.0), max(float(coded.max()), 0.0)


def find_concatenated(network: keras.Model) -> list[layers.Add]:
    """Returns the additions whose sum only one convolution reads, which can therefore read the summands instead."""
    uses = find_uses(network)
    return [
        layer
        for layer, _, output in walk_layers(network)
        if isinstance(layer, layers.Add)
        and len({tensor.shape[-1] for tensor in layer.input}) == 1
        and len(uses[id(output)]) == 1
        and (reader := uses[id(output)][0][0]) is not None
        and find_rule(reader).kind in (Kind.CONVOLUTION, Kind.TRANSPOSED_CONVOLUTION)
    ]


def recode(weights: Weights, before: Coding | None, after: Coding | None) -> Weights:
    """Returns the weights with which a convolution reads and writes coded tensors.

    Args:
        weights: Kernel, (height, width, inputs, outputs), and bias, for plain tensors.
        before: The coding of its input.
        after: The coding of its output; without a shift if an activation follows.

    Returns:
        Kernel and bias, float32.
    """
    kernel, bias = weights
    if before is not None:
        before = before.of_phases(kernel.shape[2])
        bias = bias + np.einsum("hwio,i->o", kernel, before.shift)
        kernel = kernel / before.factor[:, None]
    if after is not None:
        after = after.of_phases(kernel.shape[3])
        kernel, bias = kernel * after.factor, (bias - after.shift) * after.factor
    return kernel.astype(np.float32), bias.astype(np.float32)


def _end(layer: keras.Layer, chain: list[keras.Layer]) -> keras.KerasTensor:
    """Returns the output of a layer and of those that are folded into it."""
    return [layer, *chain][-1].output


def _find_groups(network: keras.Model, chains: Chains, concatenated: list[layers.Add]) -> list[Tensors]:
    """Returns the tensors that can have a coding. Those with the same factors are in one group.

    The tensors of a group are in the order of the layers. A group is left out if it contains the network's input or
    output, or if a factor would change what a layer makes. Sums that are not computed have no group, and do not tie
    their summands.
    """
    groups: dict[int, Tensors] = {}
    refused = {id(network.input), id(network.output)}
    for layer, inputs, output in _unfolded_layers(network, chains):
        if layer in concatenated:
            continue
        group: Tensors = {}
        if find_rule(layer).kind in TYING:
            for tensor in inputs:
                group |= groups[id(tensor)]
        elif layer not in chains:
            refused |= {id(output), *map(id, inputs)}
        elif not all(_keeps_factors(one) for one in [layer, *chains[layer]]):
            refused.add(id(output))
        group[id(output)] = output
        groups |= dict.fromkeys(group, group)
    different = {id(group): group for group in groups.values()}
    return [group for group in different.values() if not refused & set(group)]


def _unfolded_layers(
    network: keras.Model, chains: Chains
) -> list[tuple[keras.Layer, list[keras.KerasTensor], keras.KerasTensor]]:
    """Returns the layers as `walk_layers` does, with chains in place of the layers that are folded into others."""
    folded = {layer for chain in chains.values() for layer in chain}
    walked = [row for row in walk_layers(network) if row[0] not in folded]
    return [(layer, inputs, _end(layer, chains.get(layer, []))) for layer, inputs, _ in walked]


def _keeps_factors(layer: keras.Layer) -> bool:
    """Returns whether a layer of a chain maps a positive multiple of its input to that multiple of its output."""
    if isinstance(layer, layers.ReLU):
        return layer.max_value is None and layer.threshold == 0
    activation = getattr(layer, "activation", keras.activations.linear)
    return activation in (keras.activations.linear, keras.activations.relu)


def _is_linear(layer: keras.Layer, chain: list[keras.Layer]) -> bool:
    """Returns whether no activation follows a convolution, so that its output can be shifted."""
    is_activated = any(find_rule(one).kind is Kind.ACTIVATION for one in chain)
    return layer.activation is keras.activations.linear and not is_activated


def _is_one_operator(layer: keras.Layer, chain: list[keras.Layer]) -> bool:
    """Returns whether a convolution and what follows it are one operator in a file, so that they make one tensor."""
    return all(
        isinstance(one, layers.ReLU) and not one.negative_slope
        for one in chain
        if find_rule(one).kind is Kind.ACTIVATION
    )


def _measure_ranges(network: keras.Model, tensors: Tensors, tiles: Sequence[np.ndarray]) -> Ranges:
    """Returns `RANGE_SHARE` of each channel's range on whole tiles, on both sides of its mean."""
    found: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    if tensors:
        model = keras.Model(network.input, list(tensors.values()))
        for tile in tiles:
            for name, values in zip(tensors, keras.tree.flatten(model(tile[None].astype(np.float32))), strict=True):
                values = np.asarray(values, np.float32).reshape(-1, values.shape[-1])
                low, high, mean = found.get(name, (np.inf, -np.inf, 0.0))
                low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
                found[name] = low, high, mean + values.mean(axis=0) / len(tiles)
    return {
        name: np.stack([mean + RANGE_SHARE * (end - mean) for end in (low, high)])
        for name, (low, high, mean) in found.items()
    }


def _find_shifts(network: keras.Model, chains: Chains, uses: Uses, ranges: Ranges) -> Mapping[int, np.ndarray]:
    """Returns the middle of each channel's range, as far as the layers allow it.

    After an activation, it is 0. The shift of a sum is that of its inputs, so the last of them that can be shifted is
    shifted by what centres the sum.
    """
    middles = {tensor: found.mean(axis=0) for tensor, found in ranges.items()}
    shifts: dict[int, np.ndarray] = {}
    free: set[int] = set()
    for layer, inputs, output in _unfolded_layers(network, chains):
        if id(output) not in ranges:
            continue
        if layer in chains:
            is_linear = _is_linear(layer, chains[layer])
            shifts[id(output)] = middles[id(output)] * is_linear
            free |= {id(output)} if is_linear and len(uses[id(output)]) == 1 else set()
            continue
        shifts[id(output)] = np.sum([shifts[id(tensor)] for tensor in inputs], axis=0)
        for tensor in [id(tensor) for tensor in inputs if id(tensor) in free][-1:]:
            shifts[tensor] = shifts[tensor] + middles[id(output)] - shifts[id(output)]
            shifts[id(output)] = middles[id(output)]
    return shifts


def _find_factor(distances: list[np.ndarray], widest: np.ndarray) -> np.ndarray:
    """Returns what makes the channels of a group alike: one over the geometric mean of their ranges.

    Args:
        distances: Largest distance of each channel from its shift, for each tensor of the group.
        widest: The distances of the tensor whose widest channel gets the distance `LARGEST`, so that tensors which are
            concatenated have one scale.
    """
    relative = [values / max(values.max(), np.finfo(np.float32).tiny) + SMALLEST for values in distances]
    factor = np.exp(-np.mean(np.log(relative), axis=0))
    largest = (widest * factor).max()
    return LARGEST * factor / largest if largest > 0 else factor  # responses may all be 0
