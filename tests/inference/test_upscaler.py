import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_psr.errors import ConfigError, ModelError
from keras_psr.inference.tflite_metadata import read_metadata, with_metadata
from keras_psr.inference.upscaler import Upscaler, load, load_network
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.networks.super_resolution import build_network


def tiny(scale=4, **options):
    return build_network(scale=scale, num_filters=4, num_residual_blocks=1, **options)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)


@pytest.fixture
def saved(tmp_path):
    """A network with random weights, and its file."""
    network, generator = tiny(), np.random.default_rng(0)
    network.set_weights([generator.normal(0, 0.1, weight.shape) for weight in network.get_weights()])
    network.save(tmp_path / "model.keras")
    return network, tmp_path / "model.keras"


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_picture_becomes_a_larger_picture(scale, image):
    upscaler = Upscaler(tiny(scale))
    output = upscaler(image)
    assert upscaler.scale == scale
    assert output.shape == (7 * scale, 5 * scale, 3) and output.dtype == np.uint8


def test_outputs_are_clipped_and_rounded_half_to_even(image):
    levels = np.array([-7, -0.4, 0.5, 1.5, 2.5, 99.51, 254.5, 255.4, 300], np.float32)
    source = keras.Input((None, None, 3))
    shown = keras.layers.Rescaling(0.0)(source)
    network = keras.Model(source, keras.layers.Rescaling(1.0, offset=levels[:3])(shown))
    for start in (0, 3, 6):
        network.layers[-1].offset = levels[start : start + 3]
        expected = [0, 0, 0, 2, 2, 100, 254, 255, 255][start : start + 3]
        assert (Upscaler(network)(image) == expected).all()


def test_the_whole_range_reaches_the_network_unscaled(image):
    network = tiny()  # unfitted: bilinear enlargement
    flat = np.full((4, 4, 3), [0, 128, 255], np.uint8)
    assert (Upscaler(network)(flat) == [0, 128, 255]).all()


def test_a_picture_of_one_pixel_is_enlarged():
    assert (Upscaler(tiny())(np.full((1, 1, 3), 9, np.uint8)) == np.full((4, 4, 3), 9)).all()


@pytest.mark.parametrize(("height", "width"), [(60, 9), (33, 71)])
def test_a_picture_larger_than_a_tile_is_what_it_is_in_one_piece(saved, monkeypatch, height, width):
    network, _ = saved
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = Upscaler(network)
    assert whole._tiles.tile_size(height, width)[0] >= height + 2 * whole._tiles.geometry.halo
    monkeypatch.setattr("keras_psr.inference.upscaler.KERAS_OUTPUT_SIDE", 4)
    tiled = Upscaler(network)
    assert tiled._tiles.tile_size(height, width)[0] < height
    difference = tiled(image).astype(int) - whole(image)
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.001  # rounding


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((7, 5, 3), np.float32),
        np.zeros((7, 5, 3), np.int16),
        np.zeros((7, 5, 1), np.uint8),
        np.zeros((7, 5, 4), np.uint8),
        np.zeros((1, 7, 5, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ConfigError, match=rf"image must be uint8 or uint16, RGB .* Received: {bad.dtype} of shape \("):
        Upscaler(tiny())(bad)


def test_a_file_and_its_folder_load_as_the_network_that_was_saved(saved, image):
    network, path = saved
    expected = Upscaler(network)(image)
    for model in (path, str(path), path.parent):
        loaded = load(model)
        assert loaded.scale == 4
        np.testing.assert_array_equal(loaded(image), expected)


def test_norms_use_their_running_statistics(image):
    network = build_network("johnson2016", num_filters=4, num_residual_blocks=1)
    upscaler = Upscaler(network)
    before = upscaler(image)
    network.get_layer("entry_norm").moving_mean.assign([50.0] * 4)
    assert (upscaler(image) != before).any()
    assert np.asarray(network.get_layer("entry_norm").moving_mean)[0] == 50, "inference moved the statistics"


def test_what_is_no_model_file_is_refused(tmp_path, saved):
    _, path = saved
    files = {
        "text.keras": b"not a model",
        "empty.keras": b"",
        "truncated.keras": path.read_bytes()[:-500],
        "photo.png": b"\x89PNG",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name} is not a (\.keras|usable Keras model) file"):
            load(tmp_path / name)


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
def test_a_model_file_with_a_damaged_part_is_refused(member, tmp_path, saved):
    _, path = saved
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "odd.keras", "w") as odd:
        for name in whole.namelist():
            odd.writestr(name, b"{" if name == member else whole.read(name))
    with pytest.raises(ModelError, match=r"odd\.keras is not a usable Keras model file: ."):
        load_network(tmp_path / "odd.keras")


def test_saved_code_is_not_executed(tmp_path):
    source = keras.Input((None, None, 3))
    keras.Model(source, keras.layers.Lambda(lambda x: x)(source)).save(tmp_path / "code.keras")
    with pytest.raises(ModelError, match=r"code\.keras is not a usable Keras model file: .*[Ll]ambda"):
        load(tmp_path / "code.keras")


def test_a_network_of_another_kind_is_refused(tmp_path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "dense.keras")
    message = r"dense\.keras is not a keras-psr network: it maps \(None, 4\) to \(None, 2\), expected"
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "dense.keras")


@pytest.mark.sixteen_bits
def test_a_network_saved_under_mixed_precision_gives_pictures_too(tmp_path, image):
    tiny(dtype="mixed_bfloat16").save(tmp_path / "mixed.keras")
    difference = load(tmp_path / "mixed.keras")(image).astype(int) - Upscaler(tiny())(image)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("image", ["photo.jpg", Path("photo.jpg"), [[1, 2]], None])
def test_what_is_no_array_is_refused_with_the_remedy(random_network, image):
    with pytest.raises(
        ConfigError, match=r"image must be a NumPy array .* Read a file with keras_psr\.read_rgb\(path\)\."
    ):
        Upscaler(random_network)(image)


def test_it_says_what_it_is(random_network, export_tflite):
    assert repr(load(export_tflite("float32"))) == (
        "<Upscaler tiny_float32.tflite: super-resolution, scale 4; "
        "call it with uint8 or uint16 pixels (height, width[, 3])>"
    )
    assert ": super-resolution, scale 4; " in repr(Upscaler(random_network))


@pytest.mark.parametrize(
    ("file", "record", "task"),
    [
        ("card.json", {"task": "style transfer"}, "style transfer"),
        ("config.json", {"config": {"task": "style transfer"}}, "style transfer"),
        ("config.json", {"config": {"steps": 3}}, "super-resolution"),
        ("config.json", {"config": {"task": "denoising"}}, "super-resolution"),
        ("card.json", [], "super-resolution"),
        ("notes.txt", {}, "super-resolution"),
    ],
)
def test_the_task_is_the_one_named_beside_a_network_or_else_what_its_scale_suggests(saved, file, record, task):
    (saved[1].parent / file).write_text(json.dumps(record))
    assert load(saved[1]).task == task


def test_a_network_that_does_not_enlarge_transfers_a_style_unless_it_says_something_else():
    network = build_style_network(num_filters=2, num_residual_blocks=1)
    assert Upscaler(network).task == "style transfer"
    assert Upscaler(network, task="super-resolution").task == "super-resolution"


def test_the_task_of_a_tflite_file_is_what_it_says(export_tflite, tmp_path):
    path = export_tflite("float32")
    metadata = read_metadata(path)
    for stated, task in (("style transfer", "style transfer"), (None, "super-resolution")):
        (tmp_path / "other.tflite").write_bytes(with_metadata(path.read_bytes(), {**metadata, "task": stated}))
        assert load(tmp_path / "other.tflite").task == task
