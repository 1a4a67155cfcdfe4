import io
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_psr.cli import export as export_command
from keras_psr.cli.main import main
from keras_psr.errors import ModelError
from keras_psr.export import benchmark as benchmark_module
from keras_psr.export.conversion import VARIANTS
from keras_psr.inference.tflite_metadata import read_metadata
from keras_psr.networks.super_resolution import build_network


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "runs" / "small"
    folder.mkdir(parents=True)
    keras.utils.set_random_seed(0)
    network = build_network("residual", scale=2, num_filters=4, num_residual_blocks=1)
    network.get_layer("exit").kernel.assign(np.random.default_rng(0).normal(0, 0.3, (9, 9, 4, 3)))
    network.save(folder / "model.keras")
    return folder


@pytest.fixture(autouse=True)
def in_folder_with_the_run(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder.parents[1])
    monkeypatch.setattr(benchmark_module, "SECONDS", 0.02)


def test_quantize_names_every_variant():
    assert tuple(export_command.choose_variants(("all",))) == VARIANTS
    assert export_command.choose_variants(("none", "float32", "int8")) == ["float32", "int8"]
    assert export_command.choose_variants(()) == ["float32", "float16", "int8"]


def test_without_a_model_the_shipped_one_is_taken_as_by_upscale(runner, tmp_path, monkeypatch):
    asked = []

    def find_model(name):
        asked.append(name)
        raise ModelError("none")

    monkeypatch.setattr("keras_psr.inference.registry.find_model", find_model)
    assert runner.invoke(main, ["export", "--tflite", "--out", str(tmp_path)]).exit_code == 1
    assert asked == ["x4"], "although there is a run in runs/"


@pytest.fixture
def small(photograph):
    """The options of a quick export."""
    return ["export", "runs/small", "--tflite", "--tile", "40", "--verify", str(photograph)]


def test_export_a_run_and_benchmark_it(runner, small, tmp_path):
    arguments = [*small, "--out", str(tmp_path), "--max-drop", "1", "--check", "gpu"]
    result = runner.invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    names = ["report.json", "small_float16.tflite", "small_float32.tflite", "small_int8.tflite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    steps = [line.split(" of 8: ") for line in result.stderr.splitlines() if " of 8: " in line]
    assert [number for number, _ in steps] == [str(number) for number in range(1, 9)]
    assert [step for _, step in steps[2:5]] == ["converting to int8", "verifying", "timing"]
    assert "small_int8.tflite: outside XNNPACK: 2 QUANTIZE: XNNPACK does not convert" in result.stderr
    assert "small_float32.tflite: GPU: takes every operator" in result.stderr
    assert json.loads((tmp_path / "report.json").read_text())["files"]["float32"]["gpu"]["refusals"] == []
    assert read_metadata(tmp_path / "small_int8.tflite")["tile"] == 40

    again = runner.invoke(main, arguments)
    assert again.exit_code == 1
    assert "Use --overwrite, or another folder." in again.stderr

    files = [str(tmp_path / name) for name in names[2:]]
    result = runner.invoke(main, ["benchmark", *files, "--threads", "1", "--json", "-"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [row["file"] for row in document["files"]] == files
    assert f"{files[1]} takes " in result.stderr or f"{files[1]} is NOT faster than {files[0]}" in result.stderr


def test_a_drop_above_the_limit_is_exit_1_and_rejected(runner, small, tmp_path):
    result = runner.invoke(main, [*small, "--quantize", "none", "--out", str(tmp_path), "--max-drop", "-1"])
    assert result.exit_code == 1
    assert "Lost more than --max-drop -1.0 dB and kept as .rejected: small_float32.tflite.rejected" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "small_float32.tflite.rejected"]


def test_export_a_saved_model(runner, tmp_path):
    result = runner.invoke(main, ["export", "runs/small", "--saved-model", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "saved_model.pb").is_file()
    result = runner.invoke(main, ["export", "runs/small", "--saved-model", "--out", str(tmp_path)])
    assert result.exit_code == 1 and "saved_model.pb exists. Use --overwrite" in result.stderr


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_conversion_at_once_and_leaves_nothing(tmp_path, signum, code):
    command = [sys.executable, "-m", "keras_psr", "export", "runs/small", "--tflite", "--quantize", "int16x8"]
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of shells ignore it
    )
    while not list(scratch.glob(".part.*/saved_model.pb")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signum)
    assert process.communicate()[1].splitlines()[-1] == {130: "Interrupted.", 143: "Terminated."}[code]
    assert process.returncode == code
    assert not out.exists() and not list(scratch.glob(".part.*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Say what to write: --tflite, --saved-model or both."),
        (["--tflite", "--quantize", "int9"], 2, "'none', 'float32', 'float16', 'dynamic', 'int8', 'int16x8', 'all'"),
        (["nowhere", "--tflite"], 1, "No model 'nowhere'"),
        (["runs/small", "--tflite", "--calibration", "runs"], 1, "no pictures in runs"),
        (["runs/small", "--tflite", "--tile", "8"], 1, "tile must be larger than twice the network's halo"),
        (["runs/small", "--tflite", "--dynamic-shape", "--quantize", "int8"], 1, "int8 needs"),
    ],
)
def test_bad_input(runner, tmp_path, arguments, code, message):
    result = runner.invoke(main, ["export", *arguments, "--out", str(tmp_path)])
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_dynamic_shape(runner, small, tmp_path):
    result = runner.invoke(main, [*small, "--dynamic-shape", "--quantize", "none", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    assert read_metadata(tmp_path / "small_float32.tflite")["tile"] is None


@pytest.mark.parametrize("threads", ["0", "a", "1,,2", ""])
def test_bad_threads(runner, threads):
    result = runner.invoke(main, ["benchmark", "x.tflite", "--threads", threads])
    assert result.exit_code == 2
    assert "expected positive numbers separated by commas" in " ".join(result.stderr.split())


def test_numbers_of_the_benchmark_are_never_cut():
    from rich.console import Console

    from keras_psr.cli.benchmark import build_table

    times = {"median_ms": 12345.6, "p95_ms": 23456.7, "megapixels_per_second": 1234.56}
    row = {"file": f"export/{'long-name' * 9}_float32.tflite", "peak_memory_mb": 1234.0, "xnnpack_partitions": 12}
    row |= {"threads": {"1": times, "16": times}, "gpu": times}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(build_table({"files": [row]}))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert all(text.count(number) == 3 for number in ("12345.6", "23456.7", "1234.56"))
    assert text.count("1234 ") == 2 and "16 threads" in text and "GPU" in text


def test_benchmark_says_when_int8_is_slower():
    from keras_psr.cli.benchmark import describe_comparisons

    pair = {"float32": "f.tflite", "int8": "i.tflite", "threads": 1, "ratio": 1.28}
    (line,) = describe_comparisons({"comparisons": [pair]})
    assert line.startswith("i.tflite is NOT faster than f.tflite with 1 thread: it takes 1.28 of its time.")
