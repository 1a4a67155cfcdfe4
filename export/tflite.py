"""Exports a network as verified `.tflite` files with a report: converts, verifies, and writes the files that passed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_psr import __version__
from keras_psr.data.sources import open_sources
from keras_psr.errors import ConfigError, ModelError
from keras_psr.export import delegates
from keras_psr.export.calibration import CALIBRATION_MIDDLE, calibration_tiles
from keras_psr.export.conversion import CALIBRATED, convert
from keras_psr.export.verification import OnStep, verify
from keras_psr.images.atomic import write_whole
from keras_psr.inference.tflite_metadata import with_metadata
from keras_psr.inference.upscaler import guess_task
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.tasks.registry import TASKS

DEFAULT_MIDDLE = {1: 256, 2: 192, 4: 128, 8: 64}
"""Side of a tile without its halo, in input pixels, by scale; 1 is style transfer.

It is large compared with the halo, and small compared with a phone's memory. At x4, 96 would take a tenth longer for
large pictures; it would save 110 MB in the browser for float32 networks of the architecture `residual`, and hardly any
for `fast`.
"""

REPORT_FILE = "report.json"


def export_tflite(
    network: keras.Model,
    variants: Sequence[str],
    out: Path,
    *,
    name: str,
    model_sha256: str,
    task: str | None = None,
    author: str | None = None,
    licence: str | None = None,
    tile: int | None = None,
    dynamic_shape: bool = False,
    calibration: Sequence[str] = ("sample",),
    verification: Sequence[str] = ("sample:val",),
    max_drop: float = 0.1,
    check_gpu: bool = False,
    overwrite: bool = False,
    on_step: OnStep = lambda step, done, total: None,
) -> dict[str, Any]:
    """Writes NAME_VARIANT.tflite for each variant, and report.json. A file that lost too much becomes `.rejected`.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged or painted picture, RGB in [0, 255].
        variants: Variants to write, from `conversion.VARIANTS`.
        out: Folder to write to; created if missing.
        name: Prefix of the file names.
        model_sha256: Checksum of the `.keras` file, for the metadata.
        task: Name of the network's task; None for the one that its scale suggests.
        author: Author of the weights, for the metadata; None if unknown.
        licence: Licence of the weights, for the metadata; None if unknown.
        tile: Side of the input, in pixels; by default `DEFAULT_MIDDLE` of the scale plus the halo on both sides.
        dynamic_shape: Whether to leave the input's size open; `tile` then applies to verification only.
        calibration: Sources of pictures for calibration.
        verification: Sources of pictures for verification.
        max_drop: Largest accepted loss of PSNR on Y, in dB; for style transfer `MIN_PSNR` of its task applies.
        check_gpu: Whether to run each file on the GPU too, if there is one, and to find operators that GPUs refuse.
        overwrite: Whether to replace existing files.
        on_step: Called before each conversion, calibration tile, picture and timing.

    Returns:
        The report, as written: the metadata that all files share, and `files`, {variant: the results of `verify`, with
        `file` and `accepted`, and with the `gpu` results of `delegates.check_gpu` if requested}.

    Raises:
        ConfigError: A file exists, or an argument is not accepted.
        DataError: There are no pictures for calibration or verification.
        ModelError: The network cannot be converted, or a file cannot be written.

    Example:
        network = load_keras("runs/x4").network
        report = export_tflite(network, ["float32", "int8"], Path("phone"), name="x4", model_sha256=checksum)
    """
    targets = {variant: out / f"{name}_{variant}.tflite" for variant in variants}
    refuse_existing([*targets.values(), out / REPORT_FILE], overwrite=overwrite)
    geometry = measure_geometry(network)
    task = task or guess_task(geometry.scale)
    tile = DEFAULT_MIDDLE[geometry.scale] + 2 * geometry.halo if tile is None else tile
    middle = geometry.middle(tile)
    held_out = open_sources(verification)
    tiles: list[np.ndarray] = []
    if set(variants) & set(CALIBRATED):
        side = min(middle, CALIBRATION_MIDDLE) + 2 * geometry.halo
        tiles = calibration_tiles(open_sources(calibration), scale=geometry.scale, tile=side)
    models = _convert_all(network, variants, None if dynamic_shape else tile, tiles, on_step)
    rules = TASKS[task].build_verification(geometry.scale, max_drop)
    measured = verify(network, models, held_out, geometry, rules, tile=tile, on_step=on_step)
    facts = {
        "task": task,
        "name": name,
        "scale": geometry.scale,
        "tile": None if dynamic_shape else tile,
        "halo": geometry.halo,
        "grid": geometry.grid,
        "colour": "RGB",
        "value_range": [0, 255],
        "author": author,
        "licence": licence,
        "model_sha256": model_sha256,
        "keras_psr": __version__,
    }
    files: dict[str, dict[str, Any]] = {}
    for variant, content in models.items():
        accepted = rules.accepts(measured[variant])
        content = with_metadata(content, {**facts, "variant": variant, "measured": measured[variant]})
        target = _write_or_reject(targets[variant], content, accepted=accepted)
        files[variant] = measured[variant] | {"bytes": len(content), "file": target.name, "accepted": accepted}
        if check_gpu:
            on_step(f"checking {target.name} on the GPU", 0, 1)
            files[variant]["gpu"] = delegates.check_gpu(content, exact=variant != "float16")
    sources = {"calibration": list(calibration), "verification": list(verification)}
    report = {**facts, **sources, **rules.limit, "files": files}
    write_file(out / REPORT_FILE, (json.dumps(report, indent=2) + "\n").encode())
    return report


def _convert_all(
    network: keras.Model, variants: Sequence[str], tile: int | None, calibration: Sequence[np.ndarray], on_step: OnStep
) -> dict[str, bytes]:
    """Returns a flatbuffer for each variant."""
    models = {}
    for variant in variants:

        def on_tile(done: int, variant: str = variant) -> None:
            on_step(f"converting to {variant}", done, max(1, len(calibration)))

        on_tile(0)
        models[variant] = convert(network, variant, tile, calibration, on_tile)
    return models


def _write_or_reject(target: Path, content: bytes, *, accepted: bool) -> Path:
    """Writes a file, or a rejected one under another name in place of it, and returns its path.

    Raises:
        ModelError: The file cannot be written.
    """
    path = target if accepted else target.with_suffix(".tflite.rejected")
    write_file(path, content)
    if not accepted:
        target.unlink(missing_ok=True)
    return path


def refuse_existing(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raises ConfigError if a file exists that may not be overwritten."""
    existing = [str(path) for path in paths if path.exists()]
    if existing and not overwrite:
        raise ConfigError(f"--out: {', '.join(existing)} exists. Use --overwrite, or another folder.")


def write_file(path: Path, content: bytes) -> None:
    """Writes a file, which appears complete or not at all.

    Raises:
        ModelError: The file cannot be written.
    """
    try:
        with write_whole(path) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise ModelError(f"Cannot write {path}: {error.strerror or error}. Check the folder and its space.") from error
