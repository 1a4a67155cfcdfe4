"""The run folder: the files that a fit writes, and how its state is saved and loaded again."""

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
from dataclasses import dataclass
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
"""Name of the array in a checkpoint that contains the checksum of all others."""

CHANGEABLE = ("save_every", "keep", "strategy", "devices", "deterministic", "val")
"""Settings that a resumed run may change, because its weights depend on them only by rounding."""

log = logging.getLogger(__name__)


class RunFolder:
    """The paths inside a run folder, and functions that read and write its files.

    The files are `config.json`, `model.keras` (averaged weights), `checkpoints/step-*.npz` (everything needed to
    resume), `log.jsonl`, TensorBoard events in `tensorboard/`, and `samples/step-*.png`.

    Example:
        step, state = RunFolder(Path("runs/x4")).load_checkpoint()
    """

    def __init__(self, path: Path) -> None:
        """Stores the path of a run folder, which need not exist."""
        self.path = path
        self.config_file = path / CONFIG_FILE
        self.model_file = path / "model.keras"
        self.log_file = path / "log.jsonl"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder, and keeps every other fit out of it.

        The operating system holds the lock, and releases it if the process is killed.

        Raises:
            TrainingError: Another fit is writing into the folder.
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

    def check(self, *, overwrite: bool) -> None:
        """Checks that a new run in the folder would neither replace another one nor mix with other files.

        Args:
            overwrite: Whether a run in the folder may be replaced.

        Raises:
            TrainingError: The folder contains a run that may not be replaced, or other files.
        """
        if self.config_file.exists() and not overwrite:
            raise TrainingError(
                f"--out {self.path} already contains a run. Use --resume, --overwrite or another folder."
            )
        others = [path for path in self.path.glob("*") if path.name != LOCK_FILE]
        if others and not self.config_file.exists():
            raise TrainingError(f"--out {self.path} is not empty and contains no run. Use another folder.")

    def start(self, config: FitConfig, command: Sequence[str], precision: str) -> None:
        """Creates the folder or removes an earlier run from it, and writes `config.json`.

        Args:
            config: The resolved settings.
            command: The command to record.
            precision: The precision of the fit, which `auto` in the settings was resolved to.
        """
        for folder in (self.checkpoints, self.samples, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        self.log_file.unlink(missing_ok=True)
        self.model_file.unlink(missing_ok=True)
        record = {"config": config.to_json(), "precision": precision, "command": list(command)}
        self._write_config(record | describe_environment())

    def go_on(self, saved: "SavedRun", config: FitConfig, step: int) -> None:
        """Removes whatever was written after a step's checkpoint, and records changed settings.

        Unfinished files of a killed process are removed too. So the folder is the same as that of a run that was never
        interrupted. TensorBoard's files are written again, from the log.
        """
        self._write_config(saved.record | {"config": config.to_json()})
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
        """Returns the lines of `log.jsonl`, except incomplete ones, which a full disk may leave."""
        lines = []
        for text in self.log_file.read_text(encoding="utf-8").splitlines() if self.log_file.exists() else []:
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
        return lines

    def save_checkpoint(self, step: int, state: dict[str, np.ndarray], keep: int) -> None:
        """Saves a state, completely or not at all, and removes all but the newest `keep` checkpoints.

        Raises:
            OSError: The checkpoint cannot be written; older ones stay as they are.
        """
        with write_whole(self.checkpoints / f"step-{step:08d}.npz") as unfinished, unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **state, **{CHECKSUM: np.array(_checksum(state))})
            file.flush()
            os.fsync(file.fileno())
        for old in sorted(self.checkpoints.glob("step-*.npz"))[:-keep]:
            old.unlink()

    def load_checkpoint(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Loads the newest checkpoint. Damaged ones are skipped, with a warning.

        Returns:
            The step and the state; None if there is no checkpoint yet.

        Raises:
            TrainingError: All checkpoints are damaged.
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
                log.warning("%s is damaged (%s); using the one before it.", path, error)
        if paths:
            reason = f"each of {len(paths)} checkpoints in {self.checkpoints} is damaged"
            raise TrainingError(f"--resume: {reason}. Start again with --overwrite.")
        return None

    def save_network(self, network: keras.Model) -> None:
        """Writes `model.keras`, completely or not at all.

        Raises:
            OSError: The file cannot be written; an older one stays as it is.
        """
        with write_whole(self.model_file) as unfinished:
            network.save(unfinished)

    def _write_config(self, record: dict[str, Any]) -> None:
        with write_whole(self.config_file) as unfinished:
            unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class SavedRun:
    """The `config.json` of a run that is resumed.

    Attributes:
        path: The run folder.
        record: The content of the file.
    """

    path: Path
    record: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "SavedRun":
        """Reads the file in a run folder.

        Raises:
            ModelError: The folder contains no run.
        """
        file = path / CONFIG_FILE
        if not file.is_file():
            raise ModelError(
                f"{path} contains no run ({CONFIG_FILE} is missing). Give a run folder of `keras-psr fit`."
            )
        return cls(path, json.loads(file.read_text(encoding="utf-8")))

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the settings that the run began with, including later changes."""
        return self.record["config"]

    @property
    def precision(self) -> str:
        """Returns the precision of the run, which older runs name only in their settings."""
        return self.record.get("precision", self.settings.get("precision", "bfloat16"))

    def check(self, config: FitConfig) -> None:
        """Checks that no settings have changed except `CHANGEABLE` ones.

        Raises:
            ConfigError: Another setting has changed.
        """
        saved, settings = FitConfig.from_json(self.settings).to_json(), config.to_json()
        changed = [name for name in settings if saved.get(name) != settings[name] and name not in CHANGEABLE]
        if changed:
            differences = ", ".join(f"{name} was {saved.get(name)}, now {settings[name]}" for name in changed)
            raise ConfigError(f"--resume goes on with the run's own settings; leave out what differs: {differences}.")


def _checksum(state: dict[str, np.ndarray]) -> str:
    """Returns the SHA-256 checksum of the names and bytes of all arrays."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(state[name]).tobytes())
    return digest.hexdigest()


def describe_environment() -> dict[str, Any]:
    """Returns versions, machine and git state, for `config.json`.

    Example:
        processor = describe_environment()["machine"]["processor"]
    """
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
    """Returns the commit of the checkout, with `-dirty` if files have changed; None if this is not a checkout."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
