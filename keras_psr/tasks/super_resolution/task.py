"""What a fit of super-resolution consists of: network, loss, sample stream and validation."""

import keras
import numpy as np

from keras_psr.data.samples import SampleStream
from keras_psr.data.sources import open_sources, report_skipped
from keras_psr.errors import ConfigError, DataError, ImageFileError
from keras_psr.images.pixels import crop_center, crop_to_multiple, make_low_res
from keras_psr.images.sheets import comparison_sheet
from keras_psr.inference.upscaler import Upscaler
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.losses.terms import feature_loss, phase_loss, pixel_loss, style_loss, total_variation_loss
from keras_psr.losses.vgg import build_vgg, pooling_stride
from keras_psr.networks import super_resolution
from keras_psr.tasks.config import SuperResolutionConfig
from keras_psr.tasks.super_resolution.evaluation import FEATURE_TAP, Scores, interpolations, score_picture, summarize

SHEET_PICTURES = 3
SHEET_SIZE = 288
"""Pictures on a preview sheet, and the side of the part shown, in pixels."""


def build_network(config: SuperResolutionConfig, dtype: str) -> keras.Model:
    """The untrained network.

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
    """The weighted loss terms of a fit.

    Raises:
        ConfigError: A VGG16 layer is unknown.
        ModelError: VGG16's weights are missing or damaged.
    """
    return PerceptualLoss(
        [
            pixel_loss(config.pixel_weight, config.pixel_norm),
            feature_loss(config.feature_weight, config.feature_layer),
            style_loss(config.style_weight, config.style_layers),
            phase_loss(config.phase_weight, period=config.scale),
            total_variation_loss(config.total_variation_weight),
        ],
        vgg_weights=config.vgg_weights,
        vgg_pooling=config.vgg_pooling,
        vgg_dtype=config.precision,
        shift_period=pooling_stride(config.feature_layer) if config.shift_pooling else 1,
    )


def build_stream(config: SuperResolutionConfig) -> SampleStream:
    """The crops to fit to, as large as the largest of any stage.

    Raises:
        DataError: There is nothing usable to fit to.
    """
    return SampleStream(
        open_sources(config.data),
        scale=config.scale,
        crop=max(stage.config.crop for stage in config.stages()),
        seed=config.seed,
        blur_sigma=config.blur_sigma,
        degradation=config.degradation,
    )


class Validation:
    """Scores the network on whole held-out pictures, next to bicubic."""

    def __init__(self, config: SuperResolutionConfig) -> None:
        """Decodes the pictures and scores bicubic once; those that cannot be scored are left out and named.

        Raises:
            DataError: None can be scored.
        """
        self.scale = scale = config.scale
        self.vgg = build_vgg((FEATURE_TAP,), weights=config.vgg_weights)
        pictures = open_sources(config.val)
        self.low_res: list[np.ndarray] = []
        self.baselines: list[dict[str, np.ndarray]] = []
        self.bicubic_scores: list[Scores] = []
        skipped = []
        for picture in pictures:
            try:
                original = crop_to_multiple(picture.read(), scale)
                low_res = make_low_res(original, scale)
                bicubic = interpolations(scale)["bicubic"](low_res)
                self.bicubic_scores.append(score_picture(bicubic, original, scale, self.vgg))
            except (ImageFileError, ConfigError) as error:
                skipped.append((picture.name, str(error)))
                continue
            self.low_res.append(low_res)
            self.baselines.append({"bicubic": bicubic, "original": original})
        if not self.low_res:
            reason = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
            raise DataError(f"None of {len(pictures)} validation pictures can be scored{reason}. Give another --val.")
        report_skipped(skipped)

    def __call__(self, network: keras.Model) -> tuple[dict[str, float], np.ndarray]:
        """Scores a network.

        Returns:
            Numbers by name, each beginning with `val_`; and a sheet of the first pictures, uint8 RGB.
        """
        upscale, rows, sheet = Upscaler(network), [], []
        for low_res, baselines, bicubic_scores in zip(self.low_res, self.baselines, self.bicubic_scores, strict=True):
            output = upscale(low_res)
            scores = score_picture(output, baselines["original"], self.scale, self.vgg)
            rows.append({"bicubic": bicubic_scores, "model": scores})
            shown = {"bicubic": baselines["bicubic"], "ours": output, "original": baselines["original"]}
            sheet.append({name: crop_center(image, SHEET_SIZE) for name, image in shown.items()})
        summary = summarize(rows)
        numbers = {f"val_{name}": value for name, value in summary["model"].items()}
        numbers["val_psnr_y_over_bicubic"] = summary["model"]["psnr_y"] - summary["bicubic"]["psnr_y"]
        return numbers, comparison_sheet(sheet[:SHEET_PICTURES])
