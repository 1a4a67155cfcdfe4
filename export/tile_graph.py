"""A network on tiles of which only the middle is wanted: its layers compute what that depends on, and nothing else."""

import math
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import layers

from keras_psr.export.operators import (
    CHANNEL_GROUP,
    Chains,
    Uses,
    apply_pointwise,
    convolve,
    convolve_in_blocks,
    depth_to_space,
    enlarge,
    find_foldable,
    find_multiples,
    find_uses,
    folded_weights,
    in_blocks,
    is_plain,
    largest_block,
    transposed_weights,
)
from keras_psr.networks.receptive_field import (
    Interval,
    pixels_read,
    pixels_read_by,
    side,
    transposed_crop,
    walk_layers,
)
from keras_psr.networks.style_transfer import ReflectionPadding2D


@dataclass(frozen=True)
class Part:
    """Some rows, and the same columns, of what a layer gives.

    Attributes:
        pixels: (batch, rows, columns, channels).
        first: The place of the first of them in the whole.
    """

    pixels: tf.Tensor
    first: int = 0


class Middle:
    """The layers of a network, applied to a tile.

    No layer sees a border. So the rescaling of the input can be folded into the convolution behind it; and a
    convolution to few channels behind a transposed one reads its phases as they are, so that only its few channels are
    laid out.
    """

    def __init__(self, network: keras.Model, wanted: Interval) -> None:
        """Finds out what is needed of each layer.

        Args:
            network: A functional model from (batch, height, width, 3) to an enlarged picture.
            wanted: First and last output pixel, along both sides, that is wanted; none of them depends on what lies
                beyond the tile (`receptive_halo`).

        Raises:
            ModelError: The network has a layer of an unknown kind.
        """
        uses = find_uses(network)
        self._network, self._result = network, wanted
        self._wanted, self._multiples = pixels_read(network, wanted), find_multiples(network)
        self._folded = find_foldable(uses, network)
        self._done = {layer for chain in self._folded.values() for layer in chain}
        self._readers = _find_phase_readers(self._folded, uses)
        self._writers = {reader: writer for writer, reader in self._readers.items()}
        self._rescalings = _find_rescalings(self._done, uses, network)

    def __call__(self, tile: tf.Tensor) -> tf.Tensor:
        """The wanted pixels, float32 (batch, rows, columns, 3), of a tile, float32 (batch, height, width, 3)."""
        parts = {id(self._network.input): Part(tile)}
        for layer, inputs, output in walk_layers(self._network):
            if inputs and id(output) in self._wanted:
                parts[id(output)] = self._apply(layer, [parts[id(tensor)] for tensor in inputs], inputs[0], output)
        return _cut(parts[id(self._network.output)], self._result)

    def _apply(
        self, layer: keras.Layer, given: list[Part], first_input: keras.KerasTensor, output: keras.KerasTensor
    ) -> Part:
        wanted = self._wanted[id(output)]
        if layer in self._done or layer in self._rescalings.values():
            return given[0]
        if isinstance(layer, layers.Conv2DTranspose):
            return self._apply_transposed(layer, given[0], wanted)
        if layer in self._writers:
            return self._apply_to_phases(layer, given[0], wanted)
        if isinstance(layer, layers.Conv2D):
            return self._apply_convolution(layer, given[0], wanted, self._multiples[id(first_input)])
        read = pixels_read_by(layer, wanted)
        if isinstance(layer, layers.UpSampling2D):
            return Part(enlarge(layer, _cut(given[0], read)), read[0] * side(layer, "size"))
        if isinstance(layer, (layers.Cropping2D, ReflectionPadding2D)):  # what is wanted lies inside: only places move
            return Part(given[0].pixels, given[0].first + wanted[0] - read[0])
        return Part(apply_pointwise(layer, [_cut(part, read) for part in given]), wanted[0])

    def _apply_convolution(self, layer: layers.Conv2D, given: Part, wanted: Interval, multiple: int) -> Part:
        block = largest_block(layer, multiple)
        blocks = math.ceil((wanted[1] + 1 - wanted[0]) / block)
        read = pixels_read_by(layer, (wanted[0], wanted[0] + blocks * block - 1))
        x, rescaling = _cut(given, read), self._rescalings.get(layer)
        return Part(convolve_in_blocks(layer, self._folded[layer], x, block, rescaling=rescaling), wanted[0])

    def _apply_transposed(self, layer: layers.Conv2DTranspose, given: Part, wanted: Interval) -> Part:
        """Its pixels, or their phases for the convolution that reads these."""
        stride = side(layer, "strides")
        first, last = _cells(layer, wanted)
        weights = transposed_weights(layer, self._folded[layer])
        x = _cut(given, (first + 1 - weights[0].shape[0], last))
        phases = convolve(layer, self._folded[layer], x, weights)
        if layer in self._readers:
            return Part(phases, first)
        return Part(depth_to_space(phases, stride), first * stride - transposed_crop(layer))

    def _apply_to_phases(self, layer: layers.Conv2D, given: Part, wanted: Interval) -> Part:
        """A convolution of what a transposed one gives, computed from the phases, where it is a smaller one."""
        writer = self._writers[layer]
        stride = side(writer, "strides")
        kernel, bias = in_blocks(folded_weights(layer, self._folded[layer]), stride)
        # The window of a block starts `reach` pixels before it, so at the first phase of a cell.
        cells = kernel.shape[0] // stride
        kernel = kernel.reshape(cells, stride, cells, stride, kernel.shape[2], -1)
        kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(cells, cells, given.pixels.shape[-1], -1)
        (first, last), reach = _cells(writer, wanted), cells // 2
        x = convolve(layer, self._folded[layer], _cut(given, (first - reach, last + reach)), (kernel, bias))
        return Part(depth_to_space(x, stride), first * stride - transposed_crop(writer))


def _cut(part: Part, pixels: Interval) -> tf.Tensor:
    """An interval of rows and columns; zeros where the part has none, on which nothing depends that is wanted."""
    length = part.pixels.shape[1]
    first, end = pixels[0] - part.first, pixels[1] + 1 - part.first
    inside = slice(max(first, 0), min(end, length))
    x = part.pixels if inside == slice(0, length) else part.pixels[:, inside, inside]
    around = [max(-first, 0), max(end - length, 0)]
    return tf.pad(x, [[0, 0], around, around, [0, 0]]) if any(around) else x


def _cells(layer: layers.Conv2DTranspose, pixels: Interval) -> Interval:
    """The blocks of phases that hold pixels of what a transposed convolution gives."""
    stride, cropped = side(layer, "strides"), transposed_crop(layer)
    return (pixels[0] + cropped) // stride, (pixels[1] + cropped) // stride


def _find_rescalings(done: set[keras.Layer], uses: Uses, network: keras.Model) -> dict[keras.Layer, layers.Rescaling]:
    """For convolutions the rescaling before them, if only convolutions read it, and none before does it already."""
    rescalings: dict[keras.Layer, layers.Rescaling] = {}
    for layer, _, output in walk_layers(network):
        takers = [taker for taker, _ in uses[id(output)]]
        if isinstance(layer, layers.Rescaling) and layer not in done:
            if all(isinstance(taker, layers.Conv2D) for taker in takers):
                rescalings |= dict.fromkeys(takers, layer)
    return rescalings


def _find_phase_readers(folded: Chains, uses: Uses) -> dict[keras.Layer, keras.Layer]:
    """For transposed convolutions the convolution to few channels that alone reads what they give, if its window fits.

    It fits where it looks as far as a whole number of phases; otherwise it would have more to multiply than before.
    """
    readers = {}
    for layer, chain in folded.items():
        takers = uses[id((chain[-1] if chain else layer).output)]
        if not isinstance(layer, layers.Conv2DTranspose) or len(takers) != 1:
            continue
        reader, stride = takers[0][0], side(layer, "strides")
        if (
            is_plain(reader)
            and reader.filters * stride**2 <= CHANNEL_GROUP
            and side(reader, "kernel_size") // 2 % stride == 0
        ):
            readers[layer] = reader
    return readers
