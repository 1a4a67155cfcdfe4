import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_psr.errors import ModelError
from keras_psr.export.graph import export_function
from keras_psr.networks import build_network
from keras_psr.style_networks import build_style_network


def randomize(network):
    """Weights and batch norm statistics with which every part of the graph matters."""
    generator = np.random.default_rng(0)
    for weight in network.weights:
        spread = 1 / np.sqrt(np.prod(weight.shape[:-1])) if weight.name == "kernel" else 0.2
        centre = 1 if weight.name in ("gamma", "moving_variance") else 0
        weight.assign(generator.normal(centre, spread, weight.shape))
    return network


def run(network, image, clip=False):
    return np.asarray(export_function(network, image.shape[1], clip=clip)(image)["image"])


def make_image(size=10):
    return np.random.default_rng(1).integers(0, 256, (1, size, size, 3)).astype(np.float32)


def inside(pixels, border=4):
    """Without the pixels that see beyond the picture through an exit of 9x9, where the graph may differ."""
    return np.asarray(pixels)[:, border:-border, border:-border]


def find_operations(network, tile=10):
    return export_function(network, tile).get_concrete_function().graph.get_operations()


def list_operations(network, tile=10):
    return {operation.type for operation in find_operations(network, tile)}


@pytest.mark.parametrize("architecture", ["residual", "johnson2016", "fast"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_rearranged_graph_gives_the_same_pixels(architecture, scale):
    network = randomize(build_network(architecture, scale=scale, num_filters=6, num_residual_blocks=2))
    image = make_image(9)
    expected = np.asarray(network(image, training=False))
    assert np.ptp(expected) > 20
    assert np.abs(inside(run(network, image) - expected)).max() < 0.005
    assert "Conv2DBackpropInput" not in list_operations(network)


@pytest.mark.parametrize(
    ("kernel_size", "stride"), [*itertools.product([1, 2, 3, 4, 5, 6, 9], [1, 2, 3, 4]), (8, 4), (16, 8)]
)
def test_transposed_convolutions(kernel_size, stride):
    image = keras.Input((None, None, 3))
    x = layers.Conv2DTranspose(5, kernel_size, strides=stride, padding="same")(image)
    network = randomize(keras.Model(image, layers.BatchNormalization()(x) if kernel_size > 2 else x))
    expected = np.asarray(network(make_image(7), training=False))
    np.testing.assert_allclose(run(network, make_image(7)), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("filters", [1, 3, 5])
@pytest.mark.parametrize("kernel_size", [1, 4, 9])
@pytest.mark.parametrize("upsampling", [1, 2, 3, 4])
def test_convolutions_to_few_channels(filters, kernel_size, upsampling):
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(filters, kernel_size, padding="same", activation="tanh")(layers.UpSampling2D(upsampling)(image))
    network = randomize(keras.Model(image, x))
    expected = np.asarray(network(make_image(5) / 100))
    np.testing.assert_allclose(run(network, make_image(5) / 100), expected, atol=1e-4)
    assert ("DepthToSpace" in list_operations(network, 5)) == (
        kernel_size % 2 == 1 and upsampling > 1 and filters <= {2: 4, 3: 1, 4: 4}[upsampling]
    )


@pytest.mark.parametrize("filters", [1, 3, 5])
@pytest.mark.parametrize("exit_size", [1, 3, 4, 5, 9])
@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 2), (3, 2), (4, 2), (5, 2), (3, 3), (8, 4)])
def test_few_channels_behind_a_transposed_convolution(kernel_size, stride, exit_size, filters):
    image = keras.Input((None, None, 3))
    x = layers.Conv2DTranspose(6, kernel_size, strides=stride, padding="same", activation="relu")(image)
    network = randomize(keras.Model(image, layers.Conv2D(filters, exit_size, padding="same", activation="tanh")(x)))
    expected = np.asarray(network(make_image(7) / 100))
    reach = exit_size // 2
    differences = run(network, make_image(7) / 100) - expected
    assert np.abs(differences if reach == 0 else inside(differences, reach)).max() < 1e-4
    laid_out = [operation.inputs[0] for operation in find_operations(network) if operation.type == "DepthToSpace"]
    fits = exit_size % 2 == 1 and reach % stride == 0 and filters * stride**2 <= 16
    assert ([tensor.shape[-1] for tensor in laid_out] == [filters * stride**2]) == fits


def test_phases_that_two_layers_read_are_laid_out():
    image = keras.Input((None, None, 3))
    x = layers.Conv2DTranspose(6, 4, strides=2, padding="same")(image)
    network = randomize(keras.Model(image, layers.Add()([layers.Conv2D(1, 5, padding="same")(x), x])))
    np.testing.assert_allclose(run(network, make_image(7)), network(make_image(7)), rtol=1e-4, atol=1e-3)


def test_batch_norm_behind_an_activation_or_a_branch_is_not_folded_into_the_convolution():
    image = keras.Input((None, None, 3))
    first = layers.Conv2D(3, 3, padding="same", activation="relu")(image)
    with_norm = layers.BatchNormalization(trainable=False)(first)
    second = layers.Conv2D(3, 3, padding="same")(with_norm)
    branched = layers.BatchNormalization(trainable=False)(second)
    network = randomize(keras.Model(image, layers.Add()([second, branched])))
    np.testing.assert_allclose(run(network, make_image()), network(make_image(), training=False), rtol=1e-4, atol=1e-3)


def test_an_open_size_gives_the_same_pixels():
    network = randomize(build_network("residual", num_filters=4, num_residual_blocks=1))
    function = export_function(network, None, clip=False)
    for height, width in ((5, 9), (8, 6)):
        image = make_image()[:, :height, :width]
        assert np.abs(np.asarray(function(image)["image"]) - np.asarray(network(image))).max() < 0.005


def test_clip():
    network = randomize(build_network("residual", num_filters=4, num_residual_blocks=1))
    network.get_layer("exit").kernel.assign(network.get_layer("exit").kernel.value * 500)
    expected = np.clip(np.asarray(network(make_image())), 0, 255)
    assert (expected == 0).any() and (expected == 255).any()
    assert np.abs(inside(run(network, make_image(), clip=True) - expected)).max() < 0.01


def test_weights_are_constants():
    function = export_function(build_network(num_filters=2, num_residual_blocks=1), 10).get_concrete_function()
    assert not function.captured_inputs


def test_an_unknown_layer_is_named():
    image = keras.Input((None, None, 3))
    network = keras.Model(image, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(image))
    with pytest.raises(ModelError, match="layer depthwise is of an unknown kind, DepthwiseConv2D"):
        export_function(network, 8).get_concrete_function()


def test_names_of_input_and_output():
    function = export_function(build_network(num_filters=2, num_residual_blocks=1), 10).get_concrete_function()
    assert function.structured_outputs["image"].shape == (1, 40, 40, 3)
    assert function.structured_input_signature[0][0].name == "image"
    assert function.structured_outputs["image"].dtype == tf.float32


@pytest.mark.parametrize("architecture", ["style", "johnson2016-style"])
def test_style_networks_give_the_same_pixels(architecture):
    network = randomize(build_style_network(architecture, num_filters=4, num_residual_blocks=2))
    image = make_image(60)
    expected = np.asarray(network(image, training=False))
    assert np.ptp(expected) > 20
    assert np.abs(inside(run(network, image) - expected)).max() < 0.01
    operations = list_operations(network, 60)
    assert "Conv2DBackpropInput" not in operations and not {name for name in operations if "BatchNorm" in name}
