"""Makes `saved_models/NAME` from the run folder of a style, as `ship_model.py` does for super-resolution.

python tools/ship_style.py runs/starry-night starry-night --photographs content/ --verify content/ --painting "..." \
    --training-data "..."

Run it in the folder in which the style was fitted, for the painting is read again. Nothing else should run meanwhile,
for latencies are measured.
"""

from pathlib import Path

import click
from ship_model import describe_fit, export_shipped, load_rounded, round_numbers, write_card

from keras_psr.inference.registry import fit_settings
from keras_psr.tasks.config import FitConfig, StyleConfig
from keras_psr.tasks.style_transfer.evaluation import evaluate_style
from keras_psr.tasks.style_transfer.task import build_objective

LIMITS = "Paints with the strokes and colours of one painting, at the size at which it was fitted to it, at any place."
PROTOCOL = {
    "objective": "weighted sum of content, style and total variation, on squares of 256 pixels; mean over photographs",
    "photograph": "the objective of the photograph itself",
    "lattice_ratio": "spectral power on the grid of 4 pixels over its surroundings, on the same squares; median",
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
    stylizer, config = load_rounded(run), FitConfig.from_json(fit_settings(run))
    assert isinstance(config, StyleConfig)
    fit = describe_fit(run)  # first: it may have started from the style that it replaces
    report = export_shipped(stylizer, name, verify)
    measured = evaluate_style(stylizer, build_objective(config), photographs)["summary"]
    facts = {
        "painting": painting,
        "architecture": config.architecture,
        "training_data": training_data,
        "limits": LIMITS,
        "fit": fit,
        "protocol": PROTOCOL,
        "scores": round_numbers(
            {
                "objective": measured["model"]["loss"],
                "photograph": measured["photograph"]["loss"],
                "lattice_ratio": measured["model"]["lattice_ratio"],
            }
        ),
    }
    write_card(name, stylizer, report, facts)


if __name__ == "__main__":
    main()
