"""A run folder: what a fit writes, where, and how its state is saved and found again."""

import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from filelock import FileLock, Timeout

from keras_psr import __version__
from keras_psr.errors import ConfigError, ModelError, TrainingError
from keras_psr.images.atomic import UNFINISHED, write_whole
from keras_psr.tasks.config import FitConfig

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"

CHECKSUM = "sha256"
"""Name of the array in a checkpoint that holds the checksum of all others."""

CHANGEABLE = ("save_every", "keep", "strategy", "devices", "deterministic", "val")
"""Settings that a resumed run may change: its weights do not depend on them beyond the order of additions."""

log = logging.getLogger(__name__)


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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, and keeps every other fit out of it.

        The operating system holds the lock, so one that a killed process leaves is none.

        Raises:
            TrainingError: Another fit writes into the folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise TrainingError(f"Another fit is writing into --out {self.path}. Use another folder.") from error
        try:
            yield
        finally:
            lock.release()

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
        others = [path for path in self.path.glob("*") if path.name != LOCK_FILE]
        if others and not self.config_file.exists():
            raise TrainingError(f"--out {self.path} is not empty and holds no run. Use another folder.")

    def start(self, config: FitConfig, command: Sequence[str], precision: str) -> None:
        """Makes the folder, or empties it of the run before, and writes `config.json`.

        Args:
            config: The resolved settings.
            command: What to note as the command that made the run.
            precision: What came of the precision in the settings.
        """
        for folder in (self.checkpoints, self.samples, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        self.log_file.unlink(missing_ok=True)
        self.model_file.unlink(missing_ok=True)
        record = {"config": config.to_json(), "precision": precision, "command": list(command)}
        self._write_config(record | describe_environment())

    def go_on(self, config: FitConfig, step: int) -> None:
        """Takes away whatever was written after a step's checkpoint, and notes settings that were changed.

        What a killed process left behind goes with it, so that the folder is that of a run that was never stopped.
        TensorBoard's files are written anew from the log.
        """
        record = json.loads(self.config_file.read_text(encoding="utf-8"))
        self._write_config(record | {"config": config.to_json()})
        for path in [*self.checkpoints.glob("step-*.npz"), *self.samples.glob("step-*.png")]:
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()
        for path in self.path.rglob(f"{UNFINISHED}*"):
            path.unlink()
        with write_whole(self.log_file) as unfinished:
            lines = [json.dumps(line) + "\n" for line in self.read_log() if line["step"] <= step]
            unfinished.write_text("".join(lines), encoding="utf-8")
        shutil.rmtree(self.tensorboard, ignore_errors=True)

    def read_log(self) -> list[dict[str, float]]:
        """The lines of `log.jsonl`; half a line, as a full disk leaves it, is left out."""
        lines = []
        for text in self.log_file.read_text(encoding="utf-8").splitlines() if self.log_file.exists() else []:
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
        return lines

    def save_checkpoint(self, step: int, state: dict[str, np.ndarray], keep: int) -> None:
        """Saves a state whole or not at all, and removes all but the newest `keep` checkpoints.

        Raises:
            OSError: It cannot be written; what was there is left alone.
        """
        with write_whole(self.checkpoints / f"step-{step:08d}.npz") as unfinished, unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **state, **{CHECKSUM: np.array(_checksum(state))})
            file.flush()
            os.fsync(file.fileno())
        for old in sorted(self.checkpoints.glob("step-*.npz"))[:-keep]:
            old.unlink()

    def load_checkpoint(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Step and state of the newest checkpoint that is whole; a damaged one is named and passed over.

        Returns:
            None before the first checkpoint.

        Raises:
            TrainingError: All are damaged.
        """
        paths = sorted(self.checkpoints.glob("step-*.npz"), reverse=True)
        for path in paths:
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                    state = dict(arrays)
                if str(state.pop(CHECKSUM)) != _checksum(state):
                    raise ValueError("its checksum is wrong")
                return int(path.stem.removeprefix("step-")), state
            except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
                log.warning("%s is damaged (%s); using the checkpoint before.", path, error)
        if paths:
            reason = f"each of {len(paths)} checkpoints in {self.checkpoints} is damaged"
            raise TrainingError(f"--resume: {reason}. Start anew with --overwrite.")
        return None

    def save_network(self, network: keras.Model) -> None:
        """Writes `model.keras` whole or not at all.

        Raises:
            OSError: It cannot be written; what was there is left alone.
        """
        with write_whole(self.model_file) as unfinished:
            network.save(unfinished)

    def _write_config(self, record: dict[str, Any]) -> None:
        with write_whole(self.config_file) as unfinished:
            unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def _check_resumable(self, config: FitConfig) -> None:
        if not self.config_file.exists():
            raise TrainingError(f"--resume: {self.path} holds no run ({CONFIG_FILE} is missing).")
        saved = FitConfig.from_json(saved_config(self.path)).to_json()
        settings = config.to_json()
        changed = [name for name in settings if saved.get(name) != settings[name] and name not in CHANGEABLE]
        if changed:
            differences = ", ".join(f"{name} was {saved.get(name)}, now {settings[name]}" for name in changed)
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


def saved_precision(path: Path) -> str:
    """Returns the precision that the run in a folder computes in; older runs name it in their settings alone."""
    record = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    return record.get("precision", record["config"].get("precision", "bfloat16"))


def _checksum(state: dict[str, np.ndarray]) -> str:
    """SHA-256 over the names and bytes of all arrays."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(state[name]).tobytes())
    return digest.hexdigest()


def describe_environment() -> dict[str, Any]:
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
