"""Verifies that a `.tflite` file gives the same pictures as its network, on pictures not used for calibration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_psr.data.sources import Picture, use_pictures
from keras_psr.export.benchmark import measure_latency
from keras_psr.export.delegates import measure_xnnpack
from keras_psr.images.pixels import to_uint8
from keras_psr.images.tiling import Geometry, upscale_in_tiles
from keras_psr.inference.litert import TileInterpreter
from keras_psr.tasks.task import Scores, Verification

THREADS = (1, 2)

OnStep = Callable[[str, int, int], None]
"""A function that is called with the name of a step, the number of its finished parts, and the number of all parts."""

NETWORK = "keras"
"""Name of the Keras network itself among the names of variants."""


def verify(
    network: keras.Model,
    models: Mapping[str, bytes],
    pictures: Sequence[Picture],
    geometry: Geometry,
    verification: Verification,
    *,
    tile: int,
    on_step: OnStep = lambda step, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Compares models in LiteRT with the Keras network, tile by tile.

    Args:
        network: The Keras network.
        models: TFLite flatbuffers by variant.
        pictures: Pictures that the models were not calibrated on; unusable ones are left out and named.
        geometry: The network's geometry.
        verification: What the network's task compares.
        tile: Side of the tiles, in input pixels.
        on_step: Called before each picture, and before each timing of the models.

    Returns:
        Dictionaries for JSON, by variant: what `verification.compare` returns; `max_difference` and `mean_difference`
        from the Keras network's clipped output, in grey levels; `bytes`; `latency_ms` by number of threads;
        `xnnpack_share` of the operators, `xnnpack_partitions`, and `operators_outside_xnnpack` with the reasons.

    Raises:
        DataError: No picture can be used.
        ModelError: A model cannot be run.
    """
    runners = _runners(network, models)

    def compare(picture: Picture) -> tuple[dict[str, Scores], dict[str, np.ndarray]]:
        given, original = verification.prepare(picture.read())
        outputs = {name: upscale_in_tiles(run, given, geometry, tile=tile) for name, run in runners.items()}
        images = {name: to_uint8(output) for name, output in outputs.items()}
        scores = {name: verification.score(image, images[NETWORK], original) for name, image in images.items()}
        return scores, {name: _difference(output, outputs[NETWORK]) for name, output in outputs.items()}

    refusal = "--verify: none of {number} pictures can be used. Give another source."
    rows, _ = use_pictures(
        pictures, compare, refusal=refusal, on_picture=lambda name, done, total: on_step("verifying", done, total)
    )
    means = {
        name: {metric: float(np.mean([scores[name][metric] for scores, _ in rows])) for metric in rows[0][0][name]}
        for name in runners
    }
    report = _measure_files(models, on_step)
    return {
        name: verification.compare(means[name], means[NETWORK])
        | _summarize([differences[name] for _, differences in rows])
        | report[name]
        for name in models
    }


def _runners(network: keras.Model, models: Mapping[str, bytes]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Returns the network, as `NETWORK`, and the models as functions of tiles."""

    def upscale(image: np.ndarray) -> np.ndarray:
        return np.clip(np.asarray(network(image[None].astype(np.float32), training=False))[0], 0, 255)

    return {NETWORK: upscale, **{name: TileInterpreter(content, num_threads=2) for name, content in models.items()}}


def _measure_files(models: Mapping[str, bytes], on_step: OnStep) -> dict[str, dict[str, Any]]:
    """Returns, by variant, the results that do not depend on pictures: size, latency and XNNPACK's share."""
    report: dict[str, dict[str, Any]] = {name: {"bytes": len(content)} for name, content in models.items()}
    for done, number in enumerate(THREADS):
        on_step("timing", done, len(THREADS))
        for name, seconds in measure_latency(models, number).items():
            report[name].setdefault("latency_ms", {})[str(number)] = float(np.median(seconds)) * 1e3
    for name, content in models.items():
        delegation = measure_xnnpack(content)
        report[name]["xnnpack_share"] = delegation.share
        report[name]["xnnpack_partitions"] = delegation.partitions
        report[name]["operators_outside_xnnpack"] = delegation.outside
    return report


def _difference(output: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Returns the largest and the mean absolute difference."""
    difference = np.abs(output.astype(np.float32) - expected)
    return np.array([difference.max(), difference.mean(dtype=np.float64)])


def _summarize(differences: list[np.ndarray]) -> dict[str, float]:
    largest, mean = np.array(differences).T
    return {"max_difference": float(largest.max()), "mean_difference": float(mean.mean())}
