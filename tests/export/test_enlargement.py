import keras
import numpy as np
import pytest
from keras import layers

from keras_psr.data.sources import open_sources
from keras_psr.export import enlargement
from keras_psr.export.calibration import calibration_tiles
from keras_psr.export.conversion import convert
from keras_psr.export.delegates import list_operators
from keras_psr.export.equalization import find_concatenated
from keras_psr.inference.litert import TileInterpreter
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.networks.super_resolution import build_network

SCALES = [2, 4, 8]


def find_enlargement(network):
    return enlargement.find_enlargement(network, find_concatenated(network))


def bilinear(positions):
    """Weights of two neighbours for each phase of an upsampling in one direction, by definition."""
    return np.stack([1 - positions, positions])


@pytest.mark.parametrize("scale", SCALES)
def test_the_kernel_is_the_bilinear_one_in_whole_steps(scale):
    found = find_enlargement(build_network("fast", scale=scale, num_filters=4, num_residual_blocks=1))
    features = np.random.default_rng(0).normal(0, 0.2, (2, 2, 8, 3 * scale**2))
    steps = found.find_steps(features)
    kernel = found.round_kernel(steps)
    assert kernel.shape == (2, 2, 6, 3 * scale**2)
    units = kernel / steps
    np.testing.assert_allclose(units, np.rint(units), atol=1e-6)
    np.testing.assert_allclose(np.abs(units).max(axis=(0, 1, 2)), 127)
    assert (np.abs(features).max(axis=(0, 1, 2)) <= 127 * steps * (1 + 1e-6)).all()
    np.testing.assert_allclose(kernel.sum(axis=(0, 1, 2)), 1)
    one = bilinear((np.arange(scale) + 0.5) / scale)  # from the centre of a pixel to that of the next
    expected = np.einsum("ia,jb,cd->ijcabd", one, one, np.eye(3)).reshape(2, 2, 3, -1)
    assert (np.abs(kernel[:, :, :3] + kernel[:, :, 3:] - expected) <= 2 * steps).all()


@pytest.mark.parametrize("scale", SCALES)
def test_a_file_without_details_enlarges_bilinearly(scale):
    """The exit of a new network is zero."""
    network = build_network("fast", scale=scale, num_filters=4, num_residual_blocks=1)
    halo, tile = measure_geometry(network).halo, 40
    tiles = calibration_tiles(open_sources(["sample"]), scale=scale, tile=tile, count=6)
    content = convert(network, "int8", tile, tiles)
    names = [name for name, _ in list_operators(content)]
    assert "RESIZE_BILINEAR" not in names and "ADD" not in names and names.count("CONCATENATION") == 1
    for one in tiles:
        cut = slice(halo * scale, -halo * scale)
        expected = np.asarray(network(one[None].astype(np.float32)))[0, cut, cut]
        difference = np.abs(TileInterpreter(content)(one) - expected)
        assert difference.max() < 1.5 and difference.mean() < 0.4  # half a grey level, and rounded weights at edges


def test_grey_areas_keep_their_grey():
    network = build_network("fast", num_filters=4, num_residual_blocks=1)
    content = convert(network, "int8", 40, calibration_tiles(open_sources(["sample"]), scale=4, tile=40, count=6))
    run = TileInterpreter(content)
    for grey in (0, 1, 64, 127, 128, 200, 254, 255):
        assert (run(np.full((40, 40, 3), grey, np.uint8)) == grey).all()


def network_with(
    interpolation="bilinear", scale=2, kernel_size=4, filters=3, activation=None, before=None, read_twice=False
):
    image = layers.Input((None, None, 3))
    enlarged = layers.UpSampling2D(scale, interpolation=interpolation, name="enlarged")(image)
    given = layers.Conv2D(3, 3, strides=scale, padding="same")(enlarged) if read_twice else image
    x = layers.Conv2D(4, 3, padding="same", name="first")(given)
    x = layers.Add(name="sum")([x, layers.Conv2D(4, 3, padding="same", name="second")(x)])
    x = before(x) if before else x
    exit_layer = layers.Conv2DTranspose(
        filters, kernel_size, strides=scale, padding="same", activation=activation, name="exit"
    )
    return keras.Model(image, layers.Add(name="last")([enlarged, exit_layer(x)]))


def test_only_an_exit_that_can_enlarge_does():
    found = find_enlargement(network_with())
    assert [layer.name for layer in (found.features, found.exit, found.upsampling)] == ["sum", "exit", "enlarged"]
    others = [
        network_with(interpolation="nearest"),
        network_with(kernel_size=6),
        network_with(activation="relu"),
        network_with(before=layers.ReLU()),
        network_with(scale=3, kernel_size=6),
        network_with(filters=1),
        network_with(read_twice=True),
        build_network("residual", num_filters=4, num_residual_blocks=1),
        build_network("johnson2016", num_filters=4, num_residual_blocks=1),
        build_style_network(num_filters=4, num_residual_blocks=1),
    ]
    assert [find_enlargement(network) for network in others] == [None] * len(others)
