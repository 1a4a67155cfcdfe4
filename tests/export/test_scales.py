import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_psr.data.sources import open_sources
from keras_psr.export.calibration import calibration_tiles
from keras_psr.export.conversion import convert
from keras_psr.export.scales import with_ranges
from keras_psr.inference.litert import TileInterpreter
from keras_psr.inference.tflite_metadata import unpack
from keras_psr.networks.super_resolution import build_network

TILE = 40

ENTRY, BLOCK1_ADD = "layer2", "layer5"
"""Scopes of two layers: they are counted from the input, layer0."""


@pytest.fixture(scope="module")
def tiles():
    return calibration_tiles(open_sources(["sample"]), scale=4, tile=TILE, count=8)


def convert_random(architecture, tiles):
    keras.utils.set_random_seed(0)
    network = build_network(architecture, num_filters=8, num_residual_blocks=2)
    exit_kernel = network.get_layer("exit").kernel
    exit_kernel.assign(np.random.default_rng(0).normal(0, 2 if architecture == "fast" else 0.4, exit_kernel.shape))
    return convert(network, "int8", TILE, tiles)


@pytest.fixture(scope="module")
def residual(tiles):
    return convert_random("residual", tiles)


@pytest.fixture(scope="module")
def fast(tiles):
    return convert_random("fast", tiles)


def list_scales(content):
    return [float(tensor["quantization"][0]) for tensor in Interpreter(model_content=content).get_tensor_details()]


def check_biases(content):
    """LiteRT takes a bias's scale to be that of the input times that of the weights, whatever the file says."""
    graph = unpack(content).subgraphs[0]
    checked = 0
    for operator in graph.operators:
        if len(operator.inputs) == 3 and graph.tensors[operator.inputs[2]].type == 2:  # int32
            given, weights, bias = (np.asarray(graph.tensors[one].quantization.scale) for one in operator.inputs)
            np.testing.assert_allclose(bias, given * weights, rtol=1e-5)
            checked += 1
    return checked


def test_a_range_is_stated_for_a_layers_tensor_and_those_that_must_have_the_same_scale(residual):
    stated = with_ranges(residual, {BLOCK1_ADD: (-10, 41)})
    before, after = (Interpreter(model_content=one).get_tensor_details() for one in (residual, stated))
    pairs = [pair for pair in zip(before, after, strict=True) if len(pair[0]["shape"]) == 4]
    changed = [new for old, new in pairs if old["quantization"] != new["quantization"]]
    # The tensor itself, and with it the other summand of the last block, and both as channels of one tensor.
    scopes = {tensor["name"].split("/")[0] for tensor in changed}
    assert scopes == {BLOCK1_ADD, "layer7", "layer8"}
    for tensor in changed:
        assert tensor["quantization"] == (pytest.approx(0.2), 10 / 0.2 - 128)


def test_biases_follow_the_scales(residual, fast):
    ranges = {ENTRY: (0, 300), BLOCK1_ADD: (-500, 500)}
    assert check_biases(with_ranges(residual, ranges)) == 8  # entry, two blocks, two upsamplings, exit
    assert check_biases(fast) == 6


def test_other_ranges_change_the_result_only_by_rounding(residual, tiles):
    wide = {ENTRY: (0, 300), BLOCK1_ADD: (-300, 300)}
    before, after = (
        TileInterpreter(content)(tiles[0]).astype(int) for content in (residual, with_ranges(residual, wide))
    )
    assert np.ptp(before) > 100 and 0 < np.abs(before - after).mean() < 1


def test_what_is_concatenated_with_the_picture_has_its_scale(fast):
    graph = Interpreter(model_content=fast).get_tensor_details()
    (joined,) = [tensor for tensor in graph if list(tensor["shape"])[3:] == [2 * 8 + 2 * 3] and tensor["shape"][0] == 1]
    assert joined["quantization"] == (1, 0)
