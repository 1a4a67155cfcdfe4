"""Fits a shipped model once more, by the settings in its card; what it started from is fitted first.

python tools/retrain_model.py x4 --data photos/ --val Set5/

Options go to each `keras-psr fit` and win over the card's. The run folders are runs/NAME, and runs/NAME-1, runs/NAME-2
for the fits before the last.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from keras_psr.constants import STYLE_TRANSFER
from keras_psr.inference.registry import shipped_models
from keras_psr.tasks.config import name_task


def list_fits(fit: dict[str, Any]) -> list[dict[str, Any]]:
    """The fits that led to a model, the first one first."""
    before = fit.get("started_from")
    return [*(list_fits(before) if before else []), fit]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", type=click.Choice(list(shipped_models())))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(name: str, options: tuple[str, ...]) -> None:
    """Fits the shipped model NAME once more."""
    fits = list_fits(shipped_models()[name]["fit"])
    folders = [*(Path(f"runs/{name}-{number}") for number in range(1, len(fits))), Path(f"runs/{name}")]
    for number, (fit, folder) in enumerate(zip(fits, folders, strict=True)):
        # Settings that a card does not name are younger than its fit.
        before = {"optimizer": "adam", "phase_weight": 0.0}
        if name_task(fit["config"]) == STYLE_TRANSFER:
            before |= {"photograph_size": 0, "chroma_weight": 0.0}
        # A card may name bfloat16, which only some machines compute fast.
        config = before | fit["config"] | {"precision": "auto", "init": str(folders[number - 1]) if number else ""}
        with TemporaryDirectory() as temporary:
            file = Path(temporary) / "config.json"
            file.write_text(json.dumps(config), encoding="utf-8")
            command = [sys.executable, "-m", "keras_psr", "fit", "--config", str(file), "--out", str(folder), *options]
            status = subprocess.run(command, check=False).returncode
        if status:
            sys.exit(status)


if __name__ == "__main__":
    main()
