"""Scores of a network on a set of pictures, beside bicubic and Lanczos, by the protocol of the literature."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from PIL import Image

from keras_psr.constants import SUPER_RESOLUTION
from keras_psr.data.degradation import named_degradation
from keras_psr.data.sources import OnPicture, Picture, open_sources, use_pictures
from keras_psr.images.metrics import (
    block_ratio,
    color_block_ratio,
    lattice_ratio,
    mean_scores,
    psnr_rgb,
    psnr_y,
    ssim_y,
)
from keras_psr.images.pixels import crop_to_multiple, resize_bicubic
from keras_psr.inference.upscaler import Upscaler, load
from keras_psr.losses.vgg import build_vgg
from keras_psr.tasks.task import Scores

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

DEGRADED_PROTOCOL = {
    "low_res": "by `degradation.named_degradation`, seeded with the original's pixels",
    "block_ratio": "power of absolute differences of luma at the blocks of JPEG over its surroundings; median",
    "color_block_ratio": "the same of Cb and Cr, with blocks of 16 pixels; median",
}
"""What differs where low-resolution pictures are degraded, and what is measured besides."""

Responses = dict[str, keras.KerasTensor]
UpscaleFunction = Callable[[np.ndarray], np.ndarray]


def evaluate(
    model: Upscaler | str | Path,
    data: str | Sequence[str],
    *,
    degradation: str = "bicubic",
    vgg_weights: str = "bundled",
    on_picture: OnPicture = lambda name, done, total: None,
) -> dict[str, Any]:
    """Scores a network, bicubic and Lanczos on pictures that it has not seen.

    Args:
        model: The network, or what `upscaler.load` takes.
        data: One or more sources of originals (`sources.open_sources`).
        degradation: How low-resolution pictures are made: `bicubic`, the protocol of the literature; or as pictures
            from phones and the web are, `photo`, `jpeg:75`, `noise:10` or `blur:0.5`, with any number
            (`degradation.named_degradation`). Then two more scores tell of the blocks of JPEG.
        vgg_weights: As for `vgg.build_vgg`.
        on_picture: Called before each picture with its name, how many are done, and how many there are.

    Returns:
        JSON-ready: `task`; `scale`; `degradation`; `protocol`; `skipped`; `pictures`, a list of {`name`, `height`,
        `width`, `scores`}; and `summary`. `scores` and `summary` map `bicubic`, `lanczos` and `model` to numbers by
        metric.

    Raises:
        ConfigError: No degradation has this name.
        DataError: No picture can be used.
        ModelError: The model cannot be loaded.
    """
    degrade = named_degradation(degradation)
    upscaler = model if isinstance(model, Upscaler) else load(model)
    scale = upscaler.scale
    methods: dict[str, UpscaleFunction] = {**interpolations(scale), "model": upscaler}
    vgg = build_vgg(LPIPS_TAPS, weights=vgg_weights)

    def score(picture: Picture) -> dict[str, Any]:
        original = crop_to_multiple(picture.read(), scale)
        low_res, expected, scores = degrade(original, scale), vgg_responses(original, vgg), {}
        for name, upscale in methods.items():
            image = upscale(low_res)
            scores[name] = score_picture(image, original, scale, vgg, expected)
            if degradation != "bicubic":
                scores[name] |= score_blocks(image, scale)
        return {"name": picture.name, "height": original.shape[0], "width": original.shape[1], "scores": scores}

    pictures = open_sources([data] if isinstance(data, str) else data)
    refusal = "None of the {number} pictures can be scored."
    rows, skipped = use_pictures(pictures, score, refusal=refusal, on_picture=on_picture)
    return {
        "task": SUPER_RESOLUTION,
        "scale": scale,
        "degradation": degradation,
        "protocol": PROTOCOL if degradation == "bicubic" else PROTOCOL | DEGRADED_PROTOCOL,
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


def score_blocks(image: np.ndarray, scale: int) -> Scores:
    """How strongly the blocks of JPEG show in an enlarged picture, uint8 RGB, by metric (`DEGRADED_PROTOCOL`)."""
    return {"block_ratio": block_ratio(image, scale), "color_block_ratio": color_block_ratio(image, scale)}


def summarize(pictures: Iterable[dict[str, Scores]]) -> dict[str, Scores]:
    """Scores of a set: means, but medians of ratios of powers, and the feature distance over bicubic's.

    Args:
        pictures: For each picture the scores by method; each has the method `bicubic`.

    Returns:
        Scores by method, with `feature_distance_ratio`. Ratios of powers that are not defined are left out; what is
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
