"""Super-resolution as a task: the functions that `tasks.task.Task` lists."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_psr.data.samples import SampleStream
from keras_psr.data.sources import OnPicture, Picture, open_sources, use_pictures
from keras_psr.errors import ConfigError
from keras_psr.images.pixels import crop_center, crop_to_multiple, make_low_res
from keras_psr.images.sheets import comparison_sheet
from keras_psr.inference.upscaler import Upscaler
from keras_psr.losses.discriminators import JUDGED_LAYERS
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.losses.terms import (
    adversarial_loss,
    feature_loss,
    phase_loss,
    pixel_loss,
    style_loss,
    total_variation_loss,
)
from keras_psr.losses.vgg import build_vgg, pooling_stride
from keras_psr.networks import super_resolution
from keras_psr.tasks.config import SuperResolutionConfig
from keras_psr.tasks.super_resolution import evaluation
from keras_psr.tasks.super_resolution.evaluation import FEATURE_TAP, interpolations, score_picture, summarize
from keras_psr.tasks.task import Scores

SHEET_PICTURES = 3
SHEET_SIZE = 288
"""Number of pictures on a sheet, and the side of the part that is shown, in pixels."""


def build_network(config: SuperResolutionConfig, dtype: str) -> keras.Model:
    """Returns the network with random weights.

    Raises:
        ConfigError: The architecture is unknown.
    """
    return super_resolution.build_network(
        config.architecture,
        scale=config.scale,
        num_filters=config.num_filters,
        num_residual_blocks=config.num_residual_blocks,
        dtype=dtype,
    )


def build_loss(config: SuperResolutionConfig) -> PerceptualLoss:
    """Returns the weighted loss terms of a fit.

    Raises:
        ConfigError: A VGG16 layer is unknown.
        ModelError: VGG16's weights are missing or damaged.
    """
    shifted = [config.feature_layer, *(JUDGED_LAYERS if config.adversarial_weight else ())]
    return PerceptualLoss(
        [
            pixel_loss(config.pixel_weight, config.pixel_norm),
            feature_loss(config.feature_weight, config.feature_layer),
            style_loss(config.style_weight, config.style_layers),
            phase_loss(config.phase_weight, period=config.scale),
            total_variation_loss(config.total_variation_weight),
            adversarial_loss(config.adversarial_weight),
        ],
        vgg_weights=config.vgg_weights,
        vgg_pooling=config.vgg_pooling,
        vgg_dtype=config.precision,
        shift_period=max(map(pooling_stride, shifted)) if config.shift_pooling else 1,
    )


def build_stream(config: SuperResolutionConfig) -> SampleStream:
    """Returns the samples to fit to, with the largest crops of any stage.

    Raises:
        DataError: There are no usable pictures.
    """
    return SampleStream(
        open_sources(config.data),
        scale=config.scale,
        crop=max(stage.config.crop for stage in config.stages()),
        seed=config.seed,
        blur_sigma=config.blur_sigma,
        degradation=config.degradation,
    )


def build_validation(config: SuperResolutionConfig) -> "SuperResolutionValidation":
    """Returns an object that scores a network on whole held-out pictures.

    Raises:
        DataError: No picture can be scored.
    """
    return SuperResolutionValidation(config)


def build_verification(scale: int, max_drop: float) -> "SuperResolutionVerification":
    """Returns an object that compares a `.tflite` with its network, by how well both reproduce originals."""
    return SuperResolutionVerification(scale, max_drop)


def evaluate(
    upscaler: Upscaler,
    data: Sequence[str],
    *,
    settings: Mapping[str, Any],
    degradation: str | None,
    style: str | None,
    iterations: int | None,
    on_picture: OnPicture,
) -> dict[str, Any]:
    """Scores a network, bicubic and Lanczos, as `evaluation.evaluate` does.

    Raises:
        ConfigError: A style or iterations were given, or no degradation has this name.
        DataError: No picture can be used.
    """
    if style or iterations is not None:
        raise ConfigError(f"--style and --iterations are for style networks. This one enlarges {upscaler.scale} times.")
    return evaluation.evaluate(upscaler, data, degradation=degradation or "bicubic", on_picture=on_picture)


class SuperResolutionValidation:
    """Scores a network on whole held-out pictures, compared with bicubic."""

    best: str | None = "val_psnr_y"

    def __init__(self, config: SuperResolutionConfig) -> None:
        """Decodes the pictures and scores bicubic. Pictures that cannot be scored are left out, with a warning.

        Raises:
            DataError: No picture can be scored.
        """
        self.scale = config.scale
        self.vgg = build_vgg((FEATURE_TAP,), weights=config.vgg_weights)
        refusal = "None of {number} validation pictures can be scored. Give another --val."
        self.pictures, _ = use_pictures(open_sources(config.val), self._prepare, refusal=refusal)

    def _prepare(self, picture: Picture) -> tuple[np.ndarray, dict[str, np.ndarray], Scores]:
        """Returns the low-resolution picture, bicubic and the original by name, and the scores of bicubic."""
        original = crop_to_multiple(picture.read(), self.scale)
        low_res = make_low_res(original, self.scale)
        bicubic = interpolations(self.scale)["bicubic"](low_res)
        scores = score_picture(bicubic, original, self.scale, self.vgg)
        return low_res, {"bicubic": bicubic, "original": original}, scores

    def __call__(self, network: keras.Model) -> tuple[Scores, np.ndarray]:
        """Scores a network.

        Returns:
            Scores by name, each beginning with `val_`; and a sheet of the first pictures, uint8 RGB.
        """
        upscale, rows, sheet = Upscaler(network), [], []
        for low_res, baselines, bicubic_scores in self.pictures:
            output = upscale(low_res)
            scores = score_picture(output, baselines["original"], self.scale, self.vgg)
            rows.append({"bicubic": bicubic_scores, "model": scores})
            shown = {"bicubic": baselines["bicubic"], "ours": output, "original": baselines["original"]}
            sheet.append({name: crop_center(image, SHEET_SIZE) for name, image in shown.items()})
        summary = summarize(rows)
        numbers = {f"val_{name}": value for name, value in summary["model"].items()}
        numbers["val_psnr_y_over_bicubic"] = summary["model"]["psnr_y"] - summary["bicubic"]["psnr_y"]
        return numbers, comparison_sheet(sheet[:SHEET_PICTURES])


class SuperResolutionVerification:
    """Compares `.tflite` files with their network, by how well both reproduce originals from reduced ones.

    The report has `psnr_y_drop`, in dB, `ssim_y_drop`, and the relative `feature_distance_change`.
    """

    def __init__(self, scale: int, max_drop: float) -> None:
        """Stores the network's scale, and the largest accepted `psnr_y_drop`."""
        self.scale = scale
        self.limit = {"max_drop": max_drop}
        self.vgg = build_vgg((FEATURE_TAP,))

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the reduced picture, and the picture itself, cropped to a multiple of the scale."""
        original = crop_to_multiple(picture, self.scale)
        return make_low_res(original, self.scale), original

    def score(self, image: np.ndarray, expected: np.ndarray, original: np.ndarray) -> Scores:
        """Returns the scores of a result, given the original.

        Raises:
            ConfigError: The picture is too small.
        """
        return score_picture(image, original, self.scale, self.vgg)

    def compare(self, scores: Scores, expected: Scores) -> Scores:
        """Returns how much worse a file's results are than the network's, given the mean scores of both."""
        return {
            "psnr_y_drop": expected["psnr_y"] - scores["psnr_y"],
            "ssim_y_drop": expected["ssim_y"] - scores["ssim_y"],
            "feature_distance_change": scores["feature_distance"] / expected["feature_distance"] - 1,
        }

    def accepts(self, row: Mapping[str, Any]) -> bool:
        """Returns whether a file lost no more than the limit; False if the loss is undefined."""
        return row["psnr_y_drop"] <= self.limit["max_drop"]
