"""Scores of a network on a set of pictures, beside bicubic and Lanczos, by the protocol of the literature."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from PIL import Image

from keras_psr.data.sources import open_sources, report_skipped
from keras_psr.errors import ConfigError, DataError, ImageFileError
from keras_psr.images.metrics import lattice_ratio, mean_scores, psnr_rgb, psnr_y, ssim_y
from keras_psr.images.pixels import crop_to_multiple, make_low_res, resize_bicubic
from keras_psr.inference.upscaler import Upscaler, load
from keras_psr.losses.vgg import build_vgg

FEATURE_TAP = "relu2_2"
LPIPS_TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")

PROTOCOL = {
    "low_res": "cropped to a multiple of the scale, MATLAB-compatible antialiased bicubic (a = -0.5), rounded",
    "psnr_y": "BT.601 studio-range luma, `scale` pixels shaved; mean over pictures",
    "ssim_y": "the same luma and border, 11x11 Gaussian window, sigma 1.5; mean over pictures",
    "psnr_rgb": "over all three channels, `scale` pixels shaved; mean over pictures",
    "feature_distance": "mean squared difference of VGG16 relu2_2; mean over pictures; ratio to the mean for bicubic",
    "lpips_vgg": "relu1_2, 2_2, 3_3, 4_3 of unit length along channels, squared difference, spatial mean, summed",
    "lattice_ratio": "spectral power on the upsampling lattice over its surroundings; median over pictures",
}

Scores = dict[str, float]
Responses = dict[str, keras.KerasTensor]
UpscaleFunction = Callable[[np.ndarray], np.ndarray]


def evaluate(
    model: Upscaler | str | Path,
    data: str | Sequence[str],
    *,
    vgg_weights: str = "bundled",
    on_picture: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Scores a network, bicubic and Lanczos on pictures that it has not seen.

    Args:
        model: The network, or what `upscaler.load` takes.
        data: One or more sources of originals (`sources.open_sources`).
        vgg_weights: As for `vgg.build_vgg`.
        on_picture: Called before each picture with its name, how many are done, and how many there are.

    Returns:
        JSON-ready: `scale`; `protocol`; `skipped`; `pictures`, a list of {`name`, `height`, `width`, `scores`}; and
        `summary`. `scores` and `summary` map `bicubic`, `lanczos` and `model` to numbers by metric.

    Raises:
        DataError: No picture can be used.
        ModelError: The model cannot be loaded.
    """
    upscaler = model if isinstance(model, Upscaler) else load(model)
    scale = upscaler.scale
    methods: dict[str, UpscaleFunction] = {**interpolations(scale), "model": upscaler}
    vgg = build_vgg(LPIPS_TAPS, weights=vgg_weights)
    pictures = open_sources([data] if isinstance(data, str) else data)
    rows: list[dict[str, Any]] = []
    skipped: list[tuple[str, str]] = []
    for done, picture in enumerate(pictures):
        on_picture(picture.name, done, len(pictures))
        try:
            original = crop_to_multiple(picture.read(), scale)
            low_res = make_low_res(original, scale)
            expected = vgg_responses(original, vgg)
            scores = {
                name: score_picture(upscale(low_res), original, scale, vgg, expected)
                for name, upscale in methods.items()
            }
        except (ImageFileError, ConfigError) as error:
            skipped.append((picture.name, str(error)))
            continue
        rows.append({"name": picture.name, "height": original.shape[0], "width": original.shape[1], "scores": scores})
    if not rows:
        raise DataError(f"None of the {len(pictures)} pictures can be scored; {skipped[0][0]}: {skipped[0][1]}")
    report_skipped(skipped)
    return {
        "scale": scale,
        "protocol": PROTOCOL,
        "skipped": [{"name": name, "reason": reason} for name, reason in skipped],
        "pictures": rows,
        "summary": summarize([row["scores"] for row in rows]),
    }


def interpolations(scale: int) -> dict[str, UpscaleFunction]:
    """Bicubic and Lanczos enlargement, the baselines of every table, by name."""

    def bicubic(image: np.ndarray) -> np.ndarray:
        return resize_bicubic(image, image.shape[0] * scale, image.shape[1] * scale)

    def lanczos(image: np.ndarray) -> np.ndarray:
        size = (image.shape[1] * scale, image.shape[0] * scale)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))

    return {"bicubic": bicubic, "lanczos": lanczos}


def vgg_responses(image: np.ndarray, vgg: keras.Model) -> Responses:
    """VGG16's responses to a uint8 RGB picture (height, width, 3), by tap."""
    return vgg(image[None].astype(np.float32))


def score_picture(
    image: np.ndarray, original: np.ndarray, scale: int, vgg: keras.Model, expected: Responses | None = None
) -> Scores:
    """All scores of one enlarged picture.

    Args:
        image: uint8 RGB (height, width, 3).
        original: The same shape.
        scale: The upscaling factor: border to shave, period of the lattice.
        vgg: `build_vgg` with `FEATURE_TAP`; with all of `LPIPS_TAPS` the scores include `lpips_vgg`.
        expected: `vgg_responses` of the original, where several pictures are scored against it; computed otherwise.

    Returns:
        Numbers by metric (`PROTOCOL`).

    Raises:
        ConfigError: The picture is too small for the protocol.
    """
    scores = {
        "psnr_y": psnr_y(image, original, scale),
        "ssim_y": ssim_y(image, original, scale),
        "psnr_rgb": psnr_rgb(image, original, scale),
    }
    responses = vgg_responses(image, vgg)
    expected = expected or vgg_responses(original, vgg)
    difference = ops.square(responses[FEATURE_TAP] - expected[FEATURE_TAP])
    scores["feature_distance"] = float(ops.mean(difference))
    if set(responses) >= set(LPIPS_TAPS):
        scores["lpips_vgg"] = sum(_unit_distance(responses[tap], expected[tap]) for tap in LPIPS_TAPS)
    scores["lattice_ratio"] = lattice_ratio(image, scale)
    return scores


def summarize(pictures: Iterable[dict[str, Scores]]) -> dict[str, Scores]:
    """Scores of a set: means, but the median of the lattice ratio, and the feature distance over bicubic's.

    Args:
        pictures: For each picture the scores by method; each has the method `bicubic`.

    Returns:
        Scores by method, with `feature_distance_ratio`. Lattice ratios that are not defined are left out; what is
        not defined for any picture is NaN.
    """
    rows = list(pictures)
    summary: dict[str, Scores] = {method: mean_scores([row[method] for row in rows]) for method in rows[0]}
    reference = summary["bicubic"]["feature_distance"] or float("nan")  # 0 where all pictures are flat
    for scores in summary.values():
        scores["feature_distance_ratio"] = scores["feature_distance"] / reference
    return summary


def _unit_distance(first: keras.KerasTensor, second: keras.KerasTensor) -> float:
    """One layer of the unweighted LPIPS (Zhang et al. 2018, equation 1 with w = 1)."""
    units = [tensor / (ops.norm(tensor, axis=-1, keepdims=True) + 1e-10) for tensor in (first, second)]
    return float(ops.mean(ops.sum(ops.square(units[0] - units[1]), axis=-1)))
