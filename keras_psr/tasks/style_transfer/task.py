"""What style transfer consists of, as `tasks.task.Task` lists it."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_psr.constants import STYLE_GRID
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
    style_loss,
    total_variation_loss,
)
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.tasks.config import StyleConfig
from keras_psr.tasks.style_transfer.evaluation import evaluate_style
from keras_psr.tasks.task import Scores

SMALLEST_PAINTING = 32
"""Shorter side of the smallest painting with a style, in pixels: four responses of VGG16's relu4_3."""

VALIDATION_PICTURES = 3
VALIDATION_SIDE = 384
"""Photographs of a validation and its sheet, and the longer side to which they are reduced, in pixels."""

INPUT_MULTIPLE = 64
"""Of which the side of a training input is a multiple. With 368 pixels, 92 behind the strides, bfloat16 convolutions
of TensorFlow 2.21 on a CPU with AMX gave NaN in part of a kernel's gradient once in some 60 steps; with 256 and 384
never."""

MIN_PSNR = 30.0
"""Least PSNR of a `.tflite` file's picture against the network's, in dB."""

NO_DIFFERENCE = 100.0
"""PSNR that equal pictures count for in a mean, in dB."""

log = logging.getLogger(__name__)


def build_network(config: StyleConfig, dtype: str) -> keras.Model:
    """The untrained network.

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
    """The weighted loss terms of a fit, which hold the painting's Gram matrices.

    Args:
        config: The settings.
        painting: As `read_painting` gives it, which is called otherwise.

    Returns:
        The loss between a network's picture and the photograph.

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
        ],
        vgg_weights=config.vgg_weights,
        vgg_pooling=config.vgg_pooling,
        vgg_dtype=config.precision,
    )


def build_objective(config: StyleConfig, painting: np.ndarray | None = None) -> PerceptualLoss:
    """The sum that painted pictures are compared by: `build_loss` in float32, without phase loss and chroma loss.

    That is the paper's, for pictures of any size, and asks of an optimised picture, which has no lattice, the same as
    of a network's.
    """
    return build_loss(replace(config, phase_weight=0.0, chroma_weight=0.0, precision="float32"), painting)


def build_stream(config: StyleConfig) -> SampleStream:
    """The crops to fit to, and as input the same photographs with as much around as the network looks.

    The photographs are reduced to the photograph size first. Without what is around them the loss would see what zero
    padding does at the border of a crop, which is most of it; the network learns to build on it, and misses it in whole
    pictures, whose tiles have a halo.

    Raises:
        DataError: There is nothing usable to fit to.
    """
    photographs = open_sources(config.data)
    if config.photograph_size:
        photographs = [reduce_photograph(photograph, config.photograph_size) for photograph in photographs]
    looks_at = config.crop + 2 * measure_geometry(build_network(config, "float32")).halo
    surround = (math.ceil(looks_at / INPUT_MULTIPLE) * INPUT_MULTIPLE - config.crop) // 2
    return SampleStream(photographs, scale=1, crop=config.crop, seed=config.seed, surround=surround)


def reduce_photograph(photograph: Picture, shorter_side: int) -> Picture:
    """The same photograph, reduced when it is read to a shorter side, in pixels; a smaller one stays as it is.

    A crop of a picture of many megapixels shows no scene, only a part of some thing.
    """

    def read() -> np.ndarray:
        pixels = photograph.read()
        return shrink(pixels, shorter_side / min(pixels.shape[:2]))

    nominal = photograph.height, photograph.width
    height, width = shrunk_size(*nominal, shorter_side / min(nominal))
    return replace(photograph, height=height, width=width, read=read)


def read_painting(config: StyleConfig) -> np.ndarray:
    """The painting, reduced to the style size; a smaller one stays as it is, which is said.

    Returns:
        uint8 RGB (height, width, 3).

    Raises:
        ImageFileError: It cannot be read.
        ConfigError: It is too small to have a style.
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
    """Reduces a uint8 picture by antialiased bicubic; with a factor of 1 or more it stays as it is."""
    height, width = image.shape[:2]
    size = shrunk_size(height, width, factor)
    return image if size == (height, width) else resize_bicubic(image, *size)


def shrunk_size(height: int, width: int, factor: float) -> tuple[int, int]:
    """Height and width that `shrink` gives, in pixels."""
    factor = min(1.0, factor)
    return max(1, round(height * factor)), max(1, round(width * factor))


def build_validation(config: StyleConfig) -> "StyleValidation":
    """The loss terms of the first few held-out photographs, painted.

    Raises:
        DataError: No photograph can be read.
        ConfigError: The painting is too small.
        ImageFileError: The painting cannot be read.
    """
    return StyleValidation(config)


def build_verification(scale: int, max_drop: float) -> "StyleVerification":
    """Returns the comparison of a `.tflite` with its network, because a painted photograph has no original."""
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
            "--style must be the painting that the network was fitted to. Nothing beside the network names it."
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
    """Paints the first few held-out photographs, and tells the loss terms of the results."""

    best: str | None = None

    def __init__(self, config: StyleConfig) -> None:
        """Reads painting and photographs; those that cannot be read are left out and named.

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
            Mean terms by name, each beginning with `val_`, and their weighted sum `val_loss`; and a sheet of photograph
            and result, the painting first, uint8 RGB.
        """
        paint, rows, sheet = Upscaler(network), [], [{"painting": self.painting}]
        for photograph in self.photographs:
            painted = paint(photograph)
            rows.append(self.objective.measure(painted, photograph))
            sheet.append({"photograph": photograph, "ours": painted})
        return {f"val_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}, comparison_sheet(sheet)


class StyleVerification:
    """Compares what files and their network make of photographs.

    The report has `psnr` in dB over all channels and `ssim_y`, of a file's pictures against the network's.
    """

    def __init__(self) -> None:
        """Sets the limit."""
        self.limit = {"min_psnr": MIN_PSNR}

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the photograph as it is, twice."""
        return picture, picture

    def score(self, image: np.ndarray, expected: np.ndarray, original: np.ndarray) -> Scores:
        """Returns the scores of a result beside the network's.

        Raises:
            ConfigError: The picture is too small.
        """
        return {"psnr": min(psnr_rgb(image, expected, 0), NO_DIFFERENCE), "ssim_y": ssim_y(image, expected, 0)}

    def compare(self, scores: Scores, expected: Scores) -> Scores:
        """Returns the mean scores as they are."""
        return scores

    def accepts(self, row: Mapping[str, Any]) -> bool:
        """Returns whether a file comes near enough to the network; False where that is not defined."""
        return row["psnr"] >= self.limit["min_psnr"]
