"""A `.tflite` gives what its network gives, tile by tile, without TensorFlow."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_psr.environment import available_cores
from keras_psr.errors import ConfigError, ModelError
from keras_psr.images.tiling import upscale_in_tiles
from keras_psr.inference.litert import LiteRTNetwork
from keras_psr.inference.tflite_metadata import read_metadata, with_metadata
from keras_psr.inference.upscaler import Upscaler, load
from keras_psr.networks.receptive_field import measure_geometry

SIZES = [(1, 1), (3, 500), (127, 129), (1000, 1), (48, 48), (17, 16)]


def make_picture(height, width, dtype=np.uint8):
    """Noise and a gradient, over the whole range."""
    generator = np.random.default_rng(height * 1000 + width)
    levels = generator.integers(0, 256, (height, width, 3)) // 2 + np.linspace(0, 127, width)[:, None]
    return (levels * (257 if dtype == np.uint16 else 1)).astype(dtype)


def upscale_whole(network, image):
    """The independent way: extend the picture, run the Keras network once, cut; float32, clipped."""
    border = measure_geometry(network).halo
    extended = np.pad(image.astype(np.float32), [(border, border), (border, border), (0, 0)], mode="symmetric")
    output = np.asarray(network(extended[None]))[0]
    return np.clip(output[4 * border : -4 * border, 4 * border : -4 * border], 0, 255)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_float_tiles_equal_the_whole_picture_in_keras(export_tflite, random_network, height, width):
    image, network = make_picture(height, width), LiteRTNetwork(export_tflite("float32"))
    tiled = upscale_in_tiles(network, image, network.geometry, tile=48)
    whole = upscale_whole(random_network, image)
    assert np.ptp(whole) > 30
    assert np.abs(tiled - whole).max() < 0.01
    rounded = load(export_tflite("float32"))(image)
    assert rounded.dtype == np.uint8
    assert np.abs(rounded - whole).max() < 0.51


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_quantized_tiles_of_two_sizes_give_one_picture(export_tflite, height, width):
    image = make_picture(height, width)
    small, large = (load(export_tflite("int8", tile))(image) for tile in (48, 80))
    np.testing.assert_array_equal(small, large)


def test_a_quantized_file_stays_near_its_network(export_tflite, random_network):
    image = make_picture(60, 50)
    difference = load(export_tflite("int8"))(image) - upscale_whole(random_network, image)
    assert np.abs(difference).mean() < 3


def test_16_bits_in_give_16_bits_out_not_stretched_ones(export_tflite, random_network):
    image = make_picture(40, 30, np.uint16) + np.random.default_rng(0).integers(0, 257, (40, 30, 3), np.uint16)
    upscaled = load(export_tflite("float32"))(image)
    assert upscaled.dtype == np.uint16
    assert np.abs(upscaled / 257 - upscale_whole(random_network, image / 257)).max() < 0.01
    assert (upscaled % 257 != 0).mean() > 0.9
    np.testing.assert_allclose(Upscaler(random_network)(image), upscaled.astype(float), atol=2)


def test_16_bits_are_beyond_a_quantized_file(export_tflite):
    with pytest.raises(ConfigError, match="has 16 bits .* quantized to 8. Use its float32 or float16 file"):
        load(export_tflite("int8"))(make_picture(4, 4, np.uint16))


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_grey_is_the_mean_of_what_three_equal_channels_give(export_tflite, variant):
    upscaler = load(export_tflite(variant))
    image = make_picture(50, 60)[..., 0]
    colour = upscaler(np.stack([image] * 3, axis=-1))
    grey = upscaler(image)
    assert grey.shape == (200, 240) and grey.dtype == np.uint8
    assert np.abs(grey - colour.mean(axis=-1)).max() < 1.01


def test_strength_blends_with_bicubic(export_tflite):
    from keras_psr.images.pixels import resize_bicubic

    upscaler, image = load(export_tflite("float32")), make_picture(70, 90)
    network, bicubic = upscaler(image).astype(float), resize_bicubic(image.astype(np.float32), 280, 360)
    assert np.abs(upscaler(image, strength=0) - bicubic.clip(0, 255)).max() < 0.51
    inside = (bicubic >= 0) & (bicubic <= 255) & (network > 0) & (network < 255)
    halves = upscaler(image, strength=0.5)
    assert np.abs(halves - (network + bicubic) / 2)[inside].max() < 0.8
    with pytest.raises(ConfigError, match=r"strength must be in \[0, 1\]. Received: 1.5"):
        upscaler(image, strength=1.5)


def test_several_threads_may_call_at_once_and_get_their_own_pictures(export_tflite):
    upscaler = load(export_tflite("float32"), threads=3)
    assert upscaler.network.workers == 3
    pictures = [make_picture(40 + index, 60) for index in range(6)]
    expected = [upscaler(picture) for picture in pictures]
    with ThreadPoolExecutor(6) as executor:
        for received, wanted in zip(executor.map(upscaler, pictures), expected, strict=True):
            np.testing.assert_array_equal(received, wanted)
    assert load(export_tflite("float32")).network.workers == available_cores() >= 1


def test_files_that_are_no_models_are_refused(export_tflite, tmp_path):
    good = export_tflite("float32")
    metadata = read_metadata(good)
    cases = {
        "text.tflite": (b"not a model", "not a TFLite model"),
        "cut.tflite": (good.read_bytes()[:-3000], "cut.tflite"),
        "other.tflite": (with_metadata(good.read_bytes(), {"tile": 48}), "does not state its scale, halo and tile"),
        "wrong.tflite": (with_metadata(good.read_bytes(), metadata | {"tile": 64}), "contradicts its metadata"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=message):
            load(tmp_path / name)


def test_tensorflow_and_keras_stay_out(export_tflite):
    code = (
        "import sys, numpy, keras_psr\n"
        "upscaler = keras_psr.load(sys.argv[1])\n"
        "print(upscaler(numpy.zeros((5, 6, 3), numpy.uint8)).shape)\n"
        "print({'tensorflow', 'keras', 'scipy', 'skimage'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(export_tflite("float32"))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "(20, 24, 3)\nset()\n"
