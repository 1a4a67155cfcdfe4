import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image

from keras_psr.errors import ConfigError, DataError, ModelError
from keras_psr.export import benchmark as benchmark_module
from keras_psr.export import tflite
from keras_psr.export.benchmark import benchmark, measure_latency
from keras_psr.export.saved_model import save_saved_model
from keras_psr.export.tflite import export_tflite, write_file
from keras_psr.images.metrics import psnr_y, ssim_y
from keras_psr.images.pixels import crop_to_multiple, make_low_res, to_uint8
from keras_psr.images.tiling import upscale_in_tiles
from keras_psr.inference.litert import TileInterpreter
from keras_psr.inference.tflite_metadata import read_metadata
from keras_psr.losses.vgg import build_vgg
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.networks.super_resolution import build_network

TILE = 48


@pytest.fixture(scope="module", autouse=True)
def short_timing():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_module, "SECONDS", 0.02)
        yield


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    network = build_network("residual", num_filters=4, num_residual_blocks=1)
    network.get_layer("exit").kernel.assign(np.random.default_rng(0).normal(0, 0.3, (9, 9, 4, 3)))
    return network


@pytest.fixture(scope="module")
def original():
    """A part of a photograph, whose sides are not multiples of the scale."""
    return skimage.data.coffee()[100:253, 150:361]


@pytest.fixture(scope="module")
def verification(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("verification") / "coffee.png"
    Image.fromarray(original).save(path)
    return [str(path)]


@pytest.fixture(scope="module")
def exported(network, verification, tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    settings = {"name": "tiny", "model_sha256": "abc", "licence": "CC0", "tile": TILE, "max_drop": 1}
    report = export_tflite(network, ["float32", "int8"], out, verification=verification, **settings)
    return out, report


def test_report_and_files(exported, network):
    out, report = exported
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "tiny_float32.tflite", "tiny_int8.tflite"]
    assert json.loads((out / "report.json").read_text()) == report
    assert all(row["accepted"] for row in report["files"].values())
    assert report["files"]["int8"]["bytes"] == (out / "tiny_int8.tflite").stat().st_size


def test_metadata_says_how_to_tile(exported, network):
    out, report = exported
    metadata = read_metadata(out / "tiny_int8.tflite")
    expected = {
        "task": "super-resolution",
        "scale": 4,
        "tile": TILE,
        "halo": measure_geometry(network).halo,
        "licence": "CC0",
    }
    expected |= {"variant": "int8", "value_range": [0, 255], "colour": "RGB", "model_sha256": "abc", "name": "tiny"}
    assert expected.items() <= metadata.items()
    assert metadata["measured"]["psnr_y_drop"] == report["files"]["int8"]["psnr_y_drop"]


def test_report_numbers_recomputed(exported, network, original):
    """The reference is the network on the whole picture at once, the rest NumPy and the metrics themselves."""
    out, report = exported
    original = crop_to_multiple(original, 4)
    low_res = make_low_res(original, 4)
    geometry = measure_geometry(network)
    halo = geometry.halo
    extended = np.pad(low_res, [(halo, halo), (halo, halo), (0, 0)], mode="symmetric")
    whole = np.clip(np.asarray(network(extended[None].astype(np.float32)))[0], 0, 255)
    whole = whole[4 * halo : -4 * halo, 4 * halo : -4 * halo]
    vgg = build_vgg(("relu2_2",))

    def feature_distance(image):
        responses = [np.asarray(vgg(x[None].astype(np.float32))["relu2_2"], np.float64) for x in (image, original)]
        return np.mean((responses[0] - responses[1]) ** 2)

    for variant in ("float32", "int8"):
        row = report["files"][variant]
        run = TileInterpreter((out / f"tiny_{variant}.tflite").read_bytes())
        output = upscale_in_tiles(run, low_res, geometry, tile=TILE)
        rounded, expected = to_uint8(output), to_uint8(whole)
        drop = psnr_y(expected, original, 4) - psnr_y(rounded, original, 4)
        assert row["psnr_y_drop"] == pytest.approx(drop, abs=2e-4)
        drop = ssim_y(expected, original, 4) - ssim_y(rounded, original, 4)
        assert row["ssim_y_drop"] == pytest.approx(drop, abs=1e-5)
        change = feature_distance(rounded) / feature_distance(expected) - 1
        assert row["feature_distance_change"] == pytest.approx(change, abs=1e-4)
        difference = np.abs(output.astype(np.float64) - whole)
        assert row["max_difference"] == pytest.approx(difference.max(), abs=2e-3)
        assert row["mean_difference"] == pytest.approx(difference.mean(), abs=1e-4)
        assert row["xnnpack_partitions"] == 1
    assert report["files"]["float32"]["max_difference"] < 0.01
    assert report["files"]["int8"]["max_difference"] > 0.3


def test_a_harmed_file_is_rejected(network, verification, tmp_path, monkeypatch):
    healthy = tflite.convert

    def harm(network, variant, tile, tiles, on_tile):
        content = healthy(network, variant, tile, tiles)
        if variant == "float32":
            return content
        harmed = keras.models.clone_model(network)
        harmed.set_weights([weight + 0.02 for weight in network.get_weights()])
        return healthy(harmed, variant, tile, tiles)

    monkeypatch.setattr(tflite, "convert", harm)
    (tmp_path / "x_float16.tflite").write_text("of an earlier export")
    settings = {"name": "x", "model_sha256": "", "tile": TILE, "verification": verification}
    report = export_tflite(network, ["float32", "float16"], tmp_path, **settings, overwrite=True)
    assert [row["accepted"] for row in report["files"].values()] == [True, False]
    assert report["files"]["float16"]["psnr_y_drop"] > 0.1
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["report.json", "x_float16.tflite.rejected", "x_float32.tflite"]


def test_existing_files_are_refused_before_any_work(network, tmp_path):
    (tmp_path / "x_float32.tflite").write_text("precious")
    with pytest.raises(ConfigError, match="x_float32.tflite exists. Use --overwrite, or another folder."):
        export_tflite(network, ["float32"], tmp_path, name="x", model_sha256="", verification=["nowhere"])
    assert (tmp_path / "x_float32.tflite").read_text() == "precious"


def test_a_tile_that_is_all_halo_is_refused(network, tmp_path):
    with pytest.raises(ConfigError, match="tile must be larger than twice the network's halo, 16. Received: 16"):
        export_tflite(network, ["float32"], tmp_path, name="x", model_sha256="", tile=16)


def test_an_empty_calibration_folder_is_refused(network, tmp_path):
    with pytest.raises(DataError, match="no pictures in"):
        export_tflite(network, ["int8"], tmp_path, name="x", model_sha256="", calibration=[str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_file(tmp_path):
    with pytest.raises(ModelError, match="Cannot write .*: No space left on device"):
        write_whole_to_full_disk(tmp_path / "x.tflite")
    assert list(tmp_path.iterdir()) == []


def write_whole_to_full_disk(path):
    with pytest.MonkeyPatch.context() as patch:
        original = type(path).write_bytes

        def write_half(self, content):
            original(self, content[: len(content) // 2])
            raise OSError(28, "No space left on device")

        patch.setattr(type(path), "write_bytes", write_half)
        write_file(path, b"12345678")


def test_saved_model_in_a_process_without_keras_psr(network, tmp_path):
    save_saved_model(network, tmp_path / "saved")
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 14, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = f"""
import sys
import numpy as np
import tensorflow as tf

loaded = tf.saved_model.load({str(tmp_path / "saved")!r})
images = np.load({str(tmp_path / "images.npy")!r})
np.save({str(tmp_path / "float.npy")!r}, loaded.signatures["serving_default"](image=images.astype(np.float32))["image"])
np.save({str(tmp_path / "bytes.npy")!r}, loaded.signatures["uint8"](image=images)["image"])
assert "keras_psr" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    expected = np.clip(np.asarray(network(images.astype(np.float32))), 0, 255)
    assert np.abs(np.load(tmp_path / "float.npy") - expected).max() < 1e-3
    received = np.load(tmp_path / "bytes.npy")
    assert received.dtype == np.uint8
    assert (received != to_uint8(expected)).mean() < 1e-3  # where float32 is a hair from a half
    save_saved_model(network, tmp_path / "saved")  # replaces it
    assert tf.saved_model.contains_saved_model(str(tmp_path / "saved"))
    assert not [path for path in (tmp_path / "saved").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 14), (1, 3)])
def test_saved_model_of_a_style_takes_any_size(tmp_path, height, width):
    style = build_style_network(num_filters=2, num_residual_blocks=1)
    style.get_layer("exit").kernel.assign(np.random.default_rng(0).normal(0, 5, (9, 9, 2, 3)))
    save_saved_model(style, tmp_path / "saved")
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.float32)
    received = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"](image=images)["image"]
    filled = np.pad(images, [(0, 0), (0, -height % 4), (0, -width % 4), (0, 0)], mode="edge")
    expected = np.clip(np.asarray(style(filled)), 0, 255)[:, :height, :width]
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(received, expected, atol=0.01)


def test_benchmark(exported):
    out, _ = exported
    result = benchmark([out / "tiny_float32.tflite", out / "tiny_int8.tflite"], [1, 2])
    for row in result["files"]:
        assert row["output_pixels"] == (4 * (TILE - 2 * 8)) ** 2  # without the halo
        assert 20 < row["peak_memory_mb"] < 500
        for times in row["threads"].values():
            assert 0 < times["median_ms"] <= times["p95_ms"]
            expected = row["output_pixels"] / 1e6 / (times["median_ms"] / 1e3)
            assert times["megapixels_per_second"] == pytest.approx(expected)
    assert [pair["threads"] for pair in result["comparisons"]] == [1, 2]
    float_row, int8_row = result["files"]
    ratio = int8_row["threads"]["1"]["median_ms"] / float_row["threads"]["1"]["median_ms"]
    assert result["comparisons"][0]["ratio"] == pytest.approx(ratio)


def test_latency_is_of_each_model(exported):
    out, _ = exported
    content = (out / "tiny_float32.tflite").read_bytes()
    times = measure_latency({"a": content, "b": content}, 1)
    assert list(times) == ["a", "b"]
    assert all(len(seconds) >= 5 and (seconds > 0).all() for seconds in times.values())


def test_a_broken_file_is_refused(tmp_path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 40)
    with pytest.raises(ModelError):
        benchmark([path])
    with pytest.raises(ModelError, match="missing.tflite cannot be read"):
        benchmark([tmp_path / "missing.tflite"])
