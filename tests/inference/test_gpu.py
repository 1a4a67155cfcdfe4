"""A GPU gives the CPU's pixels, is taken when it should be, and may fail: tried on SwiftShader, Vulkan on the CPU."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_psr.cli.main import main
from keras_psr.errors import ConfigError
from keras_psr.inference import gpu as gpu_module
from keras_psr.inference.gpu import GpuError, GpuNetwork
from keras_psr.inference.litert import LiteRTNetwork, TileInterpreter
from keras_psr.inference.upscaler import load


def make_picture(height, width, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(height).integers(0, top + 1, (height, width, 3)).astype(dtype)


@pytest.fixture
def small(tmp_path):
    """A PNG file of 50x40 pixels."""
    from PIL import Image

    Image.fromarray(make_picture(40, 50)).save(tmp_path / "small.png")
    return tmp_path / "small.png"


@pytest.fixture
def hardware(monkeypatch, software_gpu):
    """SwiftShader passes for a real and fast GPU."""
    monkeypatch.setattr(gpu_module, "_find_adapter", lambda log: ("Test GPU", True))
    monkeypatch.setattr(GpuNetwork, "time", lambda self: 0.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (90, 130)])
def test_pictures_are_those_of_the_cpu(software_gpu, export_tflite, dtype, height, width):
    path, image = export_tflite("float32"), make_picture(height, width, dtype)
    on_gpu, on_cpu = (load(path, device=device)(image) for device in ("gpu", "cpu"))
    assert on_gpu.dtype == dtype and on_gpu.shape == (4 * height, 4 * width, 3)
    difference = np.abs(on_gpu.astype(int) - on_cpu)
    assert difference.max() <= (1 if dtype == np.uint8 else 3)  # rounding
    assert (difference > 0).mean() < (0.001 if dtype == np.uint8 else 0.2)
    assert np.ptp(on_cpu) > 30


@pytest.mark.parametrize(("variant", "limit"), [("float16", 0.01), ("int8", 8)])
def test_other_kinds_of_files_run_too(software_gpu, export_tflite, variant, limit):
    content = export_tflite(variant).read_bytes()
    gpu, tile = GpuNetwork(content, exact=False), make_picture(48, 48)
    result = gpu(tile)
    assert result.dtype == (np.uint8 if variant == "int8" else np.float32)
    assert np.abs(result.astype(np.float32) - TileInterpreter(content)(tile)).max() < limit


def test_several_threads_get_their_own_tiles(software_gpu, export_tflite):
    content = export_tflite("float32").read_bytes()
    gpu, interpreter = GpuNetwork(content), TileInterpreter(content)
    tiles = [make_picture(48, 48) // (index + 1) for index in range(12)]
    with ThreadPoolExecutor(6) as executor:
        for received, tile in zip(executor.map(gpu, tiles), tiles, strict=True):
            np.testing.assert_allclose(received, interpreter(tile), atol=1e-3)


def test_auto_leaves_a_software_adapter(software_gpu, export_tflite):
    lines = []
    network = LiteRTNetwork(export_tflite("float32"), threads=2, device="auto", on_device=lines.append)
    (line,) = lines
    assert line.startswith("Computing on the CPU with 2 threads: the only adapter, SwiftShader")
    assert network.device == line and network.workers == 2


def test_auto_takes_a_real_gpu(hardware, export_tflite):
    lines = []
    network = LiteRTNetwork(export_tflite("float32"), threads=1, device="auto", on_device=lines.append)
    (line,) = lines
    assert line.startswith("Computing on the GPU Test GPU: within ")
    assert network.workers > 1, "the GPU would wait for tiles"


def test_auto_leaves_a_gpu_of_other_pixels(hardware, export_tflite, monkeypatch):
    healthy = gpu_module._CompiledFile.finish
    monkeypatch.setattr(gpu_module._CompiledFile, "finish", lambda self, slot: healthy(self, slot) + 1.5)
    network = LiteRTNetwork(export_tflite("float32"), device="auto")
    assert "Test GPU gives different pixels, by up to 1.5 grey levels" in network.device
    monkeypatch.setattr(gpu_module._CompiledFile, "finish", lambda self, slot: healthy(self, slot) * np.nan)
    assert (
        "Test GPU gives different pixels, by up to nan" in LiteRTNetwork(export_tflite("float32"), device="auto").device
    )


def test_auto_leaves_a_gpu_that_is_slower(hardware, export_tflite, monkeypatch):
    monkeypatch.setattr(GpuNetwork, "time", lambda self: 1e6)
    assert "times as long" in LiteRTNetwork(export_tflite("float32"), device="auto").device


def test_auto_leaves_files_of_8_bits_to_the_cpu(hardware, export_tflite):
    assert LiteRTNetwork(export_tflite("int8"), device="auto").device.endswith("8-bit files are made for it")


@pytest.mark.parametrize("step", ["start", "finish"])
def test_a_gpu_that_fails_in_the_middle_loses_nothing(software_gpu, export_tflite, monkeypatch, step):
    image, lines = make_picture(200, 150), []
    expected = load(export_tflite("float32"), device="cpu")(image)
    upscaler = load(export_tflite("float32"), device="gpu", on_device=lines.append)
    healthy, calls, pixels = getattr(gpu_module._CompiledFile, step), [], []

    def fail(self, argument):
        calls.append(step)
        if len(calls) > 5:
            raise RuntimeError("device\nlost")
        return healthy(self, argument)

    monkeypatch.setattr(gpu_module._CompiledFile, step, fail)
    received = upscaler(image, on_pixels=pixels.append)
    assert len(calls) > 5, "the GPU was not used"
    assert np.abs(received.astype(int) - expected).max() <= 1
    assert sum(pixels) == 800 * 600
    assert len(lines) == 2
    assert lines[1].endswith("failed (device lost). The CPU takes over; nothing is lost")
    np.testing.assert_array_equal(upscaler(image), expected)


def test_a_closed_gpu_says_so(software_gpu, export_tflite):
    gpu = GpuNetwork(export_tflite("float32").read_bytes())
    gpu.close()
    with pytest.raises(GpuError, match="closed"):
        gpu(make_picture(48, 48))


def test_operators_that_gpus_do_not_have_are_refused(software_gpu):
    import tensorflow as tf

    function = tf.function(
        lambda image: tf.math.segment_sum(tf.nn.relu(image), [0]),
        input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)],
    )
    content = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], function).convert()
    with pytest.raises(GpuError, match="."):
        GpuNetwork(content)


@pytest.mark.skipif(sys.platform != "linux", reason="GPUs can be hidden from Vulkan only, which is Linux's way")
def test_without_a_gpu(export_tflite, small, tmp_path):
    arguments = ["upscale", small, "--model", export_tflite("float32"), "--threads", "1", "-o", tmp_path / "out.png"]
    hidden = os.environ | {"VK_DRIVER_FILES": "/nowhere.json"}
    result = run_command(*arguments, "--device", "gpu", env=hidden)
    assert result.returncode == 1 and not (tmp_path / "out.png").exists()
    (line,) = result.stderr.splitlines()
    assert "--device gpu cannot run tiny_float32.tflite: there is no GPU. Looked for a GPU with Vulkan" in line
    result = run_command(*arguments, env=hidden)
    assert result.returncode == 0 and (tmp_path / "out.png").exists()
    assert result.stderr.splitlines()[0] == "Computing on the CPU with 1 thread: there is no GPU"


def test_an_unknown_device_is_refused(export_tflite, tiny_run):
    for model in (export_tflite("float32"), tiny_run):
        with pytest.raises(ConfigError, match="device must be one of auto, cpu, gpu. Received: 'cuda'"):
            load(model, device="cuda")


def test_a_keras_model_computes_where_tensorflow_does(tiny_run):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow has a GPU here")
    assert load(tiny_run).device == "TensorFlow computes on the CPU"
    assert load(tiny_run, device="cpu")(make_picture(3, 4)).shape == (12, 16, 3)
    with pytest.raises(ConfigError, match="--device gpu: TensorFlow, which runs .keras files, finds no GPU"):
        load(tiny_run, device="gpu")


def run_command(*arguments, env=None):
    command = [sys.executable, "-m", "keras_psr", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_log_lines_stay_out_of_the_console(software_gpu, export_tflite, small, tmp_path, device):
    target = tmp_path / "out.png"
    result = run_command(
        "upscale", small, "--model", export_tflite("float32"), "-o", target, "--device", device, "--json", "-"
    )
    assert json.loads(result.stdout)["pictures"][0]["status"] == "written"
    first, second = result.stderr.splitlines()
    assert first.startswith(f"Computing on the {'GPU' if device == 'gpu' else 'CPU'}") and str(target) in second


@pytest.mark.parametrize("step", ["is_fully_accelerated", "create_input_buffers", "run_by_index"])
def test_a_gpu_that_fails_at_once_logs_nothing(software_gpu, export_tflite, step):
    code = (
        "import sys\n"
        "from ai_edge_litert.compiled_model import CompiledModel\n"
        "from keras_psr.inference.litert import LiteRTNetwork\n"
        "from pathlib import Path\n"
        f"def fail(*arguments): raise RuntimeError('{step}')\n"
        f"CompiledModel.{step} = fail\n"
        "print(LiteRTNetwork(Path(sys.argv[1]), threads=1, device='auto').device)"
    )
    command = [sys.executable, "-c", code, str(export_tflite("float32"))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == (f"Computing on the CPU with 1 thread: {step}\n", "")


def test_benchmark_times_the_gpu(software_gpu, export_tflite, runner, monkeypatch):
    from keras_psr.export import benchmark

    monkeypatch.setattr(benchmark, "SECONDS", 0.02)
    result = runner.invoke(main, ["benchmark", str(export_tflite("float32")), "--device", "gpu", "--json", "-"])
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)["files"]
    assert row["threads"] == {} and "SwiftShader" in row["gpu"]["adapter"]
    assert 0 < row["gpu"]["median_ms"] <= row["gpu"]["p95_ms"]
    automatic = benchmark.benchmark([export_tflite("float32")], [1], device="auto")["files"][0]
    assert automatic["gpu"] is None and list(automatic["threads"]) == ["1"]


def test_export_runs_its_files_on_the_gpu(software_gpu, export_tflite):
    from keras_psr.cli.export import describe_gpu
    from keras_psr.export.delegates import check_gpu

    report = check_gpu(export_tflite("float32").read_bytes())
    assert report["refusals"] == [] and not report["is_hardware"] and report["max_difference"] < 1e-3
    text = describe_gpu(report)
    assert text.startswith("takes every operator; run on SwiftShader") and ", not a real GPU: " in text


def test_export_has_only_rules_without_a_gpu(export_tflite, monkeypatch):
    from keras_psr.cli.export import describe_gpu
    from keras_psr.export.delegates import check_gpu

    def load(self, exact):
        raise GpuError("there is no GPU")

    monkeypatch.setattr(gpu_module._CompiledFile, "_load", load)
    report = check_gpu(export_tflite("float32").read_bytes())
    assert report == {"refusals": [], "adapter": None, "reason": "there is no GPU"}
    assert (
        describe_gpu(report) == "takes every operator, according to the rules for operators; not run (there is no GPU)"
    )
