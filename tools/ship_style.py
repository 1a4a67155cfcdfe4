"""Makes `saved_models/NAME` from the run folder of a style, as `ship_model.py` does for super-resolution.

python tools/ship_style.py runs/starry-night starry-night --photographs content/ --verify content/ --painting "..." \
    --training-data "..."

Run it in the folder in which the style was fitted, for the painting is read again. Nothing else should run meanwhile,
for latencies are measured.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import click
from ship_model import LICENCE, VARIANTS, describe_fit, round_numbers

from keras_psr.export.tflite import REPORT_FILE, export_tflite
from keras_psr.inference import load_keras
from keras_psr.registry import CARD_FILE, MODEL_FILE, file_sha256, fit_settings, shipped_folder
from keras_psr.style_evaluation import evaluate_style
from keras_psr.training.config import FitConfig, StyleConfig
from keras_psr.training.run_folder import describe_environment
from keras_psr.training.style_transfer import build_loss

LIMITS = "Paints with the strokes and colours of one painting, at the size at which it was fitted to it, at any place."
PROTOCOL = {
    "objective": "weighted sum of the fit's loss terms in float32, on squares of 256 pixels; mean over photographs",
    "photograph": "the objective of the photograph itself",
}


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("name")
@click.option("--photographs", multiple=True, required=True, help="Folder of photographs to measure the objective on.")
@click.option("--verify", multiple=True, required=True, help="Folder of photographs to compare the .tflite files on.")
@click.option("--painting", required=True, help="Painter, title, year and terms of the painting.")
@click.option("--training-data", required=True, help="What the training pictures are, and their terms.")
def main(
    run: Path, name: str, photographs: tuple[str, ...], verify: tuple[str, ...], painting: str, training_data: str
) -> None:
    """Ships the style network of RUN as NAME."""
    stylizer, config = load_keras(run), FitConfig.from_json(fit_settings(run))
    assert isinstance(config, StyleConfig)
    loss = build_loss(replace(config, precision="float32"))
    folder = shipped_folder() / name
    folder.mkdir(exist_ok=True)
    model_file = Path(shutil.copy(run / MODEL_FILE, folder / MODEL_FILE))
    report = export_tflite(
        stylizer.network,
        VARIANTS,
        folder,
        name=name,
        model_sha256=file_sha256(model_file),
        licence=LICENCE,
        verification=verify,
        overwrite=True,
        on_step=click.echo,
    )
    (folder / REPORT_FILE).unlink()
    report["verification"] = [Path(source).name for source in verify]
    measured = evaluate_style(stylizer, loss, photographs)["summary"]
    shipped = [model_file, *(folder / row["file"] for row in report["files"].values())]
    card = {
        "name": name,
        "task": report["task"],
        "scale": stylizer.scale,
        "painting": painting,
        "architecture": config.architecture,
        "parameters": int(stylizer.network.count_params()),
        "licence": LICENCE,
        "training_data": training_data,
        "limits": LIMITS,
        "fit": describe_fit(run),
        "protocol": PROTOCOL,
        "scores": round_numbers({"objective": measured["model"]["loss"], "photograph": measured["photograph"]["loss"]}),
        "tflite": round_numbers({key: report[key] for key in ("tile", "halo", "grid", "verification", "files")})
        | {"machine": describe_environment()["machine"]},
        "bytes": {file.name: file.stat().st_size for file in shipped},
        "sha256": {file.name: file_sha256(file) for file in shipped},
    }
    (folder / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(card["scores"], indent=2))


if __name__ == "__main__":
    main()
