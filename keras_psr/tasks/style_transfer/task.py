"""Style transfer as a task: the functions that `tasks.task.Task` lists."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_psr.constants import MOST_MOTION, STYLE_GRID
from keras_psr.data.samples import SampleStream
from keras_psr.data.sources import OnPicture, Picture, open_sources, use_pictures
from keras_psr.errors import ConfigError
from keras_psr.images.decoding import read_rgb
from keras_psr.images.metrics import psnr_rgb, ssim_y
from keras_psr.images.pixels import resize_bicubic
from keras_psr.images.sheets import comparison_sheet
from keras_psr.inference.upscaler import Upscaler
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.losses.terms import (
    chroma_loss,
    feature_loss,
    painting_grams,
    phase_loss,
    stability_loss,
    style_loss,
    total_variation_loss,
)
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.tasks.config import StyleConfig
from keras_psr.tasks.style_transfer.evaluation import evaluate_style
from keras_psr.tasks.task import Scores

SMALLEST_PAINTING = 32
"""Least length of a painting's shorter side, in pixels: four responses of VGG16's relu4_3."""

VALIDATION_PICTURES = 3
VALIDATION_SIDE = 384
"""Number of photographs in a validation and on its sheet, and their longer side after they are reduced, in pixels."""

INPUT_MULTIPLE = 64
"""Training inputs are padded to a multiple of this, in pixels.

With 368 pixels, which are 92 after the strides, bfloat16 convolutions of TensorFlow 2.21 on a CPU with AMX gave NaN in
part of a kernel's gradient about once in 60 steps. With 256 and 384, they never did.
"""

MIN_PSNR = 30.0
"""Lowest accepted PSNR of a `.tflite` file's pictures, compared with the network's, in dB."""

NO_DIFFERENCE = 100.0
"""PSNR that stands for equal pictures in a mean, in dB."""

log = logging.getLogger(__name__)


def build_network(config: StyleConfig, dtype: str) -> keras.Model:
    """Returns the network with random weights.

    Raises:
        ConfigError: The architecture is unknown.
    """
    return build_style_network(
        config.architecture,
        num_filters=config.num_filters,
        num_residual_blocks=config.num_residual_blocks,
        dtype=dtype,
    )


def build_loss(config: StyleConfig, painting: np.ndarray | None = None) -> PerceptualLoss:
    """Returns the weighted loss terms of a fit, including the painting's Gram matrices.

    Args:
        config: The settings.
        painting: The painting from `read_painting`; None to read it here.

    Returns:
        The loss of a painted photograph, compared with the photograph.

    Raises:
        ConfigError: A VGG16 layer is unknown, or the painting is too small.
        ImageFileError: The painting cannot be read.
        ModelError: VGG16's weights are missing or damaged.
    """
    painting = read_painting(config) if painting is None else painting
    grams = painting_grams(painting, config.style_layers, weights=config.vgg_weights, pooling=config.vgg_pooling)
    return PerceptualLoss(
        [
            feature_loss(config.content_weight, config.content_layer, config.style_normalization),
            style_loss(config.style_weight, config.style_layers, config.style_normalization, grams),
            phase_loss(config.phase_weight, period=STYLE_GRID),
            total_variation_loss(config.total_variation_weight),
            chroma_loss(config.chroma_weight, painting),
            stability_loss(config.stability_weight),
        ],
        vgg_weights=config.vgg_weights,
        vgg_pooling=config.vgg_pooling,
        vgg_dtype=config.precision,
    )


def build_objective(config: StyleConfig, painting: np.ndarray | None = None) -> PerceptualLoss:
    """Returns the loss by which painted pictures are compared: `build_loss` in float32, without what we added to it.

    This is the paper's loss. It works for pictures of any size, and is as fair to optimised pictures, which have no
    lattice, as to those of a network.
    """
    papers = replace(config, phase_weight=0.0, chroma_weight=0.0, stability_weight=0.0, precision="float32")
    return build_loss(papers, painting)


def build_stream(config: StyleConfig) -> SampleStream:
    """Returns the samples to fit to: crops of reduced photographs, whose inputs include what surrounds the crop.

    The surroundings are as wide as the network's halo. Without them, zero padding would affect most of a crop, so the
    network would learn to rely on it, and would lack it in whole pictures, whose tiles have a halo.

    Raises:
        DataError: There are no usable photographs.
    """
    photographs = open_sources(config.data)
    if config.photograph_size:
        photographs = [reduce_photograph(photograph, config.photograph_size) for photograph in photographs]
    looks_at = config.crop + 2 * (measure_geometry(build_network(config, "float32")).halo + MOST_MOTION)
    surround = (math.ceil(looks_at / INPUT_MULTIPLE) * INPUT_MULTIPLE - config.crop) // 2
    return SampleStream(photographs, scale=1, crop=config.crop, seed=config.seed, surround=surround)


def reduce_photograph(photograph: Picture, shorter_side: int) -> Picture:
    """Returns a photograph that is reduced to the given shorter side, in pixels, when it is read, unless it is smaller.

    A crop of a picture with many megapixels would show part of an object, not a scene.
    """

    def read() -> np.ndarray:
        pixels = photograph.read()
        return shrink(pixels, shorter_side / min(pixels.shape[:2]))

    nominal = photograph.height, photograph.width
    height, width = shrunk_size(*nominal, shorter_side / min(nominal))
    return replace(photograph, height=height, width=width, read=read)


def read_painting(config: StyleConfig) -> np.ndarray:
    """Reads the painting and reduces it to the style size. A smaller one stays as it is, with a warning.

    Returns:
        The painting, uint8 RGB (height, width, 3).

    Raises:
        ImageFileError: The painting cannot be read.
        ConfigError: The painting is too small.
    """
    painting = read_rgb(config.style)
    height, width = painting.shape[:2]
    if max(height, width) < config.style_size:
        log.warning(
            "%s has %dx%d pixels and is not enlarged to style_size %d.", config.style, width, height, config.style_size
        )
    painting = shrink(painting, config.style_size / max(height, width))
    if min(painting.shape[:2]) < SMALLEST_PAINTING:
        raise ConfigError(
            f"style must be a picture whose shorter side has at least {SMALLEST_PAINTING} pixels once its longer side "
            f"is reduced to style_size {config.style_size}. Received: {config.style}, {width}x{height}."
        )
    return painting


def shrink(image: np.ndarray, factor: float) -> np.ndarray:
    """Reduces a uint8 picture by antialiased bicubic. A factor of 1 or more leaves it as it is."""
    height, width = image.shape[:2]
    size = shrunk_size(height, width, factor)
    return image if size == (height, width) else resize_bicubic(image, *size)


def shrunk_size(height: int, width: int, factor: float) -> tuple[int, int]:
    """Returns the height and width of what `shrink` returns, in pixels."""
    factor = min(1.0, factor)
    return max(1, round(height * factor)), max(1, round(width * factor))


def build_validation(config: StyleConfig) -> "StyleValidation":
    """Returns an object that measures the loss on the first few held-out photographs.

    Raises:
        DataError: No photograph can be read.
        ConfigError: The painting is too small.
        ImageFileError: The painting cannot be read.
    """
    return StyleValidation(config)


def build_verification(scale: int, max_drop: float) -> "StyleVerification":
    """Returns an object that compares the pictures of a `.tflite` with its network's; there are no originals."""
    return StyleVerification()


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
    """Measures a network by the loss that it was fitted to, as `evaluation.evaluate_style` does.

    Raises:
        ConfigError: The painting that the network was fitted to is unknown, or a degradation was asked for.
        DataError: No picture can be used.
    """
    if degradation:
        raise ConfigError("--degradation is for networks that enlarge. This one transfers a style.")
    settings = {**settings, "style": style} if style else settings
    if not settings:
        raise ConfigError(
            "--style must be the painting that the network was fitted to. The network has no card or config.json."
        )
    config = StyleConfig.from_json(settings)
    if not Path(config.style).is_file():
        raise ConfigError(
            f"--style must be the painting that the network was fitted to. There is no file {config.style}."
        )
    painting = read_painting(config)
    objective = build_objective(config, painting)
    return evaluate_style(upscaler, objective, data, painting=painting, iterations=iterations or 0, on_step=on_picture)


class StyleValidation:
    """Paints the first few held-out photographs, and measures the loss terms of the results."""

    best: str | None = None

    def __init__(self, config: StyleConfig) -> None:
        """Reads the painting and the photographs. Photographs that cannot be read are left out, with a warning.

        Raises:
            DataError: No photograph can be read.
            ConfigError: The painting is too small.
            ImageFileError: The painting cannot be read.
        """
        self.painting = read_painting(config)
        self.objective = build_objective(config, self.painting)

        def reduce(picture: Picture) -> np.ndarray:
            pixels = picture.read()
            return shrink(pixels, VALIDATION_SIDE / max(pixels.shape[:2]))

        refusal = "None of {number} validation pictures can be read. Give another --val."
        self.photographs, _ = use_pictures(open_sources(config.val), reduce, refusal=refusal, limit=VALIDATION_PICTURES)

    def __call__(self, network: keras.Model) -> tuple[Scores, np.ndarray]:
        """Paints the photographs.

        Returns:
            Mean terms by name, each beginning with `val_`, and their weighted sum `val_loss`; and a sheet of the
            painting, the photographs and the results, uint8 RGB.
        """
        paint, rows, sheet = Upscaler(network), [], [{"painting": self.painting}]
        for photograph in self.photographs:
            painted = paint(photograph)
            rows.append(self.objective.measure(painted, photograph))
            sheet.append({"photograph": photograph, "ours": painted})
        return {f"val_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}, comparison_sheet(sheet)


class StyleVerification:
    """Compares the photographs that `.tflite` files paint with those that their network paints.

    The report has `psnr`, in dB over all channels, and `ssim_y` of a file's pictures against the network's.
    """

    def __init__(self) -> None:
        """Sets the limit."""
        self.limit = {"min_psnr": MIN_PSNR}

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the photograph twice: as the input and as the original."""
        return picture, picture

    def score(self, image: np.ndarray, expected: np.ndarray, original: np.ndarray) -> Scores:
        """Returns the scores of a result against the network's.

        Raises:
            ConfigError: The picture is too small.
        """
        return {"psnr": min(psnr_rgb(image, expected, 0), NO_DIFFERENCE), "ssim_y": ssim_y(image, expected, 0)}

    def compare(self, scores: Scores, expected: Scores) -> Scores:
        """Returns a file's mean scores."""
        return scores

    def accepts(self, row: Mapping[str, Any]) -> bool:
        """Returns whether a file is close enough to the network; False if the score is undefined."""
        return row["psnr"] >= self.limit["min_psnr"]
