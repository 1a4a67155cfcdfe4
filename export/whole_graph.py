"""A network's graph rearranged for phones: the same pixels from operators that delegates take whole and run fast."""

import keras
import tensorflow as tf
from keras import layers

from keras_psr.export.operators import (
    apply_pointwise,
    convolve,
    convolve_in_blocks,
    depth_to_space,
    enlarge,
    find_foldable,
    find_multiples,
    find_uses,
    largest_block,
    transposed_weights,
)
from keras_psr.export.tile_graph import Middle
from keras_psr.networks.receptive_field import network_scale, receptive_halo, side, transposed_crop, walk_layers
from keras_psr.networks.style_transfer import ReflectionPadding2D


def export_function(
    network: keras.Model, tile: int | None, *, clip: bool = True
) -> tf.types.experimental.GenericFunction:
    """The network as a TensorFlow function that is ready to be converted.

    A function of tiles gives the middle of a tile, without its halo, and computes only what that needs: convolutions
    are not padded, and what a layer gives beyond that is never made. So its pixels are those of a picture of which the
    tile is a part, and nothing is computed that would be cut off.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged picture.
        tile: Rows and columns of the input, in pixels, more than twice the halo; None leaves them open.
        clip: Clip to [0, 255]. Off for int8, where the range of the output's type does that.

    Returns:
        A function of `image`, float32 (1, tile, tile, 3), that returns {"image": float32 (1, side, side, 3)}, its side
        scale * (tile - 2 * halo); of an open size, scale times the input's sides.

    Raises:
        ModelError: The network has a layer of an unknown kind.
    """
    halo, scale = receptive_halo(network), network_scale(network)
    middle = Middle(network, (halo * scale, (tile - halo) * scale - 1)) if tile else None

    @tf.function(input_signature=[tf.TensorSpec((1, tile, tile, 3), tf.float32, name="image")], autograph=False)
    def upscale(image: tf.Tensor) -> dict[str, tf.Tensor]:
        output = apply_rearranged(network, image) if middle is None else middle(image)
        # RELU fuses into the addition before it, where a MAXIMUM would not.
        return {"image": tf.minimum(tf.nn.relu(output), 255.0) if clip else output}

    return upscale


def apply_rearranged(network: keras.Model, image: tf.Tensor) -> tf.Tensor:
    """Applies a network's layers, rearranged, to a whole picture; inside a function, to one of open size too.

    Batch norm and rescaling are folded into the convolution before them. A transposed convolution becomes a convolution
    that computes all positions of the finer grid as channels, its phases, which DEPTH_TO_SPACE then lays out: bias and
    ReLU fuse into it, where a TRANSPOSE_CONV would leave its ReLU outside XNNPACK in int8. A convolution to few
    channels at the end is computed for blocks of pixels at once in the same manner (`convolutions.CHANNEL_GROUP`).
    Weights are constants.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged picture.
        image: float32 (batch, height, width, 3).

    Returns:
        float32 (batch, scale * height, scale * width, 3), not clipped.

    Raises:
        ModelError: The network has a layer of an unknown kind.
    """
    folded, multiples = find_foldable(find_uses(network), network), find_multiples(network)
    done = {layer for chain in folded.values() for layer in chain}
    tensors = {id(network.input): image}
    for layer, inputs, output in walk_layers(network):
        values = [tensors[id(tensor)] for tensor in inputs]
        if isinstance(layer, layers.InputLayer):
            continue
        elif layer in done:
            result = values[0]
        elif isinstance(layer, layers.Conv2DTranspose):
            result = _apply_transposed(layer, folded[layer], values[0])
        elif isinstance(layer, layers.Conv2D):
            block = largest_block(layer, multiples[id(inputs[0])])
            result = convolve_in_blocks(layer, folded[layer], values[0], block, padding=layer.padding.upper())
        elif isinstance(layer, layers.UpSampling2D):
            result = enlarge(layer, values[0])
        elif isinstance(layer, (layers.Cropping2D, ReflectionPadding2D)):
            result = layer(values[0])
        else:
            result = apply_pointwise(layer, values)
        tensors[id(output)] = result
    return tensors[id(network.output)]


def _apply_transposed(layer: layers.Conv2DTranspose, followers: list[keras.Layer], x: tf.Tensor) -> tf.Tensor:
    """A transposed convolution of a whole picture, cut as padding 'same' does."""
    weights, stride = transposed_weights(layer, followers), side(layer, "strides")
    taps = weights[0].shape[0]
    around = [taps - 1, taps - 1]
    phases = convolve(layer, followers, tf.pad(x, [[0, 0], around, around, [0, 0]]), weights)
    x, first = depth_to_space(phases, stride), transposed_crop(layer)
    last = (taps - 1) * stride - first
    return x[:, first:-last, first:-last] if last else x[:, first:, first:] if first else x
