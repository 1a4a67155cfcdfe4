"""What tools/retrain_model.py gives to `keras-psr fit`."""

import json
import subprocess
from pathlib import Path

from click.testing import CliRunner


def test_a_fit_begins_with_the_blocks_that_were_removed_after_it(load_tool, monkeypatch):
    fits = []

    def note(command, *, check):
        config = json.loads(Path(command[command.index("--config") + 1]).read_text(encoding="utf-8"))
        fits.append((config["init"], config["num_residual_blocks"]))
        return subprocess.CompletedProcess(command, 0)

    tool = load_tool("retrain_model")
    monkeypatch.setattr(subprocess, "run", note)
    assert CliRunner().invoke(tool.main, ["x4-photo"], catch_exceptions=False).exit_code == 0
    assert fits == [("", 10), (str(Path("runs/x4-photo-1")), 10)]
