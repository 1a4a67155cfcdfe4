"""What README.md shows works: its Python runs, and its commands are understood."""

import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from keras_psr.cli.main import COMMANDS
from keras_psr.images.decoding import read_rgb

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMAND_LINES = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def read_python():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return block


@pytest.fixture
def shipped(monkeypatch, tmp_path, tiny_run):
    """An installation whose x4 is the tiny model."""
    from keras_psr.inference.registry import file_sha256

    folder = tmp_path / "shipped" / "x4"
    folder.mkdir(parents=True)
    shutil.copy(tiny_run / "model.keras", folder)
    card = {"sha256": {"model.keras": file_sha256(folder / "model.keras")}}
    (folder / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr("keras_psr.inference.registry.shipped_folder", lambda: folder.parent)


@pytest.mark.usefixtures("shipped")
def test_the_python_runs(tmp_path, monkeypatch, capsys, photograph, tiny_settings):
    monkeypatch.chdir(tmp_path)
    Image.open(photograph).save("photo.jpg")
    for folder in ("photos", "Set14"):
        Path(folder).mkdir()
        shutil.copy(photograph, folder)
    code = read_python()
    assert "steps=3000" in code
    exec(code.replace("steps=3000", "**tiny_settings"), {"tiny_settings": tiny_settings})
    assert read_rgb("big.png").shape == (256, 384, 3)
    assert Path("runs/x4/model.keras").is_file()
    assert re.fullmatch(r"\d+\.\d+ dB\n", capsys.readouterr().out)


@pytest.mark.parametrize("line", [line for line in COMMAND_LINES if line.startswith("keras-psr")])
def test_the_commands_are_understood(line):
    _, name, *args = shlex.split(line, comments=True)
    assert name in COMMANDS
    getattr(import_module(f"keras_psr.cli.{name}"), name).make_context(name, args)


def test_there_are_commands():
    assert {line.split()[1] for line in COMMAND_LINES if line.startswith("keras-psr")} == set(COMMANDS)
