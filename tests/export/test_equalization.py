import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_psr.export import enlargement, quantization
from keras_psr.export.enlargement import Enlargement
from keras_psr.export.equalization import Coding, equalize, find_concatenated, recode
from keras_psr.export.quantization import Quantization
from keras_psr.export.tile_graph import TileGraph
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.networks.super_resolution import build_network


@pytest.fixture
def tiles():
    return list(np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8))


def with_random_weights(network):
    """Gives all weights values that no layer starts with, and each channel a range of its own."""
    generator = np.random.default_rng(0)
    for weight in network.weights:
        spread = np.exp(generator.normal(0, 1, weight.shape[-1]))
        values = generator.normal(0, 1, weight.shape) * spread / np.sqrt(np.prod(weight.shape[:-1]) or 1)
        weight.assign(np.abs(values) + 0.1 if "variance" in weight.path else values)
    return network


@pytest.mark.parametrize("architecture", ["fast", "residual", "johnson2016", "style", "johnson2016-style"])
def test_equalized_networks_give_the_same_pixels(architecture, tiles, monkeypatch):
    monkeypatch.setattr(quantization, "round_weights", lambda weights, patches, steps=None: weights)
    monkeypatch.setattr(Enlargement, "find_steps", lambda self, kernel: np.full(kernel.shape[3], 1e-6))
    monkeypatch.setattr(enlargement, "LARGEST", 1e6)
    build = build_style_network if "style" in architecture else build_network
    network = with_random_weights(build(architecture, num_filters=8, num_residual_blocks=2))
    for weight in network.get_layer("exit").weights:
        weight.assign(weight / 20)  # so that a tanh after it answers to more than rounding errors
    geometry = measure_geometry(network)
    tile = 2 * geometry.halo + 8
    tiles = [np.resize(one, (tile, tile, 3)) for one in tiles]
    image = tf.constant(np.stack(tiles), tf.float32)
    expected = TileGraph(network, geometry, tile)(image).numpy()
    result = TileGraph(network, geometry, tile, Quantization(network, tiles))(image).numpy()
    assert np.ptp(expected) > 20
    np.testing.assert_allclose(result, expected, atol=1e-4 * np.ptp(expected))
    codings = equalize(network, tiles).codings
    assert sum(after is not None for _, after in codings.values()) == len(codings) - 1  # all but the exit's


def network_of_two(activation, channels=4):
    image = layers.Input((None, None, 3))
    x = layers.Conv2D(channels, 1, name="first")(image)
    x = activation(x) if activation else x
    return with_random_weights(keras.Model(image, layers.Conv2D(3, 1, name="last")(x)))


def kept(values):
    """The range of each channel, four fifths of its distances from the mean."""
    mean = values.mean(axis=(0, 1, 2))
    return [mean + 0.8 * (end(values, axis=(0, 1, 2)) - mean) for end in (np.min, np.max)]


def test_a_channel_is_centred_and_uses_most_of_the_range(tiles):
    network = network_of_two(None)
    codings = equalize(network, tiles).codings
    before, coding = codings["first"]
    assert before is None and codings["last"][0] is coding and codings["last"][1] is None
    values = np.asarray(network.get_layer("first")(np.stack(tiles).astype(np.float32)))
    low, high = (coding.factor * (end - coding.shift) for end in kept(values))
    np.testing.assert_allclose(low, -high, rtol=1e-3)
    assert high.max() == pytest.approx(127, rel=1e-4)
    halves = np.subtract(*kept(values)[::-1]) / 2
    relative = halves / halves.max()
    np.testing.assert_allclose(high / high.max(), relative / (relative + 0.01) * 1.01, rtol=1e-3)


def test_what_follows_a_relu_is_not_shifted(tiles):
    coding = equalize(network_of_two(layers.ReLU()), tiles).codings["first"][1]
    assert (coding.shift == 0).all() and np.ptp(coding.factor) > 0


@pytest.mark.parametrize("activation", [layers.ReLU(6), layers.Activation("tanh"), layers.BatchNormalization()])
def test_only_what_keeps_factors_may_follow(activation, tiles):
    """Batch norm is folded into the convolution, so its output can have a coding."""
    found = equalize(network_of_two(activation), tiles).codings["first"][1]
    assert (found is None) != isinstance(activation, layers.BatchNormalization)


def test_summands_share_factors_and_the_sum_is_centred(tiles):
    network = with_random_weights(build_network("fast", num_filters=4, num_residual_blocks=2))
    codings = equalize(network, tiles).codings
    entry, first = codings["entry"][1], codings["block1_conv2"][1]
    np.testing.assert_array_equal(entry.factor, first.factor)
    total = keras.Model(network.input, network.get_layer("block1_add").output)
    values = np.concatenate([np.asarray(total(tile[None].astype(np.float32)))[0] for tile in tiles])
    middle = np.mean(kept(values[None]), axis=0)
    np.testing.assert_allclose(codings["block2_conv1"][0].shift, middle, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(first.shift, middle, rtol=1e-3, atol=1e-4)  # the entry ends in a ReLU


def test_ranges_are_those_of_the_coded_tensors(tiles):
    network = with_random_weights(build_network("fast", num_filters=4, num_residual_blocks=2))
    equalization = equalize(network, tiles)
    assert list(equalization.ranges) == [
        "entry", "block1_conv1", "block1_conv2", "block1_add", "block2_conv1", "block2_conv2"
    ]  # fmt: skip
    values = np.asarray(keras.Model(network.input, network.get_layer("block1_conv1").output)(np.stack(tiles)))
    coding = equalization.codings["block1_conv1"][1]
    low, high = (coding.factor * (end - coding.shift) for end in kept(values))
    assert equalization.ranges["block1_conv1"] == pytest.approx((min(low.min(), 0), high.max()), rel=1e-4)
    assert equalization.ranges["block2_conv2"] == pytest.approx((-127, 127), rel=0.1)


def test_a_sum_that_one_convolution_reads_is_not_computed(tiles):
    network = with_random_weights(build_network("fast", num_filters=4, num_residual_blocks=2))
    assert [layer.name for layer in find_concatenated(network)] == ["block2_add"]
    codings = equalize(network, tiles).codings
    read, summands = codings["exit"][0], (codings["block2_conv1"][0], codings["block2_conv2"][1])
    np.testing.assert_array_equal(read.factor, np.concatenate([summand.factor for summand in summands]))
    np.testing.assert_array_equal(read.shift, np.concatenate([summand.shift for summand in summands]))


def test_recoded_weights_against_the_convolution_itself():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, 6, 6, 4)).astype(np.float32)
    kernel, bias = generator.normal(size=(3, 3, 4, 6)).astype(np.float32), generator.normal(size=6).astype(np.float32)
    before, after = (Coding(generator.random(n) + 0.5, generator.normal(size=n)) for n in (2, 3))
    recoded, other_bias = recode((kernel, bias), before, after)
    plain = tf.nn.conv2d(x, kernel, 1, "VALID") + bias
    coded = tf.nn.conv2d(np.tile(before.factor, 2) * (x - np.tile(before.shift, 2)), recoded, 1, "VALID") + other_bias
    np.testing.assert_allclose(coded, np.tile(after.factor, 2) * (plain - np.tile(after.shift, 2)), atol=1e-4)
