"""Kills fits with SIGKILL at random moments, resumes them, and compares the results with an uninterrupted fit.

Every trial is a separate run that is killed once: `python benchmarks/kill_resume.py --trials 20`.
"""

import json
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from keras_psr.inference.registry import file_sha256
from keras_psr.training.run_folder import RunFolder

SETTINGS: dict[str, Any] = {
    "num_filters": 4,
    "num_residual_blocks": 1,
    "crop": 48,
    "batch_size": 2,
    "steps": 12,
    "save_every": 3,
    "feature_weight": 1e-3,
    "precision": "float32",
    "deterministic": True,
}


def fit(out: str, resume: bool) -> None:
    """Fits in a child process, without output."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    from keras_psr.training.fit import fit

    fit(out, resume=resume, **({} if resume else SETTINGS))


def run(out: Path, kill_after: float | None = None, resume: bool = False) -> float:
    """Runs a fit in a separate process, kills it after a number of seconds, and returns how long it ran."""
    process = multiprocessing.get_context("forkserver").Process(target=fit, args=(str(out), resume))
    start = time.perf_counter()
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
        process.join()
    elif process.exitcode:
        raise click.ClickException(f"the fit into {out} ended with {process.exitcode}")
    return time.perf_counter() - start


def describe(out: Path) -> dict[str, Any]:
    """Returns what two runs must have in common: names, networks, states, pictures and log, but no times."""
    folder = RunFolder(out)
    checkpoint = folder.load_checkpoint()
    assert checkpoint is not None
    files = [path for path in out.rglob("*") if path.is_file() and path.parent != folder.tensorboard]
    log = [{name: value for name, value in line.items() if name != "crops_per_second"} for line in folder.read_log()]
    return {
        "files": sorted(str(path.relative_to(out)) for path in files),
        "samples": [file_sha256(path) for path in sorted(folder.samples.iterdir())],
        "state": {name: array.tobytes() for name, array in checkpoint[1].items()},
        "weights": [np.asarray(weight).tobytes() for weight in _weights(folder.model_file)],
        "log": json.dumps(log),
        "events": len(list(folder.tensorboard.iterdir())),
    }


def _weights(path: Path) -> list[np.ndarray]:
    from keras_psr.inference.upscaler import load_network

    return load_network(path).get_weights()


@click.command(help=__doc__)
@click.option("--trials", default=20, show_default=True, help="Runs to kill.")
@click.option("--seed", default=0, show_default=True, help="Seed of the moments at which fits are killed.")
def main(trials: int, seed: int) -> None:
    """Runs the trials and prints what each came to."""
    multiprocessing.set_forkserver_preload(["keras_psr.training.fit"])
    moments = random.Random(seed)
    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        straight = Path(folder) / "straight"
        run(straight)
        seconds = run(Path(folder) / "again")  # the first one waits for imports
        expected = describe(straight)
        if describe(Path(folder) / "again") != expected:
            raise click.ClickException("two fits that were not killed differ")
        for trial in range(trials):
            out, moment = Path(folder) / f"trial{trial}", moments.uniform(0, seconds)
            run(out, kill_after=moment)
            checkpoints = len(list(out.glob("checkpoints/step-*.npz")))
            run(out, resume=(out / "config.json").exists())
            result = describe(out)
            same = [name for name in expected if result[name] == expected[name]]
            equal += len(same) == len(expected)
            differs = ", ".join(sorted(set(expected) - set(same))) or "nothing"
            click.echo(f"killed after {moment:.1f} of {seconds:.1f} s, {checkpoints} checkpoints: differs in {differs}")
    click.echo(f"{equal} of {trials} equal bit by bit")
    if equal != trials:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
