"""Scores a network, bicubic and Lanczos on a set of pictures, with the protocol of the literature."""

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
from keras_psr.errors import DataError
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
from keras_psr.tasks.super_resolution.texture import TEXTURE_TAP, PatchStatistics, describe_patches, texture_distance
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
    "texture_distance": "Fréchet distance of all patches of the results from all of the originals, nothing shaved; a "
    "patch is 8x8 responses of VGG16 relu3_3 (32x32 pixels), of which mean and standard deviation of each channel are "
    "divided by their standard deviation over the originals' patches; for sets of at least 2,000 patches",
    "lattice_ratio": "spectral power on the upsampling lattice over its surroundings; median over pictures",
}

DEGRADED_PROTOCOL = {
    "low_res": "by `degradation.named_degradation`, seeded with the original's pixels",
    "block_ratio": "power of absolute differences of luma at the blocks of JPEG over its surroundings; median",
    "color_block_ratio": "the same of Cb and Cr, with blocks of 16 pixels; median",
}
"""Entries of the protocol that differ or are added if low-resolution pictures are degraded."""

ORIGINALS = "originals"
"""Key of the originals, next to the methods' names, where textures are gathered."""

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
    """Scores a network, bicubic and Lanczos on pictures that the network has not seen.

    Args:
        model: The network, or a model as for `upscaler.load`.
        data: One or more sources of originals (`sources.open_sources`).
        degradation: How low-resolution pictures are made: `bicubic`, which is the protocol of the literature; or like
            pictures from phones and the web: `photo`, `jpeg:75`, `noise:10` or `blur:0.5`, with any number
            (`degradation.named_degradation`). Two more scores then measure the blocks of JPEG.
        vgg_weights: As for `vgg.build_vgg`.
        on_picture: Called before each picture with its name, the number of finished pictures, and the total.

    Returns:
        A dictionary for JSON: `task`; `scale`; `degradation`; `protocol`; `skipped`; `pictures`, a list of {`name`,
        `height`, `width`, `scores`}; `summary`; and `missing`. `scores` and `summary` map `bicubic`, `lanczos` and
        `model` to scores by metric. `texture_distance` is a score of the set, so it is only in `summary`; for a set
        with fewer than 2,000 patches of 32x32 pixels it is in `missing`, which maps such scores to the reason.

    Raises:
        ConfigError: No degradation has this name.
        DataError: No picture can be used.
        ModelError: The model cannot be loaded.

    Example:
        result = keras_psr.evaluate("x4", "Set14/")
        result["summary"]["model"]["psnr_y"]
    """
    degrade = named_degradation(degradation)
    upscaler = model if isinstance(model, Upscaler) else load(model)
    scale = upscaler.scale
    methods: dict[str, UpscaleFunction] = {**interpolations(scale), "model": upscaler}
    vgg = build_vgg(LPIPS_TAPS, weights=vgg_weights)
    textures = {name: PatchStatistics() for name in (ORIGINALS, *methods)}

    def score(picture: Picture) -> dict[str, Any]:
        original = crop_to_multiple(picture.read(), scale)
        low_res, expected, scores = degrade(original, scale), vgg_responses(original, vgg), {}
        patches = {ORIGINALS: find_patches(expected)}
        for name, upscale in methods.items():
            image = upscale(low_res)
            found = vgg_responses(image, vgg)
            scores[name] = score_picture(image, original, scale, vgg, expected, found)
            patches[name] = find_patches(found)
            del found  # half a kilobyte a pixel, which should not stay while VGG16 runs again
            if degradation != "bicubic":
                scores[name] |= score_blocks(image, scale)
        for name, described in patches.items():  # comes last, because a picture that cannot be scored has no part in it
            textures[name].add(described)
        return {"name": picture.name, "height": original.shape[0], "width": original.shape[1], "scores": scores}

    pictures = open_sources([data] if isinstance(data, str) else data)
    refusal = "None of the {number} pictures can be scored."
    rows, skipped = use_pictures(pictures, score, refusal=refusal, on_picture=on_picture)
    summary = summarize([row["scores"] for row in rows])
    missing = add_texture_distances(summary, textures)
    return {
        "task": SUPER_RESOLUTION,
        "scale": scale,
        "degradation": degradation,
        "protocol": PROTOCOL if degradation == "bicubic" else PROTOCOL | DEGRADED_PROTOCOL,
        "skipped": [{"name": name, "reason": reason} for name, reason in skipped],
        "pictures": rows,
        "summary": summary,
        "missing": missing,
    }


def interpolations(scale: int) -> dict[str, UpscaleFunction]:
    """Returns the baselines of every table by name: functions that enlarge by bicubic and by Lanczos."""

    def bicubic(image: np.ndarray) -> np.ndarray:
        return resize_bicubic(image, image.shape[0] * scale, image.shape[1] * scale)

    def lanczos(image: np.ndarray) -> np.ndarray:
        size = (image.shape[1] * scale, image.shape[0] * scale)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))

    return {"bicubic": bicubic, "lanczos": lanczos}


def vgg_responses(image: np.ndarray, vgg: keras.Model) -> Responses:
    """Returns VGG16's responses to a uint8 RGB picture (height, width, 3), by tap."""
    return vgg(image[None].astype(np.float32))


def score_picture(
    image: np.ndarray,
    original: np.ndarray,
    scale: int,
    vgg: keras.Model,
    expected: Responses | None = None,
    found: Responses | None = None,
) -> Scores:
    """Returns all scores of an enlarged picture.

    Args:
        image: The enlarged picture, uint8 RGB (height, width, 3).
        original: The original, with the same shape.
        scale: The upscaling factor, which is also the width of the shaved border and the period of the lattice.
        vgg: A model from `build_vgg` with `FEATURE_TAP`. With all of `LPIPS_TAPS`, the scores include `lpips_vgg`.
        expected: The responses to the original (`vgg_responses`), if they are known; otherwise they are computed.
        found: The same for the enlarged picture.

    Returns:
        Scores by metric (`PROTOCOL`).

    Raises:
        ConfigError: The picture is too small for the protocol.
    """
    scores = {
        "psnr_y": psnr_y(image, original, scale),
        "ssim_y": ssim_y(image, original, scale),
        "psnr_rgb": psnr_rgb(image, original, scale),
    }
    found = found or vgg_responses(image, vgg)
    expected = expected or vgg_responses(original, vgg)
    difference = ops.square(found[FEATURE_TAP] - expected[FEATURE_TAP])
    scores["feature_distance"] = float(ops.mean(difference))
    if set(found) >= set(LPIPS_TAPS):
        scores["lpips_vgg"] = sum(_unit_distance(found[tap], expected[tap]) for tap in LPIPS_TAPS)
    scores["lattice_ratio"] = lattice_ratio(image, scale)
    return scores


def score_blocks(image: np.ndarray, scale: int) -> Scores:
    """Returns how visible JPEG's blocks are in an enlarged uint8 RGB picture, by metric (`DEGRADED_PROTOCOL`)."""
    return {"block_ratio": block_ratio(image, scale), "color_block_ratio": color_block_ratio(image, scale)}


def summarize(pictures: Iterable[dict[str, Scores]]) -> dict[str, Scores]:
    """Returns the scores of a set: means over pictures, and for ratios of spectral power the median.

    Args:
        pictures: The scores of each picture by method; the methods include `bicubic`.

    Returns:
        Scores by method. They include `feature_distance_ratio`, the feature distance divided by bicubic's. Undefined
        ratios of spectral power are left out. A score that is undefined for all pictures is NaN.
    """
    rows = list(pictures)
    summary: dict[str, Scores] = {method: mean_scores([row[method] for row in rows]) for method in rows[0]}
    reference = summary["bicubic"]["feature_distance"] or float("nan")  # it is 0 if all pictures are flat
    for scores in summary.values():
        scores["feature_distance_ratio"] = scores["feature_distance"] / reference
    return summary


def find_patches(responses: Responses) -> np.ndarray:
    """Returns the numbers that describe each patch of a picture (`texture.describe_patches`).

    VGG16 has run for LPIPS already, over the whole picture and with max pooling, so this costs next to nothing.
    """
    return describe_patches(np.asarray(responses[TEXTURE_TAP][0]))


def add_texture_distances(summary: dict[str, Scores], textures: dict[str, PatchStatistics]) -> dict[str, str]:
    """Adds the `texture_distance` of each method to the scores of a set, if it is defined.

    Args:
        summary: Scores by method, to which the distance is added.
        textures: Statistics of all patches by method, and of `ORIGINALS`.

    Returns:
        The reason why the distance is missing, by its name; empty if it is not.
    """
    try:
        distances = {method: texture_distance(textures[method], textures[ORIGINALS]) for method in summary}
    except DataError as error:
        return {"texture_distance": str(error)}
    for method, distance in distances.items():
        summary[method]["texture_distance"] = distance
    return {}


def _unit_distance(first: keras.KerasTensor, second: keras.KerasTensor) -> float:
    """Returns the contribution of one layer to the unweighted LPIPS (Zhang et al. 2018, equation 1 with w = 1)."""
    units = [tensor / (ops.norm(tensor, axis=-1, keepdims=True) + 1e-10) for tensor in (first, second)]
    return float(ops.mean(ops.sum(ops.square(units[0] - units[1]), axis=-1)))
