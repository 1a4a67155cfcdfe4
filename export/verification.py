"""Verifies that a `.tflite` file gives the same pictures as its network, on pictures not used for calibration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_psr.data.sources import Picture
from keras_psr.errors import DataError
from keras_psr.export.benchmark import measure_latency
from keras_psr.export.delegates import measure_xnnpack
from keras_psr.images.metrics import psnr_rgb, ssim_y
from keras_psr.images.pixels import crop_to_multiple, make_low_res, to_uint8
from keras_psr.images.tiling import Geometry, upscale_in_tiles
from keras_psr.inference.litert import TileInterpreter
from keras_psr.losses.vgg import build_vgg
from keras_psr.tasks.super_resolution.evaluation import FEATURE_TAP, score_picture

THREADS = (1, 2)


def verify(
    network: keras.Model,
    models: Mapping[str, bytes],
    pictures: Sequence[Picture],
    geometry: Geometry,
    *,
    tile: int,
    on_picture: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Compares super-resolution models in LiteRT with the Keras network, tile by tile, on reduced pictures.

    Args:
        network: The Keras network.
        models: TFLite flatbuffers by variant.
        pictures: Originals; each is reduced by the scale and enlarged again.
        geometry: The network's geometry.
        tile: Side of the tiles, in low-resolution pixels.
        on_picture: Called before each picture with its name, the number of finished pictures, and the total.

    Returns:
        Dictionaries for JSON, by variant: `psnr_y_drop` in dB and `ssim_y_drop`, the losses against the originals,
        averaged over pictures; `feature_distance_change`, relative; `max_difference` and `mean_difference` from the
        Keras network's clipped output, in grey levels; `bytes`; `latency_ms` by number of threads; `xnnpack_share` of
        the operators, `xnnpack_partitions`, and `operators_outside_xnnpack` with the reasons.

    Raises:
        DataError: There is no picture.
        ConfigError: A picture is too small to be scored, or the tile is not larger than its halo.
        ModelError: A model cannot be run.

    Example:
        models = {"float16": convert(network, "float16", tile=128)}
        drop = verify(network, models, open_sources(["sample:val"]), geometry, tile=128)["float16"]["psnr_y_drop"]
    """
    runners = _runners(network, models, pictures)
    scale, vgg = geometry.scale, build_vgg((FEATURE_TAP,))
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in runners}
    differences: dict[str, list[np.ndarray]] = {name: [] for name in runners}
    for done, picture in enumerate(pictures):
        on_picture(picture.name, done, len(pictures))
        original = crop_to_multiple(picture.read(), scale)
        low_res = make_low_res(original, scale)
        outputs = {name: upscale_in_tiles(run, low_res, geometry, tile=tile) for name, run in runners.items()}
        for name, output in outputs.items():
            scores[name].append(score_picture(to_uint8(output), original, scale, vgg))
            differences[name].append(_difference(output, outputs["keras"]))
    means = {name: {key: np.mean([row[key] for row in rows]) for key in rows[0]} for name, rows in scores.items()}
    report = _measure_files(models)
    return {
        name: _compare(means["keras"], means[name]) | _summarize(differences[name]) | report[name] for name in models
    }


def verify_style(
    network: keras.Model,
    models: Mapping[str, bytes],
    pictures: Sequence[Picture],
    geometry: Geometry,
    *,
    tile: int,
    on_picture: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Compares style transfer models in LiteRT with the Keras network, tile by tile, because there are no originals.

    Args:
        network: The Keras network.
        models: TFLite flatbuffers by variant.
        pictures: Photographs to paint.
        geometry: The network's geometry, with a scale of 1.
        tile: Side of the tiles, in pixels.
        on_picture: As for `verify`.

    Returns:
        The results of `verify`, except that `psnr` in dB over all channels and `ssim_y` replace the comparisons with
        originals. Both compare the rounded picture with the network's, averaged over pictures. Equal pictures count as
        100 dB.

    Raises:
        DataError: There is no picture.
        ConfigError: A picture is too small to be scored, or the tile is not larger than its halo.
        ModelError: A model cannot be run.
    """
    runners = _runners(network, models, pictures)
    scores: dict[str, list[list[float]]] = {name: [] for name in models}
    differences: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for done, picture in enumerate(pictures):
        on_picture(picture.name, done, len(pictures))
        photograph = picture.read()
        outputs = {name: upscale_in_tiles(run, photograph, geometry, tile=tile) for name, run in runners.items()}
        expected = to_uint8(outputs["keras"])
        for name in models:
            image = to_uint8(outputs[name])
            scores[name].append([min(psnr_rgb(image, expected, 0), 100.0), ssim_y(image, expected, 0)])
            differences[name].append(_difference(outputs[name], outputs["keras"]))
    report = _measure_files(models)
    return {
        name: dict(zip(("psnr", "ssim_y"), np.mean(scores[name], axis=0).tolist(), strict=True))
        | _summarize(differences[name])
        | report[name]
        for name in models
    }


def _runners(
    network: keras.Model, models: Mapping[str, bytes], pictures: Sequence[Picture]
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Returns the network, as `keras`, and the models as functions of tiles."""
    if not pictures:
        raise DataError("--verify: there is no picture. Give another source.")

    def upscale(image: np.ndarray) -> np.ndarray:
        return np.clip(np.asarray(network(image[None].astype(np.float32), training=False))[0], 0, 255)

    return {"keras": upscale, **{name: TileInterpreter(content, num_threads=2) for name, content in models.items()}}


def _measure_files(models: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Returns, by variant, the results that do not depend on pictures: size, latency and XNNPACK's share."""
    report: dict[str, dict[str, Any]] = {name: {"bytes": len(content)} for name, content in models.items()}
    for number in THREADS:
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


def _compare(keras_scores: dict[str, Any], scores: dict[str, Any]) -> dict[str, float]:
    return {
        "psnr_y_drop": float(keras_scores["psnr_y"] - scores["psnr_y"]),
        "ssim_y_drop": float(keras_scores["ssim_y"] - scores["ssim_y"]),
        "feature_distance_change": float(scores["feature_distance"] / keras_scores["feature_distance"] - 1),
    }


def _summarize(differences: list[np.ndarray]) -> dict[str, float]:
    largest, mean = np.array(differences).T
    return {"max_difference": float(largest.max()), "mean_difference": float(mean.mean())}
