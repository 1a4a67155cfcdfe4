from zipfile import ZipFile

import keras
import numpy as np
import pytest

from keras_psr.errors import ConfigError
from keras_psr.inference.upscaler import KerasNetwork, Upscaler, load_keras
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import STYLE_ARCHITECTURES, EqualPhases, ReflectionPadding2D, build_style_network


def tiny(architecture="style", **options):
    return build_style_network(architecture, **{"num_filters": 2, "num_residual_blocks": 1, **options})


@pytest.fixture(scope="module")
def network():
    """A network with random weights and statistics, as different as possible everywhere."""
    network, generator = tiny(num_filters=4), np.random.default_rng(0)
    for weight in network.weights:
        centre = 1 if weight.name in ("gamma", "moving_variance") else 0
        weight.assign(generator.normal(centre, 0.2, weight.shape))
    network.get_layer("exit").kernel.assign(generator.normal(0, 0.5, (9, 9, 4, 3)))
    return network


def count_trainable(network):
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


def test_johnson2016_style_has_the_parameters_of_the_papers_table():
    assert count_trainable(build_style_network("johnson2016-style", num_filters=32)) == 1_679_235


def test_johnson2016_style_has_the_sizes_of_the_papers_table():
    network = build_style_network("johnson2016-style", num_filters=32)
    image = np.zeros((1, 256, 256, 3), np.float32)
    named = ["reflection", "entry_relu", "downsample1_relu", "downsample2_relu"]
    named += [f"block{index}_add" for index in range(1, 6)] + ["upsample1_relu", "upsample2_relu", "tanh"]
    sizes = keras.Model(network.input, [network.get_layer(name).output for name in named])(image)
    expected = [336, 336, 168, 84, 80, 76, 72, 68, 64, 128, 256, 256]
    channels = [3, 32, 64, 128, 128, 128, 128, 128, 128, 64, 32, 3]
    assert [tuple(x.shape[1:]) for x in sizes] == [(s, s, c) for s, c in zip(expected, channels, strict=True)]


@pytest.mark.parametrize(("num_filters", "num_residual_blocks"), [(16, 5), (3, 2)])
def test_style_has_the_parameters_that_its_description_gives(num_filters, num_residual_blocks):
    f = num_filters
    convolutions = [(81, 3, f), (9, f, 2 * f), (9, 2 * f, 4 * f), (16, 4 * f, 2 * f), (16, 2 * f, f)]
    convolutions += 2 * num_residual_blocks * [(9, 4 * f, 4 * f)]
    expected = sum(taps * inputs * outputs + 3 * outputs for taps, inputs, outputs in convolutions)  # bias and norm
    network = build_style_network(num_filters=f, num_residual_blocks=num_residual_blocks)
    assert count_trainable(network) == expected + 81 * f * 3 + 3


@pytest.mark.parametrize("architecture", STYLE_ARCHITECTURES)
@pytest.mark.parametrize(("height", "width"), [(12, 16), (44, 60)])
def test_the_output_is_as_large_as_the_input(architecture, height, width):
    network = tiny(architecture)
    assert measure_geometry(network).scale == 1
    assert network(np.zeros((2, height, width, 3), np.float32)).shape == (2, height, width, 3)


@pytest.mark.sixteen_bits
def test_an_unfitted_network_stays_in_the_range_and_computes_in_its_dtype():
    network = tiny(num_filters=8, dtype="mixed_bfloat16")
    output = network(np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32), training=True)
    assert keras.backend.standardize_dtype(output.dtype) == "float32"
    assert network.get_layer("entry").compute_dtype == "bfloat16"
    assert 0 < np.asarray(output).std() < 200


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ConfigError, match="must be one of style, johnson2016-style with --style. Received: 'fast'"):
        tiny("fast")


@pytest.mark.parametrize("architecture", STYLE_ARCHITECTURES)
def test_a_saved_network_is_the_same_again(architecture, tmp_path):
    network = tiny(architecture)
    network.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    np.testing.assert_array_equal(load_keras(tmp_path / "model.keras")(image), Upscaler(network)(image))


def read_config(path):
    with ZipFile(path) as archive:
        return archive.read("config.json").decode()


def test_a_saved_network_is_one_of_plain_keras(tmp_path):
    tiny().save(tmp_path / "model.keras")
    assert "Conv2DTranspose" in read_config(tmp_path / "model.keras")
    assert "keras_psr" not in read_config(tmp_path / "model.keras")


def test_a_file_that_names_the_constraint_by_its_old_place_still_loads(tmp_path):
    network = tiny()
    for name in ("upsample1", "upsample2"):
        network.get_layer(name).kernel_constraint = EqualPhases()
    network.save(tmp_path / "new.keras")
    with ZipFile(tmp_path / "new.keras") as new, ZipFile(tmp_path / "old.keras", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            old.writestr(name, content.replace(b"keras_psr.networks.style_transfer", b"keras_psr.style_networks"))
    assert read_config(tmp_path / "old.keras").count('"keras_psr.style_networks"') == 2
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    np.testing.assert_array_equal(load_keras(tmp_path / "old.keras")(image), Upscaler(network)(image))


def test_reflection_is_numpys():
    image = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    expected = np.pad(image, [(0, 0), (3, 3), (3, 3), (0, 0)], mode="reflect")
    np.testing.assert_array_equal(ReflectionPadding2D(3)(image), expected)


def test_equal_phases_are_the_nearest_kernel_whose_phases_have_equal_sums():
    kernel = np.random.default_rng(0).normal(size=(4, 4, 2, 3)).astype(np.float32)
    equal = np.asarray(EqualPhases()(kernel))
    sums = np.array([equal[row::2, column::2].sum(axis=(0, 1)) for row in (0, 1) for column in (0, 1)])
    np.testing.assert_allclose(sums, np.broadcast_to(kernel.sum(axis=(0, 1)) / 4, sums.shape), atol=1e-5)
    np.testing.assert_allclose(EqualPhases()(equal), equal, atol=1e-6)
    change = (kernel - equal).reshape(2, 2, 2, 2, 2, 3)  # constant within a phase: at right angles to all such kernels
    np.testing.assert_allclose(change, np.broadcast_to(change[:1, :, :1], change.shape), atol=1e-6)


def test_a_fitted_network_leaves_a_flat_picture_flat():
    """The transposed convolutions' grid would show here: each phase adds up weights of its own."""
    network, flat = tiny(num_filters=4), np.full((1, 96, 96, 3), 200, np.float32)
    for weight in network.weights:
        if weight.name == "beta":
            weight.assign(weight + 1)  # so that something arrives at the end
    middle = (0, slice(44, 52), slice(44, 52))
    grid = np.ptp(np.asarray(network(flat, training=False))[middle], axis=(0, 1)).max()
    network.compile(keras.optimizers.SGD(1e-9), "mse")
    network.train_on_batch(flat, flat)  # after a step the constraint holds
    without = np.ptp(np.asarray(network(flat, training=False))[middle], axis=(0, 1)).max()
    assert grid > 5 and without < 0.01


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 50), (41, 77), (130, 66), (100, 100)])
def test_any_size_and_no_seam(network, monkeypatch, height, width):
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    halo = measure_geometry(network).halo
    rows, columns = (np.pad(np.arange(side), (halo, halo + -side % 4), mode="symmetric") for side in (height, width))
    whole = np.asarray(network(image[rows[:, None], columns][None].astype(np.float32), training=False))[0]
    whole = whole[halo : halo + height, halo : halo + width]
    assert np.ptp(whole) > 20 or height * width == 1
    monkeypatch.setattr(KerasNetwork, "tile_size", lambda self, height, width: (2 * halo + 12, 2 * halo + 20))
    stylizer = Upscaler(network)
    output = stylizer(image)
    assert output.shape == image.shape and output.dtype == np.uint8
    assert np.abs(output - np.clip(whole, 0, 255)).max() < 0.51


def test_strength_mixes_with_the_photograph_itself(network):
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    stylizer = Upscaler(network)
    painted = stylizer(image).astype(float)
    np.testing.assert_array_equal(stylizer(image, strength=0), image)
    assert np.abs(stylizer(image, strength=0.3) - (0.3 * painted + 0.7 * image)).max() <= 1
