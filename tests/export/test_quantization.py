import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_psr.data.sources import open_sources
from keras_psr.export.calibration import calibration_tiles
from keras_psr.export.conversion import convert, measure_quantization
from keras_psr.export.folding import folded_weights
from keras_psr.export.quantization import measure_details, round_weights
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.networks.super_resolution import build_network

TILE = 40


@pytest.fixture
def network():
    network = build_network("fast", num_filters=8, num_residual_blocks=1)
    exit_kernel = network.get_layer("exit").kernel
    exit_kernel.assign(np.random.default_rng(0).normal(0, 2, exit_kernel.shape))
    return network


@pytest.fixture
def tiles():
    return calibration_tiles(open_sources(["sample"]), scale=4, tile=TILE, count=8)


def random_weights(generator, inputs, outputs):
    kernel = generator.normal(size=(1, 1, inputs, outputs)).astype(np.float32)
    return kernel, generator.normal(size=outputs).astype(np.float32)


def outputs(weights, patches):
    return patches @ weights[0].reshape(patches.shape[1], -1).astype(np.float64) + weights[1]


def round_to_nearest(weights):
    steps = np.abs(weights[0]).max(axis=(0, 1, 2)) / 127
    return np.rint(weights[0] / steps) * steps, weights[1]


def test_rounded_kernels_have_255_values_per_output_channel():
    generator = np.random.default_rng(0)
    kernel, bias = random_weights(generator, 30, 5)
    rounded, _ = round_weights((kernel, bias), generator.normal(size=(200, 30)).astype(np.float32))
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    np.testing.assert_allclose(np.abs(rounded).max(axis=(0, 1, 2)), largest, rtol=1e-6)
    integers = rounded / largest * 127
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)


def test_rounded_kernels_have_the_steps_that_are_asked_for():
    generator = np.random.default_rng(0)
    weights = random_weights(generator, 30, 5)
    steps = np.abs(weights[0]).max(axis=(0, 1, 2)) / 50
    patches = generator.normal(size=(200, 30)).astype(np.float32)
    units = round_weights(weights, patches, steps)[0] / steps
    np.testing.assert_allclose(units, np.rint(units), atol=1e-4)
    assert 45 < np.abs(units).max() < 60


def test_inputs_that_vary_independently_get_the_nearest_values():
    generator = np.random.default_rng(0)
    weights = random_weights(generator, 4, 3)
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T.astype(np.float32)
    rounded = round_weights(weights, corners)
    nearest = round_to_nearest(weights)
    np.testing.assert_allclose(rounded[0], nearest[0], atol=1e-6)
    np.testing.assert_allclose(rounded[1], nearest[1], atol=1e-6)


def test_errors_cancel_out_for_inputs_that_vary_together():
    """All inputs are nearly the same number, so only the sum of a channel's weights matters: to half a step."""
    generator = np.random.default_rng(0)
    weights = random_weights(generator, 75, 16)
    grey = generator.normal(0, 50, (500, 1))
    patches = (grey + generator.normal(0, 0.5, (500, 75))).astype(np.float32)
    errors = [
        np.sqrt(np.mean((outputs(rounded, patches) - outputs(weights, patches)) ** 2, axis=0))
        for rounded in (round_weights(weights, patches), round_to_nearest(weights))
    ]
    steps = np.abs(weights[0]).max(axis=(0, 1, 2)) / 127
    assert (errors[0] < 50 * steps / 2 + 75**0.5 * 0.5 * steps).all()
    assert errors[0].mean() < 0.2 * errors[1].mean()


def test_the_bias_makes_up_for_what_is_left_on_average():
    generator = np.random.default_rng(0)
    weights = random_weights(generator, 12, 4)
    patches = generator.normal(100, 1, (300, 12)).astype(np.float32)
    rounded = round_weights(weights, patches)
    np.testing.assert_allclose(
        outputs(rounded, patches).mean(axis=0), outputs(weights, patches).mean(axis=0), atol=1e-3
    )


def test_the_file_has_the_rounded_weights(network, tiles):
    interpreter = Interpreter(model_content=convert(network, "int8", TILE, tiles))
    interpreter.allocate_tensors()
    details = [t for t in interpreter.get_tensor_details() if len(t["quantization_parameters"]["scales"]) == 8]
    entry = next(tensor for tensor in details if list(tensor["shape"]) == [8, 5, 5, 3])
    stored = interpreter.get_tensor(entry["index"]) * entry["quantization_parameters"]["scales"][:, None, None, None]
    plain = folded_weights(network.get_layer("entry"), [])
    quantization = measure_quantization(network, tiles)
    kernel, _ = quantization.find_weights(network.get_layer("entry"), np.zeros((1, TILE, TILE, 3)), plain, 1)
    np.testing.assert_allclose(stored.transpose(1, 2, 3, 0), kernel, rtol=1e-5, atol=1e-8)


def test_details_beyond_black_and_white_do_not_count(tiles):
    network = build_network("residual", num_filters=8, num_residual_blocks=1)
    exit_kernel = network.get_layer("exit").kernel
    exit_kernel.assign(np.random.default_rng(0).normal(0, 0.4, exit_kernel.shape))
    low, high = measure_details(network, tiles)["exit"]
    assert -255 <= low < -20 and 20 < high <= 255
    exit_kernel.assign(exit_kernel * 100)
    assert measure_details(network, tiles) == {"exit": (pytest.approx(-255, abs=5), pytest.approx(255, abs=5))}


def test_networks_that_add_nothing_to_an_enlarged_picture(tiles):
    assert measure_details(build_network("johnson2016", num_filters=4, num_residual_blocks=1), tiles) == {}
    assert measure_details(build_style_network(num_filters=4, num_residual_blocks=1), tiles) == {}


def test_the_file_has_the_range_of_details(tiles):
    network = build_network("residual", num_filters=4, num_residual_blocks=1)
    exit_kernel = network.get_layer("exit").kernel
    exit_kernel.assign(np.random.default_rng(0).normal(0, 4, exit_kernel.shape))
    low, high = measure_details(network, tiles)["exit"]
    scales = [
        t["quantization"][0]
        for t in Interpreter(model_content=convert(network, "int8", TILE, tiles)).get_tensor_details()
    ]
    assert any(scale == pytest.approx((high - low) / 255, rel=1e-5) for scale in scales)
