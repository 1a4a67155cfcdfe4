"""Makes `saved_models/NAME` from a run folder: the network, its .tflite files, and a card that describes and scores it.

python tools/ship_model.py runs/x4 x4 --benchmark Set5/ --benchmark Set14/ --verify Set14/ --training-data "..."
python tools/ship_model.py runs/starry-night starry-night --benchmark content/ --verify content/ --painting "..." \
    --training-data "..."

Run it in the folder in which a style was fitted, because the painting is read again. Nothing else should run at the
same time, because latencies are measured.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import click
import keras
import numpy as np

from keras_psr.constants import STYLE_TRANSFER, SUPER_RESOLUTION
from keras_psr.data.degradation import named_degradation
from keras_psr.data.sources import open_source
from keras_psr.export.tflite import REPORT_FILE, export_tflite
from keras_psr.images.pixels import crop_to_multiple
from keras_psr.inference.registry import CARD_FILE, MODEL_FILE, file_sha256, shipped_folder, shipped_models
from keras_psr.inference.upscaler import Upscaler, load, load_keras
from keras_psr.losses.vgg import build_vgg
from keras_psr.tasks.config import FitConfig, StyleConfig, name_task
from keras_psr.tasks.report import REPORTS
from keras_psr.tasks.style_transfer.evaluation import evaluate_style
from keras_psr.tasks.style_transfer.task import build_objective, read_painting
from keras_psr.tasks.super_resolution.evaluation import (
    DEGRADED_PROTOCOL,
    FEATURE_TAP,
    PROTOCOL,
    evaluate,
    interpolations,
    score_blocks,
    score_picture,
    summarize,
    vgg_responses,
)
from keras_psr.tasks.task import Scores
from keras_psr.training.run_folder import describe_environment

AUTHOR = "The keras-psr authors"
LICENCE = "Apache-2.0"
VARIANTS = ("float32", "float16", "int8")
LIMITS = {
    "bicubic": "Fitted to clean photographs shrunk by antialiased bicubic: JPEG artefacts, sensor noise and blur are "
    "enlarged with the picture.",
    "photo": "Fitted to photographs with moderate blur, sensor noise and JPEG artefacts. In clean and sharp pictures, "
    "it smooths away fine texture that a model fitted to clean pictures keeps.",
}
"""Limits by the `--degradation` of the fit."""

PHOTO_DEGRADATIONS = ("photo", "jpeg:60", "jpeg:75", "jpeg:90", "noise:10", "blur:0.5")
"""Degradations on which a model fitted with `--degradation photo` is compared with the one for clean pictures."""

ADVERSARIAL_LIMITS = (
    "Its adversarial loss invents fine textures, such as fur, grass and cloth: they look like real ones, but are not "
    "those of the scene."
)
"""Further limits of models that were fitted with `--adversarial-weight`."""

LIMITS_OF_ALL = "Not made for faces, text or drawings. Fine detail is invented, so it is no evidence of anything."

STYLE_LIMITS = (
    "Paints with the strokes and colours of one painting, at the size at which it was fitted, whatever a picture shows."
)

STYLE_PROTOCOL = {
    "objective": "weighted sum of content, style and total variation, on squares of 256 pixels; mean over photographs",
    "photograph": "the objective of the photograph itself",
    "chroma_ratio": "power of Cb and Cr above a quarter cycle per pixel, on the same squares, divided by the "
    "painting's, at the size at which the network was fitted to it",
    "lattice_ratio": "spectral power on the grid of 4 pixels over its surroundings, on the same squares; median",
    "flicker": "difference between frames of the same squares as a film with sensor noise, over the input's; mean",
    "flicker_moving": "the same, the film moving by a pixel a frame down and to the right",
}

SIGNIFICANT_BITS = 16
"""Number of significant bits of shipped weights; float32 has 24. Pictures change by less than .01 grey levels."""


def describe_fit(run: Path) -> dict[str, Any]:
    """Returns how a run was made, from its `config.json` and `log.jsonl`."""
    record = json.loads((run / "config.json").read_text(encoding="utf-8"))
    shown = REPORTS[name_task(record["config"])].validation
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    config = FitConfig.from_json(record["config"])
    seconds, step = 0.0, 0
    for line in lines:
        if "crops_per_second" in line:
            crops = (line["step"] - step) * config.stage_at(step).config.batch_size
            seconds, step = seconds + crops / line["crops_per_second"], line["step"]
    return {
        "command": " ".join([Path(record["command"][0]).name, *record["command"][1:]]),
        "steps": lines[-1]["step"],
        "seed": record["config"]["seed"],
        "wall_time_hours": round(seconds / 3600, 2),
        **{name: record[name] for name in ("config", "versions", "machine", "git")},
        **{name: record[name] for name in ("removed_blocks", "share") if name in record},
        "validations": [
            round_numbers({name.removeprefix("val_"): line.get(name) for name in ("step", *shown)})
            for line in lines
            if any(name in line for name in shown)
        ],
        "started_from": describe_start(record["config"]),
    }


def describe_start(config: dict[str, Any]) -> dict[str, Any] | None:
    """Returns how the initial model of a run was made; None if the run started from random weights."""
    init = config.get("init")
    if not init:
        return None
    path = Path(init)
    if path.exists():
        return describe_fit(path if path.is_dir() else path.parent)
    fit = shipped_models()[init]["fit"]
    # A run that started from a shipped model, and replaced it, may be shipped again.
    is_itself = FitConfig.from_json(fit["config"]) == FitConfig.from_json(config)
    return fit.get("started_from") if is_itself else fit


def round_numbers(value: Any) -> Any:
    """Rounds numbers to four decimals, for a card that people read."""
    if isinstance(value, dict):
        return {name: round_numbers(item) for name, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def report_progress(name: str, done: int, total: int) -> None:
    """Writes a line for each picture."""
    click.echo(f"{done + 1}/{total} {name}")


def describe_limits(settings: Mapping[str, Any]) -> str:
    """Returns what a super-resolution model with these settings cannot do."""
    invents = [ADVERSARIAL_LIMITS] if settings["adversarial_weight"] else []
    return " ".join([LIMITS[settings["degradation"]], *invents, LIMITS_OF_ALL])


def measure_super_resolution(upscaler: Upscaler, config: FitConfig, benchmarks: Sequence[str]) -> dict[str, Any]:
    """Returns the entries of a super-resolution card: scores of the model, bicubic and Lanczos by data set."""
    scores = {
        Path(source).name: round_numbers(evaluate(upscaler, source, on_picture=report_progress)["summary"])
        for source in benchmarks
    }
    settings = config.to_json()
    facts = {"limits": describe_limits(settings), "protocol": PROTOCOL, "scores": scores}
    if settings["degradation"] == "photo":
        degraded = {Path(source).name: measure_degraded(upscaler, source) for source in benchmarks}
        facts |= {"degraded_protocol": DEGRADED_PROTOCOL, "degraded_scores": degraded}
    return facts


def measure_degraded(upscaler: Upscaler, source: str) -> dict[str, Any]:
    """Returns scores by degradation for bicubic, the model, and the shipped model for clean pictures of its scale."""
    scale, clean = upscaler.scale, f"x{upscaler.scale}"
    methods = {"bicubic": interpolations(scale)["bicubic"], "model": upscaler, clean: load(clean)}
    vgg, pictures = build_vgg((FEATURE_TAP,)), open_source(source)
    rows: dict[str, list[dict[str, Scores]]] = {name: [] for name in PHOTO_DEGRADATIONS}
    for done, picture in enumerate(pictures):
        report_progress(f"{picture.name}, degraded", done, len(pictures))
        original = crop_to_multiple(picture.read(), scale)
        expected = vgg_responses(original, vgg)
        for name in PHOTO_DEGRADATIONS:
            low_res = named_degradation(name)(original, scale)
            images = {method: upscale(low_res) for method, upscale in methods.items()}
            rows[name].append(
                {
                    method: score_picture(image, original, scale, vgg, expected) | score_blocks(image, scale)
                    for method, image in images.items()
                }
            )
    return {name: round_numbers(summarize(scores)) for name, scores in rows.items()}


def measure_style(upscaler: Upscaler, config: FitConfig, benchmarks: Sequence[str]) -> dict[str, Any]:
    """Returns the entries of a style card: the loss of painted photographs, and of the photographs themselves."""
    settings = StyleConfig.from_json(config.to_json())
    painting = read_painting(settings)
    objective = build_objective(settings, painting)
    measured = evaluate_style(upscaler, objective, benchmarks, painting=painting, on_step=report_progress)["summary"]
    scores = {
        "objective": measured["model"]["loss"],
        "photograph": measured["photograph"]["loss"],
        "chroma_ratio": measured["model"]["chroma_noise"] / measured["painting"]["chroma_noise"],
        **{name: measured["model"][name] for name in ("lattice_ratio", "flicker", "flicker_moving")},
    }
    return {"limits": STYLE_LIMITS, "protocol": STYLE_PROTOCOL, "scores": round_numbers(scores)}


MEASURED: dict[str, Callable[[Upscaler, FitConfig, Sequence[str]], dict[str, Any]]] = {
    SUPER_RESOLUTION: measure_super_resolution,
    STYLE_TRANSFER: measure_style,
}
"""Functions that measure a model, by task."""


def load_rounded(path: Path) -> Upscaler:
    """Loads a network and rounds its weights to `SIGNIFICANT_BITS`, which compress by a quarter instead of a tenth."""
    upscaler = load_keras(path)
    rounded = []
    for weight in upscaler.network.get_weights():
        fraction, exponent = np.frexp(weight)
        rounded.append(np.ldexp(np.round(fraction * 2**SIGNIFICANT_BITS) / 2**SIGNIFICANT_BITS, exponent))
    upscaler.network.set_weights(rounded)
    return upscaler


def save_compressed(network: keras.Model, target: Path) -> None:
    """Saves a .keras file that loads in plain Keras, and compresses it, which Keras does not do.

    Constraints, which only fits need, are removed from the layers. Networks of older fits have them there.
    """
    for layer in network.layers:
        if getattr(layer, "kernel_constraint", None):
            layer.kernel_constraint = None
    with TemporaryDirectory() as temporary:
        plain = Path(temporary) / MODEL_FILE
        network.save(plain)
        with ZipFile(plain) as model, ZipFile(target, "w", ZIP_DEFLATED) as copy:
            for name in model.namelist():
                copy.writestr(name, model.read(name))


def export_files(
    upscaler: Upscaler, name: str, variants: Sequence[str], folder: Path, model_sha256: str, verify: Sequence[str]
) -> dict[str, Any]:
    """Exports variants of a shipped model to a folder, and returns the report of the export.

    Raises:
        ClickException: A file lost too much.
    """
    report = export_tflite(
        upscaler.network,
        variants,
        folder,
        name=name,
        model_sha256=model_sha256,
        task=upscaler.task,
        author=AUTHOR,
        licence=LICENCE,
        verification=verify,
        on_step=lambda step, done, total: None if done else click.echo(step),
    )
    rejected = [row["file"] for row in report["files"].values() if not row["accepted"]]
    if rejected:
        raise click.ClickException(f"{', '.join(rejected)} lost too much. {name} is not shipped.")
    return report


def export_shipped(upscaler: Upscaler, name: str, verify: tuple[str, ...]) -> dict[str, Any]:
    """Saves a network into its shipped folder, exports it there, and returns the report of the export.

    Raises:
        ClickException: A file lost too much; the shipped folder is unchanged.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        save_compressed(upscaler.network, folder / MODEL_FILE)
        report = export_files(upscaler, name, VARIANTS, folder, file_sha256(folder / MODEL_FILE), verify)
        (folder / REPORT_FILE).unlink()
        shutil.copytree(folder, shipped_folder() / name, dirs_exist_ok=True)
    return report | {"verification": [Path(source).name for source in verify]}


def write_card(name: str, upscaler: Upscaler, report: dict[str, Any], facts: dict[str, Any]) -> None:
    """Writes the card: the entries of all models, and those that depend on the task."""
    folder = shipped_folder() / name
    shipped = [folder / MODEL_FILE, *(folder / measured["file"] for measured in report["files"].values())]
    export_facts = {key: report[key] for key in ("tile", "halo", "grid", "verification", "files")}
    card = {
        "name": name,
        "task": upscaler.task,
        "scale": upscaler.scale,
        "parameters": int(upscaler.network.count_params()),  # with the moving averages of batch norm
        "trainable_parameters": sum(int(np.prod(weight.shape)) for weight in upscaler.network.trainable_weights),
        "author": AUTHOR,
        "licence": LICENCE,
        **facts,
        "tflite": round_numbers(export_facts) | {"machine": describe_environment()["machine"]},
        "bytes": {file.name: file.stat().st_size for file in shipped},
        "sha256": {file.name: file_sha256(file) for file in shipped},
    }
    (folder / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(card["scores"], indent=2))


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("name")
@click.option("--benchmark", "benchmarks", multiple=True, required=True, help="Folder of pictures to score on.")
@click.option("--verify", multiple=True, required=True, help="Folder of pictures to compare the .tflite files on.")
@click.option("--training-data", required=True, help="Name and licence of the training pictures.")
@click.option("--painting", help="For styles: painter, title, year and licence of the painting.")
def main(
    run: Path,
    name: str,
    benchmarks: tuple[str, ...],
    verify: tuple[str, ...],
    training_data: str,
    painting: str | None,
) -> None:
    """Ships the network of RUN as NAME."""
    upscaler = load_rounded(run)
    if (painting is None) == (upscaler.task == STYLE_TRANSFER):
        raise click.UsageError("--painting is for styles, which need it.")
    fit = describe_fit(run)  # comes first, because the run may have started from the model that it replaces
    config = FitConfig.from_json(fit["config"])
    report = export_shipped(upscaler, name, verify)
    measured = MEASURED[upscaler.task](upscaler, config, benchmarks)
    facts = {
        **({"painting": painting} if painting else {}),
        "architecture": config.architecture,
        "training_data": training_data,
        "limits": measured.pop("limits"),
        "fit": fit,
        **measured,
    }
    write_card(name, upscaler, report, facts)


if __name__ == "__main__":
    main()
