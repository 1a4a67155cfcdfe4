"""Folds linear layers before and after a convolution into its weights."""

from collections import defaultdict

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_psr.networks.layer_kinds import Kind, find_rule, unknown_layer
from keras_psr.networks.receptive_field import walk_layers

Uses = dict[int, list[tuple[keras.Layer | None, keras.KerasTensor]]]
"""Maps each tensor's id to its consumers, each with its output tensor. The consumer None is the network's output."""

Chains = dict[keras.Layer, list[keras.Layer]]
"""Maps each convolution to the layers after it that are folded into it."""

Weights = tuple[np.ndarray, np.ndarray]
"""Kernel, (size, size, inputs, outputs), and bias of a convolution."""


def find_uses(network: keras.Model) -> Uses:
    """Returns the consumers of each tensor."""
    uses: Uses = defaultdict(list)
    uses[id(network.output)].append((None, network.output))
    for layer, inputs, output in walk_layers(network):
        for tensor in inputs:
            uses[id(tensor)].append((layer, output))
    return uses


def find_makers(network: keras.Model) -> dict[int, tuple[keras.Layer, list[keras.KerasTensor]]]:
    """Maps each tensor's id to the layer that makes it, and to what that layer reads."""
    return {id(output): (layer, inputs) for layer, inputs, output in walk_layers(network)}


def find_foldable(uses: Uses, network: keras.Model) -> Chains:
    """Maps each convolution to the linear layers, then activations, that follow it without a branch."""
    chains: Chains = {}
    for layer, _, output in walk_layers(network):
        if find_rule(layer).kind not in (Kind.CONVOLUTION, Kind.TRANSPOSED_CONVOLUTION):
            continue
        chain: list[keras.Layer] = []
        chains[layer] = chain
        is_linear = layer.activation is keras.activations.linear
        while len(uses[id(output)]) == 1:
            follower, output = uses[id(output)][0]
            kind = None if follower is None else find_rule(follower).kind
            is_linear = is_linear and kind is Kind.LINEAR
            if not is_linear and kind is not Kind.ACTIVATION:
                break
            chain.append(follower)
    return chains


def find_rescalings(chains: Chains, uses: Uses, network: keras.Model) -> dict[keras.Layer, layers.Rescaling]:
    """Maps convolutions to the rescaling before them if only convolutions read it and no chain contains it."""
    done = {layer for chain in chains.values() for layer in chain}
    rescalings: dict[keras.Layer, layers.Rescaling] = {}
    for layer, _, output in walk_layers(network):
        readers = [reader for reader, _ in uses[id(output)]]
        if isinstance(layer, layers.Rescaling) and layer not in done:
            if all(reader is not None and find_rule(reader).kind is Kind.CONVOLUTION for reader in readers):
                rescalings |= dict.fromkeys(readers, layer)
    return rescalings


def folded_weights(
    layer: layers.Conv2D | layers.Conv2DTranspose,
    followers: list[keras.Layer],
    rescaling: layers.Rescaling | None = None,
) -> Weights:
    """Returns a convolution's kernel and bias with the linear layers after it and the rescaling before it folded in.

    Example:
        kernel, bias = folded_weights(convolution, [batch_norm])
    """
    if layer.data_format != "channels_last" or getattr(layer, "groups", 1) != 1:
        raise unknown_layer(layer)
    with tf.init_scope():  # reads the values now, so that they become constants
        kernel = np.asarray(layer.kernel, np.float32)
        bias = np.asarray(layer.bias, np.float32) if layer.use_bias else np.zeros(layer.filters, np.float32)
    if rescaling:
        gain, shift = gain_and_shift(rescaling)
        kernel, bias = kernel * gain, bias + shift * kernel.sum(axis=(0, 1, 2))
    for follower in followers:
        if find_rule(follower).kind is Kind.LINEAR:
            gain, shift = gain_and_shift(follower)
            transposed = isinstance(layer, layers.Conv2DTranspose)  # its kernel is (height, width, outputs, inputs)
            kernel, bias = kernel * (gain[..., None] if transposed else gain), bias * gain + shift
    return kernel, bias


def gain_and_shift(layer: layers.BatchNormalization | layers.Rescaling) -> Weights:
    """Returns gain and shift (x * gain + shift) of a batch norm, per channel, or of a rescaling, for all channels."""
    if isinstance(layer, layers.Rescaling):
        return np.asarray(layer.scale, np.float32), np.asarray(layer.offset, np.float32)
    with tf.init_scope():
        gain = 1 / np.sqrt(np.asarray(layer.moving_variance, np.float32) + layer.epsilon)
        gain = gain * np.asarray(layer.gamma, np.float32) if layer.scale else gain
        beta = np.asarray(layer.beta, np.float32) if layer.center else np.zeros_like(gain)
        return gain, beta - np.asarray(layer.moving_mean, np.float32) * gain
