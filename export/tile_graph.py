"""The tile graph: a network rearranged so that it computes only the middle of a tile and what that depends on."""

import math
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import layers

from keras_psr.export.enlargement import CENTRE, COPIES
from keras_psr.export.folding import Chains, Uses, Weights, find_foldable, find_rescalings, find_uses, folded_weights
from keras_psr.export.operators import (
    CHANNEL_GROUP,
    apply_pointwise,
    convolve,
    depth_to_space,
    enlarge,
    find_multiples,
    in_blocks,
    is_plain,
    largest_block,
    transposed_weights,
)
from keras_psr.export.quantization import Quantization, scope_of
from keras_psr.images.tiling import Geometry
from keras_psr.networks.layer_kinds import Interval, Kind, find_rule, side, transposed_crop
from keras_psr.networks.receptive_field import pixels_read, walk_layers


@dataclass(frozen=True)
class Part:
    """A square part of a layer's output.

    Attributes:
        pixels: The part, (batch, rows, columns, channels).
        first: Position of its first row, and first column, in the whole output.
    """

    pixels: tf.Tensor
    first: int = 0


class TileGraph:
    """A network's layers, applied to a tile.

    No layer reaches a border. Therefore the rescaling of the input can be folded into the convolution after it, and a
    convolution to few channels after a transposed convolution can read the phases directly, so that only its own few
    channels have to be rearranged. With 8 bits, the exit may enlarge the picture as well (`enlargement.py`).
    """

    def __init__(
        self, network: keras.Model, geometry: Geometry, tile: int, quantization: Quantization | None = None
    ) -> None:
        """Determines which pixels of each layer's output are needed.

        Args:
            network: A functional model from (batch, height, width, 3) to an enlarged picture.
            geometry: The network's geometry.
            tile: Side of the tile, in input pixels.
            quantization: Finds the weights of a file with 8 bits; None for plain weights.

        Raises:
            ConfigError: The tile is not larger than its halo, or not a multiple of the grid.
            ModelError: The network has a layer of an unknown kind.
        """
        self._quantization = quantization
        self._enlargement = quantization.enlargement if quantization else None
        uses, first = find_uses(network), geometry.halo * geometry.scale
        self._network, self._result = network, (first, first + geometry.middle(tile) * geometry.scale - 1)
        self._wanted, self._multiples = pixels_read(network, self._result), find_multiples(network)
        self._folded = find_foldable(uses, network)
        self._done = {layer for chain in self._folded.values() for layer in chain}
        self._readers = _find_phase_readers(self._folded, uses)
        self._writers = {reader: writer for writer, reader in self._readers.items()}
        self._rescalings = find_rescalings(self._folded, uses, network)

    def __call__(self, tile: tf.Tensor) -> tf.Tensor:
        """Maps a tile, float32 (batch, tile, tile, 3), to its enlarged middle, float32 (batch, side, side, 3)."""
        parts = {id(self._network.input): Part(tile)}
        for index, (layer, inputs, output) in enumerate(walk_layers(self._network)):
            if inputs and id(output) in self._wanted:
                given = [parts[id(tensor)] for tensor in inputs]
                if self._enlargement and layer is self._enlargement.features:
                    given += [Part(tile - CENTRE)] * COPIES
                with tf.name_scope(scope_of(index)):
                    parts[id(output)] = self._apply(layer, given, inputs[0], output)
        return _cut(parts[id(self._network.output)], self._result)

    def _apply(
        self, layer: keras.Layer, given: list[Part], first_input: keras.KerasTensor, output: keras.KerasTensor
    ) -> Part:
        wanted = self._wanted[id(output)]
        if layer in self._done or layer in self._rescalings.values():
            return given[0]
        if self._enlargement and layer in (self._enlargement.upsampling, self._enlargement.addition):
            return given[-1]
        if layer in self._writers:
            return self._apply_to_phases(layer, given[0], wanted)
        rule = find_rule(layer)
        read = rule.reads(layer, wanted)
        match rule.kind:
            case Kind.CONVOLUTION:
                return self._apply_convolution(layer, given[0], wanted, self._multiples[id(first_input)])
            case Kind.TRANSPOSED_CONVOLUTION:
                return self._apply_transposed(layer, given[0], wanted)
            case Kind.UPSAMPLING:
                return Part(enlarge(layer, _cut(given[0], read)), read[0] * side(layer, "size"))
            case Kind.BORDER:  # the needed pixels lie inside, so that only their positions change
                return Part(given[0].pixels, given[0].first + wanted[0] - read[0])
            case Kind.ADDITION if self._quantization and layer in self._quantization.concatenated:
                return Part(tf.concat([_cut(part, read) for part in given], axis=-1), wanted[0])
            case _:
                return Part(apply_pointwise(layer, [_cut(part, read) for part in given]), wanted[0])

    def _apply_convolution(self, layer: layers.Conv2D, given: Part, wanted: Interval, multiple: int) -> Part:
        block = largest_block(layer, multiple)
        blocks = math.ceil((wanted[1] + 1 - wanted[0]) / block)
        read = find_rule(layer).reads(layer, (wanted[0], wanted[0] + blocks * block - 1))
        weights = in_blocks(folded_weights(layer, self._folded[layer], self._rescalings.get(layer)), block)
        return Part(depth_to_space(self._convolve(layer, _cut(given, read), weights, block), block), wanted[0])

    def _apply_transposed(self, layer: layers.Conv2DTranspose, given: Part, wanted: Interval) -> Part:
        """Returns the layer's pixels, or their phases if a convolution reads these."""
        stride = side(layer, "strides")
        first, last = _cells(layer, wanted)
        weights = transposed_weights(layer, self._folded[layer])
        x = _cut(given, (first + 1 - weights[0].shape[0], last))
        phases = self._convolve(layer, x, weights)
        if layer in self._readers:
            return Part(phases, first)
        return Part(depth_to_space(phases, stride), first * stride - transposed_crop(layer))

    def _apply_to_phases(self, layer: layers.Conv2D, given: Part, wanted: Interval) -> Part:
        """Computes a convolution after a transposed convolution from its phases, as a smaller convolution."""
        writer = self._writers[layer]
        stride = side(writer, "strides")
        kernel, bias = in_blocks(folded_weights(layer, self._folded[layer]), stride)
        # The window of a block starts `reach` pixels before the block, that is, at the first phase of a cell.
        cells = kernel.shape[0] // stride
        kernel = kernel.reshape(cells, stride, cells, stride, kernel.shape[2], -1)
        kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(cells, cells, given.pixels.shape[-1], -1)
        (first, last), reach = _cells(writer, wanted), cells // 2
        x = self._convolve(layer, _cut(given, (first - reach, last + reach)), (kernel, bias))
        return Part(depth_to_space(x, stride), first * stride - transposed_crop(writer))

    def _convolve(
        self, layer: layers.Conv2D | layers.Conv2DTranspose, x: tf.Tensor, weights: Weights, block: int = 1
    ) -> tf.Tensor:
        """Applies a layer's convolution with weights for plain tensors, or with those of the quantization instead."""
        if self._quantization:
            weights = self._quantization.find_weights(layer, x, weights, block)
        return convolve(layer, self._folded[layer], x, weights, block)


def _cut(part: Part, pixels: Interval) -> tf.Tensor:
    """Returns an interval of rows and columns, with zeros beyond the part; no needed pixel depends on the zeros."""
    length = part.pixels.shape[1]
    first, end = pixels[0] - part.first, pixels[1] + 1 - part.first
    inside = slice(max(first, 0), min(end, length))
    x = part.pixels if inside == slice(0, length) else part.pixels[:, inside, inside]
    around = [max(-first, 0), max(end - length, 0)]
    return tf.pad(x, [[0, 0], around, around, [0, 0]]) if any(around) else x


def _cells(layer: layers.Conv2DTranspose, pixels: Interval) -> Interval:
    """Returns the blocks of phases that contain an interval of a transposed convolution's output."""
    stride, cropped = side(layer, "strides"), transposed_crop(layer)
    return (pixels[0] + cropped) // stride, (pixels[1] + cropped) // stride


def _find_phase_readers(folded: Chains, uses: Uses) -> dict[keras.Layer, keras.Layer]:
    """Maps transposed convolutions to their only consumer, if that is a convolution to few channels that fits.

    It fits if its kernel reaches a whole number of cells; otherwise it would need more multiplications than before.
    """
    readers = {}
    for layer, chain in folded.items():
        found = uses[id((chain[-1] if chain else layer).output)]
        if not isinstance(layer, layers.Conv2DTranspose) or len(found) != 1:
            continue
        reader, stride = found[0][0], side(layer, "strides")
        if (
            is_plain(reader)
            and reader.filters * stride**2 <= CHANNEL_GROUP
            and side(reader, "kernel_size") // 2 % stride == 0
        ):
            readers[layer] = reader
    return readers
