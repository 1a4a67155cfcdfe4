"""What runs without Keras and TensorFlow, and what the rest says there.

In a full installation these tests hide everything that requirements-runtime.txt leaves out. `make wheel-test` also runs
them where it is not installed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_psr
from keras_psr import environment
from keras_psr.cli.main import COMMANDS
from keras_psr.environment import LEFT_OUT, describe_missing, explain, is_installed, require_everything
from keras_psr.errors import InstallationError, KerasPSRError
from keras_psr.images.decoding import read_rgb
from keras_psr.inference.registry import find_runnable, shipped_folder

IS_FULL = is_installed("tensorflow")

HIDE = f"""
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *args):
        return None if name.partition(".")[0] in {set(LEFT_OUT)} else self.finder.find_spec(name, *args)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""
LINE = (
    "{} needs more than this installation, which only runs models. "
    "Install the rest: pip install keras scipy scikit-image tensorboard tensorflow tensorflow-datasets"
)


@pytest.fixture
def run(tmp_path):
    """Runs a command in an empty folder, in a light installation or in what looks like one; returns what it gave."""
    folder, hidden = tmp_path / "here", tmp_path / "hidden"
    folder.mkdir()
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(HIDE if IS_FULL else "")

    def run(*command):
        environment = {**os.environ, "PYTHONPATH": str(hidden)}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    run.folder = folder
    return run


@pytest.fixture
def keras_psr_command(run):
    """Runs `keras-psr ARGS` there."""
    return lambda *args: run(Path(sys.executable).with_name("keras-psr"), *args)


@pytest.fixture
def picture(run):
    """A PNG file of 20x30 pixels: a ramp, noise and an edge."""
    pixels = np.random.default_rng(0).integers(0, 40, (20, 30, 3)) + np.arange(30)[:, None] * 7
    pixels[:, 20:] = 255 - pixels[:, 20:]
    path = run.folder / "photo.png"
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("module", LEFT_OUT)
def test_the_rest_is_not_there(run, module):
    assert f"No module named '{module}'" in run(sys.executable, "-c", f"import {module}").stderr


@pytest.mark.parametrize(
    ("command", "model", "side"),
    [("upscale", "x4-fast_int8", 4), ("upscale", "x2", 2), ("stylize", "great-wave_int8", 1)],
)
def test_pictures_are_enlarged_and_painted(keras_psr_command, picture, command, model, side):
    result = keras_psr_command(command, picture, "--model", model, "-o", "result.png")
    assert result.returncode == 0, result.stderr
    received = read_rgb(picture.with_name("result.png"))
    assert received.shape == (20 * side, 30 * side, 3)
    assert np.array_equal(received, keras_psr.load(model)(read_rgb(picture)))


def test_every_option_of_a_result_works(keras_psr_command, picture):
    options = ["--strength", "0.5", "--match-histogram", "--output-scale", "1.5"]
    result = keras_psr_command("upscale", picture, "--model", "x2-fast", *options, "-o", "result.jpg")
    assert result.returncode == 0, result.stderr
    with Image.open(picture.with_name("result.jpg")) as image:
        assert image.size == (45, 30)
    result = keras_psr_command("stylize", picture, "--model", "the-scream_int8", "--preserve-colors", "-o", "grey.png")
    assert result.returncode == 0, result.stderr


def test_models_lists_and_describes(keras_psr_command):
    assert "x4-fast" in keras_psr_command("models").stdout
    assert "great-wave" in keras_psr_command("models", "great-wave").stdout
    assert "halo" in keras_psr_command("models", str(find_runnable("x4_int8"))).stdout


def test_benchmark_times_a_file(keras_psr_command):
    result = keras_psr_command("benchmark", str(find_runnable("x4-fast_int8")), "--threads", "1", "--json", "-")
    assert result.returncode == 0, result.stderr
    (file,) = json.loads(result.stdout)["files"]
    assert file["peak_memory_mb"] > 1 and file["threads"]["1"]["median_ms"] > 0


def test_demo_needs_the_page_only(keras_psr_command, run):
    result = keras_psr_command("demo", "--model", str(find_runnable("x4-fast_int8")), "--out", "site")
    if (Path(keras_psr.__file__).parent / "page" / "index.html").is_file():
        assert result.returncode == 0, result.stderr
        assert (run.folder / "site" / "index.html").is_file()
    else:
        assert result.returncode == 1
        assert "page" in result.stderr and "more than this installation" not in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(keras_psr_command, name):
    result = keras_psr_command(name, "--help")
    assert result.returncode == 0 and f"keras-psr {name}" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit",),
        ("fit", "--scale", "2", "--data", "nowhere/", "--out", "run"),
        ("fit", "--resume", "--out", "nowhere"),
        ("evaluate", "--data", "nowhere/"),
        ("evaluate", "--model", "x4-fast_int8", "--data", "nowhere/", "--json", "-"),
        ("export", "--tflite"),
        ("export", "x2", "--saved-model", "--out", "files"),
    ],
    ids=" ".join,
)
def test_the_other_commands_say_what_to_install(keras_psr_command, run, arguments):
    result = keras_psr_command(*arguments)
    assert result.returncode == 1
    assert result.stderr == f"Error: {LINE.format(f'keras-psr {arguments[0]}')}\n"
    assert result.stdout == "" and not list(run.folder.iterdir())


def test_a_keras_file_and_a_painting_say_so_too(keras_psr_command, picture):
    network = shipped_folder() / "x2-fast" / "model.keras"
    result = keras_psr_command("upscale", picture, "--model", network)
    assert (result.returncode, result.stderr) == (1, f"Error: {LINE.format(f'The .keras file {network}')}\n")
    result = keras_psr_command("stylize", picture, "--style", picture)
    assert (result.returncode, result.stderr) == (1, f"Error: {LINE.format('keras-psr stylize --style')}\n")


@pytest.mark.parametrize("name", ["fit", "evaluate", "build_network"])
def test_so_does_python(run, name):
    result = run(sys.executable, "-c", f"import keras_psr; keras_psr.{name}")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"keras_psr.errors.InstallationError: {LINE.format(f'keras_psr.{name}')}"


def test_only_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(environment, "is_installed", lambda module: module not in ("skimage", "tensorflow"))
    assert describe_missing("It").endswith("pip install scikit-image tensorflow")
    with pytest.raises(InstallationError, match="^It needs more than"):
        require_everything("It")
    monkeypatch.setattr(environment, "is_installed", lambda module: True)
    require_everything("It")


def test_an_import_error_for_another_reason_stays(monkeypatch):
    monkeypatch.setattr(environment, "is_installed", lambda module: module != "scipy")
    assert isinstance(explain(ModuleNotFoundError(name="scipy.fft"), "It"), KerasPSRError)
    for name in ("scipyx", "keras", "keras.nowhere", None):
        error = ModuleNotFoundError(name=name)
        assert explain(error, "It") is error
