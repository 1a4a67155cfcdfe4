"""What must hold of every installation; `make wheel-test` runs this file against the wheel."""

import subprocess
import sys
from importlib.metadata import files as list_installed
from importlib.metadata import metadata, requires, version
from importlib.resources import files
from pathlib import Path

import pytest

import keras_psr
from keras_psr.environment import LEFT_OUT

CHECKOUT = Path(__file__).parents[1]
PACKAGES = {
    "keras_psr": "keras_psr",
    "cli": "keras_psr.cli",
    "export": "keras_psr.export",
    "saved_models": "keras_psr.saved_models",
}
KINDS = {".py", ".typed", ".npz", ".keras", ".tflite", ".html", ".js", ".css", ".svg", ".jpg", ".wasm"}
NAMES = {"NOTICE", "card.json"}


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_file_of_the_checkout_is_installed(folder):
    wanted = [p for p in (CHECKOUT / folder).rglob("*") if p.suffix in KINDS or p.name in NAMES]
    assert wanted
    for path in wanted:
        relative = path.relative_to(CHECKOUT / folder)
        installed = files(PACKAGES[folder]).joinpath(*relative.parts)
        assert installed.is_file(), f"{folder}/{relative} is not in the installation"
        assert installed.read_bytes() == path.read_bytes(), f"{folder}/{relative} differs"


def test_the_vgg_weights_come_with_their_notice():
    names = {entry.name for entry in files("keras_psr").joinpath("losses/weights").iterdir()}
    assert names >= {"vgg16_imagenet_conv1_1-conv4_3.npz", "NOTICE"}
    notice = files("keras_psr").joinpath("losses/weights/NOTICE").read_text()
    assert "Karen Simonyan and Andrew Zisserman" in notice
    assert "CC BY 4.0" in notice


@pytest.mark.parametrize("name", ["cli", "export", "saved_models"])
def test_no_folder_becomes_a_package_of_its_own(name, tmp_path):
    command = [sys.executable, "-c", f"import {name}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"No module named '{name}'" in result.stderr


def test_the_command_is_installed(tmp_path):
    command = Path(sys.executable).with_name("keras-psr")
    result = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == f"keras-psr, version {keras_psr.__version__}\n"


def test_the_page_is_installed_if_it_was_built_and_else_the_cure_is_named(tmp_path):
    command = [Path(sys.executable).with_name("keras-psr"), "demo", "--out", "site"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    built = CHECKOUT / "keras_psr" / "page" / "index.html"
    if built.is_file():
        assert (tmp_path / "site" / "index.html").read_bytes() == built.read_bytes(), result.stderr
    else:
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1 and "make" in result.stderr


def test_metadata():
    assert version("keras-psr") == keras_psr.__version__
    assert metadata("keras-psr")["License-Expression"] == "Apache-2.0 AND CC-BY-4.0"
    installed = {path.name for path in list_installed("keras-psr") or []}
    assert installed >= {"LICENSE", "NOTICE"}


def test_requirements_have_lower_bounds_only():
    requirements = requires("keras-psr") or []
    assert len(requirements) > 10
    for requirement in requirements:
        bound = requirement.split(";")[0]
        assert not any(sign in bound for sign in ("==", "<", "~=", "!=")), requirement


def test_running_models_needs_what_requirements_runtime_lists():
    lines = (CHECKOUT / "requirements-runtime.txt").read_text(encoding="utf-8").splitlines()
    runtime = {line for line in lines if not line.startswith("#")}
    everything = {requirement for requirement in requires("keras-psr") or [] if ";" not in requirement}
    assert runtime < everything
    assert {requirement.partition(">=")[0] for requirement in everything - runtime} == set(LEFT_OUT.values())
