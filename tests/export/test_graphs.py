import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_psr.errors import ModelError
from keras_psr.export.conversion import export_function
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.networks.super_resolution import build_network


def randomize(network):
    """Weights and batch norm statistics with which every part of the graph matters."""
    generator = np.random.default_rng(0)
    for weight in network.weights:
        spread = 1 / np.sqrt(np.prod(weight.shape[:-1])) if weight.name == "kernel" else 0.2
        centre = 1 if weight.name in ("gamma", "moving_variance") else 0
        weight.assign(generator.normal(centre, spread, weight.shape))
    return network


def make_image(size):
    return np.random.default_rng(1).integers(0, 256, (1, size, size, 3)).astype(np.float32)


def check_pixels(network, tolerance, middle=5):
    """Compares the functions of tiles and of open sizes with the network, on noise, and returns what it gives."""
    geometry = measure_geometry(network)
    halo, scale = geometry.halo, geometry.scale
    image = make_image(middle * geometry.grid + 2 * halo)
    expected = np.asarray(network(image, training=False))
    whole = np.asarray(export_function(network, None, clip=False)(image)["image"])
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=tolerance)
    cut = slice(halo * scale, -halo * scale or None)
    part = np.asarray(export_function(network, image.shape[1], clip=False)(image)["image"])
    np.testing.assert_allclose(part, expected[:, cut, cut], rtol=1e-4, atol=tolerance)
    return expected


def find_operations(network, tile=64):
    return export_function(network, tile).get_concrete_function().graph.get_operations()


def list_operations(network, tile=64):
    return {operation.type for operation in find_operations(network, tile)}


@pytest.mark.parametrize("architecture", ["residual", "johnson2016", "fast"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_rearranged_graph_gives_the_same_pixels(architecture, scale):
    network = randomize(build_network(architecture, scale=scale, num_filters=6, num_residual_blocks=2))
    assert np.ptp(check_pixels(network, 0.005)) > 20
    assert "Conv2DBackpropInput" not in list_operations(network)


@pytest.mark.parametrize(
    ("kernel_size", "stride"), [*itertools.product([1, 2, 3, 4, 5, 6, 9], [1, 2, 3, 4]), (8, 4), (16, 8)]
)
def test_transposed_convolutions(kernel_size, stride):
    image = keras.Input((None, None, 3))
    x = layers.Conv2DTranspose(5, kernel_size, strides=stride, padding="same")(image)
    check_pixels(randomize(keras.Model(image, layers.BatchNormalization()(x) if kernel_size > 2 else x)), 1e-3)


def pairwise(firsts, seconds, thirds):
    """A part of all triples, in which every two values of different lists meet."""
    pairs = itertools.product(enumerate(firsts), enumerate(seconds))
    return [(first, second, thirds[(i + j) % len(thirds)]) for (i, first), (j, second) in pairs]


@pytest.mark.parametrize(("upsampling", "kernel_size", "filters"), pairwise([1, 2, 3, 4], [1, 4, 9], [1, 3, 5]))
def test_convolutions_to_few_channels(filters, kernel_size, upsampling):
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(filters, kernel_size, padding="same", activation="tanh")(
        layers.UpSampling2D(upsampling)(layers.Rescaling(0.01)(image))
    )
    network = randomize(keras.Model(image, x))
    check_pixels(network, 1e-4)
    assert ("DepthToSpace" in list_operations(network)) == (
        kernel_size % 2 == 1 and upsampling > 1 and filters <= {2: 4, 3: 1, 4: 4}[upsampling]
    )


@pytest.mark.parametrize(
    ("transposed", "exit_size", "filters"),
    pairwise([(2, 2), (3, 2), (4, 2), (5, 2), (3, 3), (8, 4)], [1, 3, 4, 5, 9], [1, 3, 5]),
)
def test_few_channels_after_a_transposed_convolution(transposed, exit_size, filters):
    kernel_size, stride = transposed
    image = keras.Input((None, None, 3))
    x = layers.Rescaling(0.01)(image)
    x = layers.Conv2DTranspose(6, kernel_size, strides=stride, padding="same", activation="relu")(x)
    network = randomize(keras.Model(image, layers.Conv2D(filters, exit_size, padding="same", activation="tanh")(x)))
    check_pixels(network, 1e-4)
    reach = exit_size // 2
    laid_out = [operation.inputs[0] for operation in find_operations(network) if operation.type == "DepthToSpace"]
    fits = exit_size % 2 == 1 and reach % stride == 0 and filters * stride**2 <= 16
    assert ([tensor.shape[-1] for tensor in laid_out] == [filters * stride**2]) == fits


def test_phases_that_two_layers_read_are_laid_out():
    image = keras.Input((None, None, 3))
    x = layers.Conv2DTranspose(6, 4, strides=2, padding="same")(image)
    network = randomize(keras.Model(image, layers.Add()([layers.Conv2D(1, 5, padding="same")(x), x])))
    check_pixels(network, 1e-3)


def test_batch_norm_after_an_activation_or_a_branch_is_not_folded_into_the_convolution():
    image = keras.Input((None, None, 3))
    first = layers.Conv2D(3, 3, padding="same", activation="relu")(image)
    with_norm = layers.BatchNormalization(trainable=False)(first)
    second = layers.Conv2D(3, 3, padding="same")(with_norm)
    branched = layers.BatchNormalization(trainable=False)(second)
    network = randomize(keras.Model(image, layers.Add()([second, branched])))
    check_pixels(network, 1e-3)


def test_an_open_size_gives_the_same_pixels():
    network = randomize(build_network("residual", num_filters=4, num_residual_blocks=1))
    function = export_function(network, None, clip=False)
    for height, width in ((5, 9), (8, 6)):
        image = make_image(10)[:, :height, :width]
        assert np.abs(np.asarray(function(image)["image"]) - np.asarray(network(image))).max() < 0.005


def test_clip():
    network = randomize(build_network("residual", num_filters=4, num_residual_blocks=1))
    network.get_layer("exit").kernel.assign(network.get_layer("exit").kernel.value * 500)
    halo, image = measure_geometry(network).halo, make_image(40)
    expected = np.clip(np.asarray(network(image)), 0, 255)[:, 4 * halo : -4 * halo, 4 * halo : -4 * halo]
    assert (expected == 0).any() and (expected == 255).any()
    assert np.abs(export_function(network, 40)(image)["image"] - expected).max() < 0.01


def test_weights_are_constants():
    function = export_function(build_network(num_filters=2, num_residual_blocks=1), 40).get_concrete_function()
    assert not function.captured_inputs


def test_an_unknown_layer_is_named():
    image = keras.Input((None, None, 3))
    network = keras.Model(image, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(image))
    with pytest.raises(ModelError, match="layer depthwise is of an unknown kind, DepthwiseConv2D"):
        export_function(network, 8).get_concrete_function()


def test_names_of_input_and_output():
    function = export_function(build_network(num_filters=2, num_residual_blocks=1), 40).get_concrete_function()
    assert function.structured_outputs["image"].shape == (1, 4 * (40 - 2 * 8), 4 * (40 - 2 * 8), 3)
    assert function.structured_input_signature[0][0].name == "image"
    assert function.structured_outputs["image"].dtype == tf.float32


@pytest.mark.parametrize("architecture", ["style", "johnson2016-style"])
def test_style_networks_give_the_same_pixels(architecture):
    network = randomize(build_style_network(architecture, num_filters=4, num_residual_blocks=2))
    assert np.ptp(check_pixels(network, 0.01)) > 20
    operations = list_operations(network, 96)
    assert "Conv2DBackpropInput" not in operations and not {name for name in operations if "BatchNorm" in name}


def test_tiles_compute_only_what_their_middle_needs():
    image = keras.Input((None, None, 3))
    entry = layers.Conv2D(20, 5, padding="same")(layers.Rescaling(1 / 255, offset=-0.5)(image))
    branch = layers.Conv2D(20, 3, padding="same")(entry)
    x = layers.Conv2DTranspose(20, 4, strides=2, padding="same")(layers.Add()([entry, branch]))
    network = randomize(keras.Model(image, layers.Rescaling(2.0, offset=5.0)(layers.Conv2D(3, 5, padding="same")(x))))
    check_pixels(network, 1e-3)
    operations = find_operations(network, 32)
    made = [operation.outputs[0].shape.as_list() for operation in operations if operation.type == "Conv2D"]
    # By hand: the halo is 5, so pixels 10 to 53 of the result are wanted. The exit sees 8 to 55, which come from pixels
    # 3 to 28 of the coarse grid in 25 pairs; the branch sees 2 to 29, and the entry 0 to 31. The exit's blocks of 2x2
    # pixels begin at an odd one, so 23 hold the 44 that are wanted.
    assert made == [[1, 28, 28, 20], [1, 26, 26, 20], [1, 25, 25, 80], [1, 23, 23, 12]]
    assert not {"Mul", "Pad", "PadV2"} & {operation.type for operation in operations}
