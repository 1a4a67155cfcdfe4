import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from keras_psr.data.sources import Picture, open_sources
from keras_psr.errors import ConfigError, DataError, ModelError
from keras_psr.export.calibration import calibration_tiles
from keras_psr.export.conversion import CALIBRATED, VARIANTS, convert, refuse_custom_operators
from keras_psr.export.delegates import find_gpu_refusals, list_operators, measure_xnnpack
from keras_psr.export.scales import with_quantization_of
from keras_psr.images.pixels import to_uint8
from keras_psr.inference.litert import TileInterpreter
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.networks.super_resolution import build_network

TILE = 40


@pytest.fixture(scope="module")
def network():
    """A tiny network whose exit does something: random details of a few grey levels."""
    keras.utils.set_random_seed(0)
    network = build_network("residual", num_filters=8, num_residual_blocks=2)
    exit_layer = network.get_layer("exit")
    exit_layer.kernel.assign(np.random.default_rng(0).normal(0, 0.4, exit_layer.kernel.shape))
    return network


@pytest.fixture(scope="module")
def tiles():
    return calibration_tiles(open_sources(["sample"]), scale=4, tile=TILE, count=20)


@pytest.fixture(scope="module")
def models(network, tiles):
    return {variant: convert(network, variant, TILE, tiles) for variant in VARIANTS}


@pytest.fixture(scope="module")
def image():
    picture = open_sources(["sample:val"])[0].read()
    return picture[100 : 100 + TILE, 200 : 200 + TILE]


def run_keras(network, image):
    """What the file of a tile gives: the network's pixels without the halo."""
    geometry = measure_geometry(network)
    cut = geometry.halo * geometry.scale
    return np.clip(np.asarray(network(image[None].astype(np.float32)))[0, cut:-cut, cut:-cut], 0, 255)


def enlarge(network, image):
    """The same from the picture itself, by repeating pixels."""
    geometry = measure_geometry(network)
    middle = image[geometry.halo : -geometry.halo, geometry.halo : -geometry.halo]
    return middle.repeat(geometry.scale, 0).repeat(geometry.scale, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("variant", "largest", "mean"),
    [("float32", 0.001, 1e-4), ("float16", 0.1, 0.02), ("dynamic", 4, 0.5), ("int8", 6, 1), ("int16x8", 3, 0.3)],
)
def test_every_variant_gives_the_networks_pixels(models, network, image, variant, largest, mean):
    expected = run_keras(network, image)
    assert np.ptp(expected - enlarge(network, image)) > 20
    difference = np.abs(TileInterpreter(models[variant])(image).astype(np.float32) - expected)
    assert difference.max() < largest and difference.mean() < mean


@pytest.mark.parametrize("variant", VARIANTS)
def test_builtins_static_shape_and_signature(models, variant):
    assert all(builtin for _, builtin in list_operators(models[variant]))
    assert "TRANSPOSE_CONV" not in {name for name, _ in list_operators(models[variant])}
    interpreter = Interpreter(model_content=models[variant])
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["image"]}}
    (given,), (got,) = interpreter.get_input_details(), interpreter.get_output_details()
    side = 4 * (TILE - 2 * 10)  # by hand: entry 4, four convolutions 4, and 2 for the upsampling and the exit
    assert (list(given["shape_signature"]), list(got["shape"])) == ([1, TILE, TILE, 3], [1, side, side, 3])
    expected = np.uint8 if variant == "int8" else np.float32
    assert given["dtype"] is expected and got["dtype"] is expected


def test_int8_takes_and_gives_raw_bytes(models):
    interpreter = Interpreter(model_content=models["int8"])
    for details in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        assert details["quantization"] == (1.0, 0)


def test_int8_weights_are_quantized_by_channel(models):
    interpreter = Interpreter(model_content=models["int8"])
    scales = [t["quantization_parameters"]["scales"] for t in interpreter.get_tensor_details() if len(t["shape"]) == 4]
    assert sum(len(scale) > 1 for scale in scales) == 1 + 2 * 2 + 2 + 1  # entry, blocks, upsampling, exit


def test_int8_clips_to_black_and_white(network, tiles):
    loud = keras.models.clone_model(network)
    loud.set_weights(network.get_weights())
    loud.get_layer("exit").kernel.assign(loud.get_layer("exit").kernel.value * 30)
    expected = to_uint8(run_keras(loud, tiles[0]))
    assert (expected == 0).mean() > 0.02 and (expected == 255).mean() > 0.02
    result = TileInterpreter(convert(loud, "int8", TILE, tiles))(tiles[0])
    assert result.min() == 0 and result.max() == 255
    assert np.abs(result.astype(int) - expected).mean() < 4


def test_one_xnnpack_partition(models):
    for variant in ("float32", "float16", "dynamic"):
        delegation = measure_xnnpack(models[variant])
        assert (delegation.partitions, delegation.share, delegation.outside) == (1, 1, {}), variant
    delegation = measure_xnnpack(models["int8"])
    assert delegation.partitions == 1
    assert list(delegation.outside) == ["2 QUANTIZE"]


def test_a_style_in_int8_has_the_pixels_range_at_its_end_and_no_rescaling():
    keras.utils.set_random_seed(0)
    network = build_style_network(num_filters=4, num_residual_blocks=1)
    exit_kernel = network.get_layer("exit").kernel
    exit_kernel.assign(np.random.default_rng(0).normal(0, 1, exit_kernel.shape))
    tile = 2 * measure_geometry(network).halo + 24
    tiles = calibration_tiles(open_sources(["sample"]), scale=1, tile=tile, count=6)
    content = convert(network, "int8", tile, tiles)
    expected = run_keras(network, tiles[0])
    assert np.ptp(expected) > 20 and np.abs(TileInterpreter(content)(tiles[0]) - expected).mean() < 1
    names = [name for name, _ in list_operators(content)]
    assert names[-3:] == ["DEPTH_TO_SPACE", "STRIDED_SLICE", "QUANTIZE"]
    assert "MUL" not in names and "ADD" not in names  # the sum of the only residual block is read as its summands


def test_johnson2016_in_int8_is_one_partition_without_batch_norm(tiles):
    network = build_network("johnson2016", num_filters=8, num_residual_blocks=1)
    content = convert(network, "int8", TILE, tiles[-4:])
    assert measure_xnnpack(content).partitions == 1
    expected = run_keras(network, tiles[0])
    assert np.abs(TileInterpreter(content)(tiles[0]) - expected).mean() < 2


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_fast_is_one_partition_whose_transposed_convolution_reads_2x2_pixels(scale):
    network = build_network("fast", scale=scale, num_filters=8, num_residual_blocks=1)
    exit_kernel = network.get_layer("exit").kernel
    exit_kernel.assign(np.random.default_rng(0).normal(0, 2, exit_kernel.shape))
    tiles = calibration_tiles(open_sources(["sample"]), scale=scale, tile=TILE, count=6)
    expected = run_keras(network, tiles[0])
    assert np.ptp(expected - enlarge(network, tiles[0])) > 20
    limits = {"float32": 1e-4, "int8": 1}
    limits |= {"float16": 0.02, "dynamic": 0.5, "int16x8": 0.3} if scale == 4 else {}
    for variant, mean in limits.items():
        content = convert(network, variant, TILE, tiles)
        assert np.abs(TileInterpreter(content)(tiles[0]).astype(np.float32) - expected).mean() < mean, variant
        # The summands of the last block instead of their sum, and the picture twice.
        inputs = 2 * 8 + 2 * 3 if variant in CALIBRATED else 8
        assert [2, 2, inputs] in [list(kernel)[1:] for kernel in list_kernels(content)]
        assert variant == "int16x8" or measure_xnnpack(content).partitions == 1, variant


def list_kernels(content):
    """Shapes of the convolutions' kernels, outputs first."""
    details = Interpreter(model_content=content).get_tensor_details()
    return [list(tensor["shape"]) for tensor in details if len(tensor["shape"]) == 4]


def test_quantization_measured_on_smaller_tiles(network, tiles):
    small = calibration_tiles(open_sources(["sample"]), scale=4, tile=28, count=8)
    content = convert(network, "int8", TILE, small)
    assert TileInterpreter(content).shape == (1, TILE, TILE, 3)
    direct = convert(network, "int8", TILE, tiles)
    other = convert(network, "int8", TILE, tiles[-1:])
    assert TileInterpreter(other)(tiles[0]).tolist() != TileInterpreter(direct)(tiles[0]).tolist()
    moved = with_quantization_of(other, direct)
    assert TileInterpreter(moved)(tiles[0]).tolist() == TileInterpreter(direct)(tiles[0]).tolist()


def test_conversion_is_deterministic(network, tiles, models):
    assert TileInterpreter(convert(network, "int8", TILE, tiles))(tiles[0]).tolist() == (
        TileInterpreter(models["int8"])(tiles[0]).tolist()
    )


def test_an_open_size(network, image):
    upscaler = TileInterpreter(convert(network, "float32", None))
    for part in (image, image[:10, :17]):
        expected = np.clip(np.asarray(network(part[None].astype(np.float32)))[0], 0, 255)
        assert np.abs(upscaler(part) - expected).max() < 0.001


@pytest.mark.parametrize(
    ("variant", "tile", "message"),
    [
        ("int4", TILE, "quantize must be one of float32, float16, dynamic, int8, int16x8. Received: 'int4'"),
        ("int8", TILE, "int8 needs calibration tiles"),
        ("int16x8", None, "int16x8 needs calibration tiles"),
    ],
)
def test_bad_arguments(network, variant, tile, message):
    with pytest.raises(ConfigError, match=message):
        convert(network, variant, tile)


def test_calibration_without_black_and_white_is_refused(network):
    with pytest.raises(ModelError, match="no calibration tile contains both 0 and 255"):
        convert(network, "int8", TILE, [np.full((TILE, TILE, 3), 90, np.uint8)])


def convert_function(function):
    signature = [tf.TensorSpec((1, 8, 8, 3), tf.float32, name="image")]
    module = tf.Module()
    module.run = tf.function(function, input_signature=signature, autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.run.get_concrete_function()], module)
    converter.allow_custom_ops = True
    return converter.convert()


def test_operators_that_are_no_builtins_are_named():
    with pytest.raises(ModelError, match="operators that are not TFLite builtins: Digamma"):
        refuse_custom_operators(convert_function(tf.math.digamma))


def test_partitions_are_counted_and_what_is_outside_is_named():
    content = convert_function(lambda image: tf.nn.relu(tf.cumsum(tf.nn.relu(image), axis=1) - 5.0))
    delegation = measure_xnnpack(content)
    assert delegation.partitions == 2
    assert list(delegation.outside) == ["1 CUMSUM"]
    assert delegation.share == pytest.approx(1 - 1 / len(list_operators(content)))


def test_gpu_refusals_are_named(models, network):
    for variant in ("float32", "float16", "dynamic", "int8"):
        assert find_gpu_refusals(models[variant]) == []
    assert find_gpu_refusals(convert_function(lambda image: tf.math.segment_sum(tf.nn.relu(image), [0]))) == [
        "1 SEGMENT_SUM: not supported"
    ]
    assert any("CONV_2D: int16 is not supported" in refusal for refusal in find_gpu_refusals(models["int16x8"]))
    assert any("open size" in refusal for refusal in find_gpu_refusals(convert(network, "float32", None)))


def test_calibration_tiles():
    tiles = calibration_tiles(open_sources(["sample"]), scale=4, tile=TILE)
    again = calibration_tiles(open_sources(["sample"]), scale=4, tile=TILE)
    assert len(tiles) == 100 + 3 + 1
    assert all(tile.shape == (TILE, TILE, 3) and tile.dtype == np.uint8 for tile in tiles)
    assert all(np.array_equal(first, second) for first, second in zip(tiles, again, strict=True))
    assert len({tile.tobytes() for tile in tiles}) == 104
    assert all(set(tile.ravel()) == {56, 200} for tile in tiles[100:103])
    assert (tiles[-1].min(), tiles[-1].max()) == (0, 255)


def test_calibration_pictures_smaller_than_the_tile_are_left_out(caplog):
    def picture(name, side):
        return Picture(name, side, side, lambda: np.zeros((side, side, 3), np.uint8))

    tiles = calibration_tiles([picture("small", 20), picture("large", 30)], scale=4, tile=24, count=2)
    assert len(tiles) == 2 + 2 + 1
    assert "1 picture left out:\n  small: 20x20 is smaller than the tile of 24" in caplog.text
    with pytest.raises(DataError, match="none of 1 pictures is as large as a tile, 24x24. Use a smaller --tile"):
        calibration_tiles([picture("small", 20)], scale=4, tile=24)


def test_a_network_that_ends_in_an_operator_with_a_bound_scale_is_refused(tiles):
    image = keras.Input((None, None, 3))
    network = keras.Model(image, layers.UpSampling2D(2, interpolation="bilinear")(image))
    with pytest.raises(ModelError, match="must end in one of ADD, SUB, MUL, CONV_2D"):
        convert(network, "int8", TILE, tiles[-2:])
