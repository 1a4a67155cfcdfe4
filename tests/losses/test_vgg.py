import keras
import numpy as np
import pytest
from scipy.signal import correlate

import keras_psr.losses.vgg
from keras_psr.errors import ConfigError, ModelError
from keras_psr.losses.vgg import TAPS, build_vgg

BGR_MEANS = (103.939, 116.779, 123.68)
"""Caffe's ImageNet means, which VGG16 was fitted with (paper.md, section 1)."""


@pytest.fixture(scope="module")
def bundled():
    """The arrays of the bundled file."""
    with np.load(keras_psr.losses.vgg._read_bundled()) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def vgg():
    return build_vgg(("relu1_1", "relu2_2"))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(0, 255, (1, 12, 10, 3)).astype(np.float32)


def convolve_relu(x, kernel, bias):
    """A zero-padded convolution of (height, width, channels) with ReLU, by SciPy."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    maps = [correlate(padded, kernel[..., k].astype(np.float64), mode="valid")[..., 0] for k in range(kernel.shape[3])]
    return np.maximum(np.stack(maps, -1) + bias, 0)


def pool(x, reduce):
    height, width, channels = x.shape
    return reduce(x.reshape(height // 2, 2, width // 2, 2, channels), axis=(1, 3))


def responses_by_scipy(image, arrays, reduce):
    """relu1_1 and relu2_2 from the definition of VGG16."""
    x = image[0, :, :, ::-1].astype(np.float64) - BGR_MEANS
    first = convolve_relu(x, arrays["block1_conv1/kernel"], arrays["block1_conv1/bias"])
    x = pool(convolve_relu(first, arrays["block1_conv2/kernel"], arrays["block1_conv2/bias"]), reduce)
    for name in ("block2_conv1", "block2_conv2"):
        x = convolve_relu(x, arrays[f"{name}/kernel"], arrays[f"{name}/bias"])
    return first, x


def weights_by_name(extractor):
    """Weights of the convolutions inside, by layer and part."""
    (inner,) = [layer for layer in extractor.layers if hasattr(layer, "layers")]
    return {
        f"{layer.name}/{part}": np.asarray(getattr(layer, part))
        for layer in inner.layers
        if layer.weights
        for part in ("kernel", "bias")
    }


def test_bundled_weights_hold_the_published_check_values(vgg):
    weights = weights_by_name(vgg)
    assert weights["block1_conv1/kernel"][0, 0, 0, 0] == np.float32(0.42947057)
    assert weights["block1_conv2/kernel"][2, 2, 63, 63] == np.float32(0.016082443)
    assert weights["block2_conv1/bias"][1] == np.float32(0.06440781)


@pytest.mark.parametrize(("pooling", "reduce"), [("max", np.max), ("average", np.mean)])
def test_responses_are_those_of_scipy(pooling, reduce, image, bundled):
    first, second = responses_by_scipy(image, bundled, reduce)
    responses = build_vgg(("relu1_1", "relu2_2"), pooling=pooling)(image)
    np.testing.assert_allclose(responses["relu1_1"][0], first, atol=1e-3 * first.max())
    np.testing.assert_allclose(responses["relu2_2"][0], second, atol=1e-4 * second.max())


def test_pooling_makes_a_difference(image, bundled):
    maximum, average = (responses_by_scipy(image, bundled, reduce)[1] for reduce in (np.max, np.mean))
    assert np.abs(maximum - average).mean() > 0.1 * maximum.mean()


def test_taps_are_named_as_in_the_paper():
    names = "relu1_1 relu1_2 relu2_1 relu2_2 relu3_1 relu3_2 relu3_3 relu4_1 relu4_2 relu4_3 relu5_1 relu5_2 relu5_3"
    assert list(TAPS) == names.split()
    assert TAPS["relu4_3"] == "block4_conv3"


def test_every_bundled_tap_has_the_shape_that_its_block_gives():
    taps = [tap for tap in TAPS if tap < "relu5"]
    responses = build_vgg(taps)(np.zeros((2, 17, 33, 3), np.float32))
    channels, sizes = {"1": 64, "2": 128, "3": 256, "4": 512}, {"1": (17, 33), "2": (8, 16), "3": (4, 8), "4": (2, 4)}
    assert {tap: tuple(response.shape) for tap, response in responses.items()} == {
        tap: (2, *sizes[tap[4]], channels[tap[4]]) for tap in taps
    }


def test_the_network_ends_at_the_deepest_tap(vgg):
    layers = [f"block{block}_conv{convolution}" for block in (1, 2) for convolution in (1, 2)]
    assert set(weights_by_name(vgg)) == {f"{layer}/{part}" for layer in layers for part in ("kernel", "bias")}


def test_a_tap_is_the_same_beside_others(vgg, image):
    alone = build_vgg(("relu2_2",))(image)
    assert list(alone) == ["relu2_2"]
    np.testing.assert_array_equal(alone["relu2_2"], vgg(image)["relu2_2"])


def test_nothing_is_trainable(vgg):
    assert vgg.trainable_variables == [] and len(vgg.variables) == 8


@pytest.mark.sixteen_bits
def test_bfloat16_stays_near_float32(vgg, image):
    exact = np.asarray(vgg(image)["relu2_2"])
    rounded = build_vgg(("relu2_2",), dtype="bfloat16")(image)["relu2_2"]
    assert rounded.dtype == "bfloat16"
    assert np.sqrt(np.mean((np.asarray(rounded, np.float32) - exact) ** 2)) < 0.02 * exact.std()


@pytest.mark.parametrize("taps", [("relu2_2", "relu9_9"), ("conv2_2",), ()])
def test_unknown_layers_are_refused_with_the_known(taps):
    message = r"VGG16 layers must be among relu1_1, .*, relu5_3\. Received: (relu9_9|conv2_2|none)\.$"
    with pytest.raises(ConfigError, match=message):
        build_vgg(taps)


def test_unknown_pooling_is_refused():
    with pytest.raises(ConfigError, match="pooling must be 'max' or 'average'. Received: 'median'."):
        build_vgg(("relu1_1",), pooling="median")


def test_damaged_bundled_weights_are_refused(monkeypatch):
    monkeypatch.setattr(keras_psr.losses.vgg, "BUNDLED_WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"bundled VGG16 weights are damaged: .* expected 0{64}\. Reinstall"):
        build_vgg(("relu1_1",))


def test_missing_bundled_weights_are_refused(monkeypatch):
    monkeypatch.setattr(keras_psr.losses.vgg, "BUNDLED_WEIGHTS", "gone.npz")
    with pytest.raises(ModelError, match=r"bundled VGG16 weights are missing: .*gone\.npz\. Reinstall"):
        build_vgg(("relu1_1",))


def test_bundled_weights_end_at_conv4_3():
    with pytest.raises(ModelError, match="do not include block5_conv1/kernel. Choose earlier layers"):
        build_vgg(("relu5_1",))


def test_an_npz_file_gives_the_weights(tmp_path, bundled, image):
    names = ("block1_conv1/kernel", "block1_conv1/bias")
    np.savez(tmp_path / "mine.npz", **{name: 2 * bundled[name] for name in names})
    ours = build_vgg(("relu1_1",), weights=str(tmp_path / "mine.npz"))(image)["relu1_1"]
    bundleds = build_vgg(("relu1_1",))(image)["relu1_1"]
    np.testing.assert_allclose(ours, 2 * np.asarray(bundleds), rtol=1e-4, atol=1e-3)


def test_an_npz_file_without_a_layer_is_refused(tmp_path, bundled):
    np.savez(tmp_path / "short.npz", **{"block1_conv1/kernel": bundled["block1_conv1/kernel"]})
    with pytest.raises(ModelError, match=r"short\.npz do not include block1_conv1/bias"):
        build_vgg(("relu1_1",), weights=str(tmp_path / "short.npz"))


def write_npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_truncated(path):
    np.savez(path, **{"block1_conv1/kernel": np.zeros((3, 3, 3, 64))})
    path.write_bytes(path.read_bytes()[:500])


def write_pickled(path):
    np.savez(path, **{"block1_conv1/kernel": np.array([{"a": 1}], object)})


@pytest.mark.parametrize(
    "write",
    [
        lambda path: None,
        lambda path: path.write_text("no weights"),
        write_npy,
        write_truncated,
        lambda path: np.savez(path, **{"block1_conv1/kernel": np.zeros((3, 3)), "block1_conv1/bias": np.zeros(64)}),
        write_pickled,
    ],
    ids=["missing", "text", "npy", "truncated", "shape", "pickle"],
)
def test_a_file_that_is_not_weights_is_refused(write, tmp_path):
    path = tmp_path / "odd.npz"
    write(path)
    message = r"must be 'bundled', 'imagenet', an \.npz or a \.weights\.h5 file\. .*odd\.npz"
    with pytest.raises(ModelError, match=message):
        build_vgg(("relu1_1",), weights=str(path))


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_weights_h5_file_of_something_else_is_refused(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(tmp_path / "dense.weights.h5")
    for name in ("dense.weights.h5", "missing.weights.h5"):
        with pytest.raises(ModelError, match=rf"{name} does not contain weights of keras\.applications\.VGG16"):
            build_vgg(("relu1_1",), weights=str(tmp_path / name))


@pytest.mark.slow
def test_a_weights_h5_file_gives_the_weights_below_conv4_3_too(tmp_path):
    whole = keras.applications.VGG16(include_top=False, weights=None)
    whole.save_weights(tmp_path / "whole.weights.h5")
    expected = keras.Model(whole.input, whole.get_layer("block5_conv1").output)
    picture = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    responses = build_vgg(("relu5_1",), weights=str(tmp_path / "whole.weights.h5"))(picture)
    preprocessed = picture[..., ::-1] - np.float32(BGR_MEANS)
    np.testing.assert_allclose(responses["relu5_1"], expected(preprocessed), rtol=1e-5, atol=1e-5)
