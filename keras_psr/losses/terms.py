"""The terms of a loss. Each has a name, a weight, and a function of two pictures and of their VGG16 responses.

A new kind of term is one more function here that returns a `Term`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from keras import KerasTensor, ops

from keras_psr.constants import STYLE_NORMALIZATIONS
from keras_psr.errors import ConfigError
from keras_psr.losses.functional import (
    feature_error,
    gram_error,
    gram_matrix,
    mean_absolute_error,
    mean_squared_error,
    phase_error,
    total_variation,
)
from keras_psr.losses.vgg import build_vgg

Responses = dict[str, KerasTensor]
"""VGG16's responses by layer, (batch, height, width, channels), of its compute dtype."""

Grams = dict[str, np.ndarray]
"""Gram matrices of a painting by layer, (1, channels, channels) float32."""


@dataclass(frozen=True)
class Comparison:
    """What the terms of a loss compare.

    Attributes:
        output: The network's pictures, (batch, height, width, 3) float32 in [0, 255].
        target: The originals, the same shape and range.
        found: VGG16's responses to the output, at all layers that some term asks for.
        wanted: VGG16's responses to the target, at the same layers.
    """

    output: KerasTensor
    target: KerasTensor
    found: Responses = field(default_factory=dict)
    wanted: Responses = field(default_factory=dict)


@dataclass(frozen=True)
class Term:
    """One term of a loss.

    Attributes:
        name: What logs call it.
        weight: Its factor in the weighted sum; a term of weight 0 is not computed.
        error: Returns the unweighted term, a float32 scalar.
        layers: The VGG16 layers whose responses it compares (`vgg.TAPS`).
    """

    name: str
    weight: float
    error: Callable[[Comparison], KerasTensor]
    layers: tuple[str, ...] = ()


def pixel_loss(weight: float, norm: str = "l1") -> Term:
    """Returns the term that compares pixels.

    Args:
        weight: Its weight.
        norm: `l1`, or `l2` as in the paper (section 3.2).
    """
    error = mean_absolute_error if norm == "l1" else mean_squared_error
    return Term("pixel_loss", weight, lambda pictures: error(pictures.output, pictures.target))


def feature_loss(weight: float, layer: str, normalization: str = "mean") -> Term:
    """Returns the term that compares VGG16's responses (Johnson et al. 2016, equation 2).

    Args:
        weight: Its weight.
        layer: The paper has relu2_2 for super-resolution, and relu3_3 for styles.
        normalization: As for `functional.feature_error`.
    """

    def error(pictures: Comparison) -> KerasTensor:
        found, wanted = (ops.cast(responses[layer], "float32") for responses in (pictures.found, pictures.wanted))
        return feature_error(found, wanted, normalization)

    return Term("feature_loss", weight, error, (layer,))


def style_loss(weight: float, layers: Sequence[str], normalization: str = "energy", grams: Grams | None = None) -> Term:
    """Returns the term that compares Gram matrices (Johnson et al. 2016, equation 4), summed over layers.

    Args:
        weight: Its weight.
        layers: The paper has relu1_2, relu2_2, relu3_3 and relu4_3.
        normalization: As for `functional.gram_error`.
        grams: Those of a painting (`painting_grams`). None takes each original's own, which makes it a texture loss.

    Raises:
        ConfigError: The normalisation is unknown.
    """
    if normalization not in STYLE_NORMALIZATIONS:
        accepted = ", ".join(STYLE_NORMALIZATIONS)
        raise ConfigError(f"style_normalization must be one of {accepted}. Received: {normalization!r}.")

    def error(pictures: Comparison) -> KerasTensor:
        return sum(
            gram_error(
                gram_matrix(pictures.found[layer]),
                grams[layer] if grams else gram_matrix(pictures.wanted[layer]),
                normalization,
            )
            for layer in layers
        )

    return Term("style_loss", weight, error, tuple(layers))


def phase_loss(weight: float, period: int) -> Term:
    """Returns the term for what repeats with the upsampling lattice (`functional.phase_error`).

    Args:
        weight: Its weight.
        period: Of the lattice, in pixels.
    """
    return Term("phase_loss", weight, lambda pictures: phase_error(pictures.output, pictures.target, period))


def total_variation_loss(weight: float) -> Term:
    """Returns the term for the total variation of the output (Johnson et al. 2016, section 3.2)."""
    return Term("total_variation", weight, lambda pictures: total_variation(pictures.output))


def painting_grams(painting: np.ndarray, layers: Sequence[str], *, weights: str, pooling: str) -> Grams:
    """Returns the Gram matrices of a painting, computed in float32.

    Args:
        painting: uint8 RGB (height, width, 3).
        layers: VGG16 layers.
        weights: As for `vgg.build_vgg`.
        pooling: As for `vgg.build_vgg`.
    """
    responses = build_vgg(layers, weights=weights, pooling=pooling)(painting[None].astype(np.float32))
    return {layer: np.asarray(gram_matrix(responses[layer])) for layer in layers}
