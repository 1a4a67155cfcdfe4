"""Fits a shipped model again with the settings in its card, after the model that it started from.

python tools/retrain_model.py x4 --data photos/ --val Set5/

Options are passed to each `keras-psr fit` and take precedence over the card. The run folder is runs/NAME; earlier fits
have runs/NAME-1, runs/NAME-2 and so on.
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
    """Returns the fits that led to a model, beginning with the first."""
    before = fit.get("started_from")
    return [*(list_fits(before) if before else []), fit]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", type=click.Choice(list(shipped_models())))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(name: str, options: tuple[str, ...]) -> None:
    """Fits the shipped model NAME again."""
    fits = list_fits(shipped_models()[name]["fit"])
    folders = [*(Path(f"runs/{name}-{number}") for number in range(1, len(fits))), Path(f"runs/{name}")]
    for number, (fit, folder) in enumerate(zip(fits, folders, strict=True)):
        # Settings that a card does not name are newer than its fit.
        before = {"optimizer": "adam", "phase_weight": 0.0}
        if name_task(fit["config"]) == STYLE_TRANSFER:
            before |= {"photograph_size": 0, "chroma_weight": 0.0, "stability_weight": 0.0}
        # A card may name bfloat16, which is fast only on some machines.
        config = before | fit["config"] | {"precision": "auto", "init": str(folders[number - 1]) if number else ""}
        config["num_residual_blocks"] += len(fit.get("removed_blocks", ()))  # which the fit began with
        with TemporaryDirectory() as temporary:
            file = Path(temporary) / "config.json"
            file.write_text(json.dumps(config), encoding="utf-8")
            command = [sys.executable, "-m", "keras_psr", "fit", "--config", str(file), "--out", str(folder), *options]
            status = subprocess.run(command, check=False).returncode
        if status:
            sys.exit(status)


if __name__ == "__main__":
    main()
