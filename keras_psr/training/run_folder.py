"""A run folder: what a fit writes, where, and how its state is saved and found again."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np

from keras_psr import __version__
from keras_psr.errors import ConfigError, ModelError, TrainingError
from keras_psr.training.config import FitConfig

CHECKPOINTS_KEPT = 2
CONFIG_FILE = "config.json"


class RunFolder:
    """Paths inside a run folder, and what is written there once.

    `config.json`, `model.keras` (averaged weights), `checkpoints/step-*.npz` (everything needed to go on),
    `log.jsonl`, TensorBoard events in `tensorboard/`, and `samples/step-*.png`.
    """

    def __init__(self, path: Path) -> None:
        """Names a run folder, which need not exist."""
        self.path = path
        self.config_file = path / CONFIG_FILE
        self.model_file = path / "model.keras"
        self.log_file = path / "log.jsonl"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"

    def check(self, config: FitConfig, *, resume: bool, overwrite: bool) -> None:
        """Refuses what would lose a run or mix two; changes nothing.

        Args:
            config: The resolved settings.
            resume: Go on with the run that the folder holds.
            overwrite: Replace the run that the folder holds.

        Raises:
            TrainingError: The folder holds a run and neither was asked for, or there is nothing to resume.
            ConfigError: The run to resume was fitted with other settings.
        """
        if resume:
            self._check_resumable(config)
            return
        if self.config_file.exists() and not overwrite:
            raise TrainingError(f"--out {self.path} already holds a run. Use --resume, --overwrite or another folder.")
        if self.path.exists() and not self.config_file.exists() and any(self.path.iterdir()):
            raise TrainingError(f"--out {self.path} is not empty and holds no run. Use another folder.")

    def start(self, config: FitConfig, command: Sequence[str]) -> None:
        """Makes the folder, or empties it of the run before, and writes `config.json`.

        Args:
            config: The resolved settings.
            command: What to note as the command that made the run.
        """
        for folder in (self.checkpoints, self.samples, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.log_file.unlink(missing_ok=True)
        self.model_file.unlink(missing_ok=True)
        record = {"config": config.to_json(), "command": list(command), **_environment()}
        self.config_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def save_checkpoint(self, step: int, state: dict[str, np.ndarray]) -> None:
        """Saves the state under a temporary name, renames it, and removes all but the newest checkpoints."""
        target = self.checkpoints / f"step-{step:08d}.npz"
        temporary = target.with_suffix(".partial")
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **state)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        for old in sorted(self.checkpoints.glob("step-*.npz"))[:-CHECKPOINTS_KEPT]:
            old.unlink()

    def load_checkpoint(self) -> dict[str, np.ndarray]:
        """The newest checkpoint's state.

        Raises:
            TrainingError: There is none, or it is damaged.
        """
        paths = sorted(self.checkpoints.glob("step-*.npz"))
        if not paths:
            raise TrainingError(f"--resume: {self.checkpoints} holds no checkpoint. Start anew with --overwrite.")
        try:
            with paths[-1].open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise TrainingError(f"--resume: {paths[-1]} is damaged. Delete it to use the one before.") from error

    def save_network(self, network: keras.Model) -> None:
        """Writes `model.keras` under a temporary name and renames it."""
        temporary = self.path / "model.partial.keras"
        network.save(temporary)
        temporary.replace(self.model_file)

    def _check_resumable(self, config: FitConfig) -> None:
        if not self.config_file.exists():
            raise TrainingError(f"--resume: {self.path} holds no run ({CONFIG_FILE} is missing).")
        saved = FitConfig.from_json(json.loads(self.config_file.read_text(encoding="utf-8"))["config"]).to_json()
        changed = [name for name, value in config.to_json().items() if saved[name] != value]
        if changed:
            differences = ", ".join(f"{name} was {saved[name]}, now {config.to_json()[name]}" for name in changed)
            raise ConfigError(f"--resume goes on with the run's own settings; leave out what differs: {differences}.")


def saved_config(path: Path) -> dict[str, Any]:
    """The settings that the run in a folder was started with.

    Raises:
        ModelError: The folder holds no run.
    """
    file = path / CONFIG_FILE
    if not file.is_file():
        raise ModelError(f"{path} holds no run ({CONFIG_FILE} is missing). Give a run folder of `keras-psr fit`.")
    return json.loads(file.read_text(encoding="utf-8"))["config"]


def _environment() -> dict[str, Any]:
    """Versions, machine and git state, for `config.json`."""
    packages = ("tensorflow", "keras", "numpy", "pillow")
    return {
        "versions": {"keras-psr": __version__, "python": sys.version.split()[0]}
        | {package: version(package) for package in packages},
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()},
        "git": _git_state(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _git_state() -> str | None:
    """Commit of the checkout that this package runs from, with `-dirty` if it was changed; None outside a checkout."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
