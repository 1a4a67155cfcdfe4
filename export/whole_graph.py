"""The whole-picture graph: a network rearranged into fast operators that give the same pixels, padding included."""

import keras
import tensorflow as tf
from keras import layers

from keras_psr.export.folding import find_foldable, find_uses
from keras_psr.export.operators import (
    apply_pointwise,
    convolve,
    convolve_in_blocks,
    depth_to_space,
    enlarge,
    find_multiples,
    largest_block,
    transposed_weights,
)
from keras_psr.networks.layer_kinds import Kind, find_rule, side, transposed_crop
from keras_psr.networks.receptive_field import walk_layers


def apply_rearranged(network: keras.Model, image: tf.Tensor) -> tf.Tensor:
    """Applies a network's rearranged layers to a whole picture, whose size may be open inside a function.

    Batch norm and rescaling are folded into the convolution before them. A transposed convolution becomes a convolution
    that computes all positions of the finer grid as channels (its phases), which DEPTH_TO_SPACE then rearranges. Bias
    and ReLU fuse with that convolution, whereas a TRANSPOSE_CONV would leave its ReLU outside XNNPACK in int8. A
    convolution to few channels at the end is computed for blocks of pixels in the same way
    (`operators.CHANNEL_GROUP`). Weights are constants.

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
        if layer in done:
            tensors[id(output)] = values[0]
            continue
        match find_rule(layer).kind:
            case Kind.INPUT:
                continue
            case Kind.CONVOLUTION:
                block = largest_block(layer, multiples[id(inputs[0])])
                result = convolve_in_blocks(layer, folded[layer], values[0], block, layer.padding.upper())
            case Kind.TRANSPOSED_CONVOLUTION:
                result = _apply_transposed(layer, folded[layer], values[0])
            case Kind.UPSAMPLING:
                result = enlarge(layer, values[0])
            case Kind.BORDER:
                result = layer(values[0])
            case _:
                result = apply_pointwise(layer, values)
        tensors[id(output)] = result
    return tensors[id(network.output)]


def _apply_transposed(layer: layers.Conv2DTranspose, followers: list[keras.Layer], x: tf.Tensor) -> tf.Tensor:
    """Applies a transposed convolution to a whole picture and crops the result as padding 'same' does."""
    weights, stride = transposed_weights(layer, followers), side(layer, "strides")
    taps = weights[0].shape[0]
    around = [taps - 1, taps - 1]
    phases = convolve(layer, followers, tf.pad(x, [[0, 0], around, around, [0, 0]]), weights)
    x, first = depth_to_space(phases, stride), transposed_crop(layer)
    last = (taps - 1) * stride - first
    return x[:, first:-last, first:-last] if last else x[:, first:, first:] if first else x
