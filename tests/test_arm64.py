"""What tools/arm64.py compares and says; the emulation itself is `make arm64-test`."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from rich.console import Console

SCRIPT = Path(__file__).parents[1] / "tools" / "arm64.py"


@pytest.fixture(scope="module")
def arm64(load_tool):
    return load_tool("arm64")


def test_without_an_emulator_one_line_says_how_to_get_it(arm64, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(click.ClickException, match="qemu-aarch64-static is not installed.*apt-get install qemu"):
        arm64.find_emulator()


def test_without_apt_one_line_says_so(arm64, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if "qemu" in name else None)
    with pytest.raises(click.ClickException, match="No apt-get"):
        arm64.find_emulator()
    monkeypatch.setattr(shutil, "which", lambda name: None if name.endswith("static") else f"/usr/bin/{name}")
    assert arm64.find_emulator() == "/usr/bin/qemu-aarch64"


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_an_arm64_machine_needs_no_emulation(arm64, monkeypatch, machine):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(click.ClickException, match="ARM64 itself: `make test`"):
        arm64.find_emulator()


def test_the_script_ends_with_that_line_and_leaves_nothing(tmp_path):
    environment = {**os.environ, "PATH": ""}
    command = [sys.executable, SCRIPT, "--folder", "arm"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and not list(tmp_path.iterdir())


def test_differences_are_in_grey_levels(arm64):
    assert arm64.measure(np.uint8([[0, 255]]), np.uint8([[255, 254]])).tolist() == [[255, 1]]
    assert arm64.measure(np.uint16([[257, 65535]]), np.uint16([[0, 65278]])).tolist() == [[1, 1]]
    assert not arm64.measure(np.uint16([[7]]), np.uint16([[7]])).any()


@pytest.mark.parametrize("received", [np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.uint16)])
def test_pictures_of_another_kind_are_an_error(arm64, received):
    with pytest.raises(click.ClickException, match=r"Expected uint8 \(2, 2\)\. Received: "):
        arm64.measure(np.zeros((2, 2), np.uint8), received)


def test_a_bit_is_too_much_for_int8_only(arm64):
    def holds(variant, greatest):
        return arm64.Comparison("x4", "cortex-a76", 0.0, greatest, arm64.BOUND[variant], 1.0).holds

    assert holds("int8", 0.0) and not holds("int8", 1.0)
    assert holds("float32", 1 / 257) and not holds("float32", 1.0)


def test_the_table_fits_a_terminal(arm64):
    comparisons = [arm64.Comparison("starry-night_int8", "cortex-a76", 1.0, 255.0, 0.0, 1234.5)]
    console = Console(width=80, record=True)
    with console.capture() as text:
        console.print(arm64.build_table(comparisons))
    assert "…" not in text.get() and "starry-night_int8  cortex-a76    100.00%    255.0000" in text.get()


def test_litert_reads_an_arm_processor(arm64, tmp_path):
    arm64.write_processor(tmp_path, "cortex-a72")
    text = (tmp_path / "proc" / "cpuinfo").read_text()
    assert "CPU part\t: 0xd08\n" in text and "asimddp" not in text
    arm64.write_processor(tmp_path, "cortex-a76")
    assert "asimddp" in (tmp_path / "proc" / "cpuinfo").read_text()
    assert (tmp_path / "sys/devices/system/cpu/possible").read_text() == "0\n"


def test_a_failing_command_is_told_with_its_words(arm64, tmp_path):
    with pytest.raises(click.ClickException, match="(?s)failed:.*No such module of mine"):
        arm64.call(sys.executable, "-c", "raise SystemExit('No such module of mine')", cwd=tmp_path)
