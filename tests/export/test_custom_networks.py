"""int8 files of networks that are not ours, whose layers ask for more care than those of `fast`."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from keras_psr.data.sources import open_sources
from keras_psr.export.calibration import calibration_tiles
from keras_psr.export.conversion import convert, measure_quantization
from keras_psr.export.delegates import list_operators
from keras_psr.inference.litert import TileInterpreter
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.super_resolution import build_network

TILE = 40


@pytest.fixture(scope="module")
def tiles():
    return calibration_tiles(open_sources(["sample"]), scale=2, tile=TILE, count=12)


def convolution(name=None, activation=None, filters=8):
    return layers.Conv2D(filters, 3, padding="same", activation=activation, name=name)


def finish(image, x, exit_layer=None):
    details = (exit_layer or layers.Conv2DTranspose(3, 4, strides=2, padding="same"))(x)
    return keras.Model(image, layers.Add()([layers.UpSampling2D(2, interpolation="bilinear")(image), details]))


def plain_summand():
    """A summand that is no convolution's output has a range of its own, which must not spoil that of the other."""
    image = layers.Input((None, None, 3))
    unit = layers.Rescaling(1 / 127.5, offset=-1)(image)
    return finish(image, layers.Add()([unit, convolution(filters=3)(convolution(activation="relu")(unit))]))


def tanh_summand():
    image = layers.Input((None, None, 3))
    unit = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = convolution(activation="tanh")(unit)
    return finish(image, layers.Add()([x, convolution()(x)]))


def long_skip():
    image = layers.Input((None, None, 3))
    entry = x = convolution(activation="relu")(layers.Rescaling(1 / 127.5, offset=-1)(image))
    for _ in range(3):
        x = layers.Add()([x, convolution()(convolution(activation="relu")(x))])
    return finish(image, layers.Add()([entry, convolution()(x)]))


def leaky():
    image = layers.Input((None, None, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    for _ in range(2):
        x = layers.LeakyReLU(negative_slope=0.3)(convolution()(x))
    return finish(image, x)


def odd_scale():
    image = layers.Input((None, None, 3))
    x = convolution(activation="relu")(layers.Rescaling(1 / 127.5, offset=-1)(image))
    details = layers.Conv2DTranspose(3, 6, strides=3, padding="same")(layers.Add()([x, convolution()(x)]))
    return keras.Model(image, layers.Add()([layers.UpSampling2D(3, interpolation="bilinear")(image), details]))


def one_filter():
    image = layers.Input((None, None, 3))
    x = convolution(activation="relu")(layers.Rescaling(1 / 127.5, offset=-1)(image))
    exit_layer = layers.Conv2DTranspose(1, 4, strides=2, padding="same")
    return finish(image, layers.Add()([x, convolution()(x)]), exit_layer)


def finish_of_block():
    image = layers.Input((None, None, 3))
    x = convolution(activation="relu")(layers.Rescaling(1 / 127.5, offset=-1)(image))
    return finish(image, layers.Add()([x, convolution()(x)]))


NETWORKS = [plain_summand, tanh_summand, long_skip, leaky, odd_scale, one_filter, finish_of_block]


@pytest.mark.parametrize("build", NETWORKS)
def test_int8_gives_the_networks_pixels(build, tiles):
    keras.utils.set_random_seed(0)
    network = build()
    for layer in network.layers:
        if isinstance(layer, layers.Conv2DTranspose):
            layer.kernel.assign(10 * layer.kernel)
    geometry = measure_geometry(network)
    cut = slice(geometry.halo * geometry.scale, -geometry.halo * geometry.scale)
    expected = np.clip(np.asarray(network(tiles[0][None].astype(np.float32)))[0, cut, cut], 0, 255)
    difference = np.abs(TileInterpreter(convert(network, "int8", TILE, tiles))(tiles[0]) - expected)
    assert difference.mean() < 0.7 and difference.max() < 12


def test_an_exit_that_leaves_the_picture_no_fine_weights_does_not_enlarge_it(tiles):
    keras.utils.set_random_seed(0)
    network = finish_of_block()
    exit_layer = next(layer for layer in network.layers if isinstance(layer, layers.Conv2DTranspose))
    for factor, is_resized in ((10, False), (1000, True)):
        exit_layer.kernel.assign(factor * exit_layer.kernel)
        names = [name for name, _ in list_operators(convert(network, "int8", TILE, tiles))]
        assert ("RESIZE_BILINEAR" in names) == is_resized


@pytest.mark.parametrize("name", ["my conv", "_conv", "conv#1"])
def test_names_of_layers_need_not_be_names_of_scopes(name, tiles):
    image = layers.Input((None, None, 3))
    x = convolution(name, "relu")(layers.Rescaling(1 / 127.5, offset=-1)(image))
    network = finish(image, x)
    for variant in ("float32", "int8"):
        assert TileInterpreter(convert(network, variant, TILE, tiles)).shape == (1, TILE, TILE, 3)


@pytest.mark.parametrize("dead", ["block1_conv1", "block2_conv2"])
def test_a_block_that_never_fires(dead, tiles):
    """As in networks of 64 filters after a long fit, and in those just grown by `--init`."""
    network = build_network("fast", scale=2, num_filters=4, num_residual_blocks=2)
    for weight in network.get_layer(dead).weights:
        weight.assign(weight * 0)
    content = convert(network, "int8", TILE, tiles)
    assert (TileInterpreter(content)(np.full((TILE, TILE, 3), 90, np.uint8)) == 90).all()


def test_all_ranges_are_found_in_the_file(tiles):
    for network in (build_network(one, scale=2, num_filters=4, num_residual_blocks=2) for one in ("fast", "residual")):
        content = convert(network, "int8", TILE, tiles)
        scopes = {tensor["name"].split("/")[0] for tensor in Interpreter(model_content=content).get_tensor_details()}
        ranges = measure_quantization(network, tiles).ranges
        assert len(ranges) > 5 and set(ranges) <= scopes
