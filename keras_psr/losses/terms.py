"""The terms of a loss. Each has a name, a weight, and a function of two pictures and their VGG16 responses.

To add a kind of term, add a function here that returns a `Term`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from keras import KerasTensor, ops

from keras_psr.constants import STYLE_NORMALIZATIONS
from keras_psr.errors import ConfigError
from keras_psr.losses.discriminators import JUDGED_LAYERS
from keras_psr.losses.functional import (
    chroma,
    feature_error,
    gram_error,
    gram_matrix,
    mean_absolute_error,
    mean_squared_error,
    phase_error,
    total_variation,
)
from keras_psr.losses.vgg import build_vgg

LEAST_CHROMA_VARIATION = 10.0
"""Lower bound for the total variation of a painting's chroma, in squared grey levels; The Scream has 21.

For a drawing, which has next to none, the term would otherwise outweigh all others.
"""

Responses = dict[str, KerasTensor]
"""VGG16's responses by layer, (batch, height, width, channels), in its compute dtype."""

Grams = dict[str, np.ndarray]
"""Gram matrices of a painting by layer, (1, channels, channels) float32."""


@dataclass(frozen=True)
class Verdict:
    """What the discriminators decide about a step's pictures.

    Attributes:
        generator_losses: The loss of the network by discriminator, which is low if the discriminator prefers outputs to
            originals.
        discriminator_loss: The mean loss of the discriminators: low if they prefer originals.
        accuracy: The fraction of positions at which they prefer originals; 0.5 for guesses.
    """

    generator_losses: dict[str, KerasTensor]
    discriminator_loss: KerasTensor
    accuracy: KerasTensor


@dataclass(frozen=True)
class Comparison:
    """The pictures and responses that the terms of a loss compare.

    Attributes:
        output: The network's output, (batch, height, width, 3) float32 in [0, 255].
        target: The originals, the same shape and range.
        found: VGG16's responses to the output, at every layer that a term compares.
        wanted: VGG16's responses to the target, at the same layers.
        twin: The network's output for the first crops of the batch in another frame of a film, the same height, width
            and range; None unless a term asks for it.
        verdict: What the discriminators decide about the output; None unless a term asks for it.
    """

    output: KerasTensor
    target: KerasTensor
    found: Responses = field(default_factory=dict)
    wanted: Responses = field(default_factory=dict)
    twin: KerasTensor | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Term:
    """One term of a loss.

    Attributes:
        name: Its name in logs.
        weight: Its factor in the weighted sum; a term of weight 0 is not computed.
        error: A function that returns the unweighted term, a float32 scalar.
        layers: The VGG16 layers whose responses it compares (`vgg.TAPS`).
        needs_twin: Whether it compares `Comparison.twin`.
        is_adversarial: Whether it is made of `Comparison.verdict`. The weight of such a term is not a factor but the
            strength of its gradient, relative to that of all other terms (`training.adversary`).

    Example:
        brightness = Term("brightness", 0.1, lambda pictures: ops.abs(ops.mean(pictures.output - pictures.target)))
    """

    name: str
    weight: float
    error: Callable[[Comparison], KerasTensor]
    layers: tuple[str, ...] = ()
    needs_twin: bool = False
    is_adversarial: bool = False


def pixel_loss(weight: float, norm: str = "l1") -> Term:
    """Returns the term that compares pixels.

    Args:
        weight: Its weight.
        norm: `l1`, or `l2` as in the paper (section 3.2).

    Example:
        loss = PerceptualLoss([pixel_loss(1.0)])
    """
    error = mean_absolute_error if norm == "l1" else mean_squared_error
    return Term("pixel_loss", weight, lambda pictures: error(pictures.output, pictures.target))


def feature_loss(weight: float, layer: str, normalization: str = "mean") -> Term:
    """Returns the term that compares VGG16's responses (Johnson et al. 2016, equation 2).

    Args:
        weight: Its weight.
        layer: A VGG16 layer. The paper uses relu2_2 for super-resolution and relu3_3 for style transfer.
        normalization: As for `functional.feature_error`.

    Example:
        loss = PerceptualLoss([feature_loss(1.0, "relu2_2")])
    """

    def error(pictures: Comparison) -> KerasTensor:
        found, wanted = (ops.cast(responses[layer], "float32") for responses in (pictures.found, pictures.wanted))
        return feature_error(found, wanted, normalization)

    return Term("feature_loss", weight, error, (layer,))


def style_loss(weight: float, layers: Sequence[str], normalization: str = "energy", grams: Grams | None = None) -> Term:
    """Returns the term that compares Gram matrices (Johnson et al. 2016, equation 4), summed over layers.

    Args:
        weight: Its weight.
        layers: VGG16 layers. The paper uses relu1_2, relu2_2, relu3_3 and relu4_3.
        normalization: As for `functional.gram_error`.
        grams: The Gram matrices of a painting (`painting_grams`). None compares with those of each original, which
            makes the term a texture loss.

    Raises:
        ConfigError: The normalisation is unknown.

    Example:
        loss = PerceptualLoss([feature_loss(1.0, "relu2_2"), style_loss(0.1, ["relu2_2", "relu3_3"])])
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
    """Returns the term for errors that repeat with the upsampling lattice (`functional.phase_error`).

    Args:
        weight: Its weight.
        period: Period of the lattice, in pixels.

    Example:
        loss = PerceptualLoss([pixel_loss(1.0), phase_loss(1.0, period=4)])
    """
    return Term("phase_loss", weight, lambda pictures: phase_error(pictures.output, pictures.target, period))


def total_variation_loss(weight: float) -> Term:
    """Returns the term for the total variation of the output (Johnson et al. 2016, section 3.2).

    Args:
        weight: Its weight.

    Example:
        loss = PerceptualLoss([pixel_loss(1.0), total_variation_loss(1e-4)])
    """
    return Term("total_variation", weight, lambda pictures: total_variation(pictures.output))


def chroma_loss(weight: float, painting: np.ndarray) -> Term:
    """Returns the term for the total variation of the output's chroma, divided by that of the painting's.

    VGG16 hardly responds to fine changes of hue, so without this term the loss leaves coloured fringes and speckles
    that no painting has. It is our addition; the paper has no such term.

    Args:
        weight: Its weight.
        painting: uint8 RGB (height, width, 3). Its total variation counts as `LEAST_CHROMA_VARIATION` at least.

    Example:
        loss = PerceptualLoss([style_loss(2.0, layers, grams=grams), chroma_loss(0.2, painting)])
    """
    own = float(total_variation(chroma(painting[None].astype(np.float32))))

    def error(pictures: Comparison) -> KerasTensor:
        return total_variation(chroma(pictures.output)) / max(own, LEAST_CHROMA_VARIATION)

    return Term("chroma_loss", weight, error)


def stability_loss(weight: float) -> Term:
    """Returns the term that compares the outputs for two frames of a film: the mean of their squared differences.

    The second frame shows the same crop, moved by a few pixels and with other noise, and the motion is undone in its
    output (`training.second_frame`). Without this term, strokes of a film flicker. The paper has no such term; Gupta
    et al. 2017, "Characterizing and Improving Stability in Neural Style Transfer", compare frames of real films with
    the help of their optical flow, which known motion makes unnecessary.

    Args:
        weight: Its weight.

    Example:
        loss = PerceptualLoss([style_loss(2.0, layers, grams=grams), stability_loss(1e-3)])
    """

    def error(pictures: Comparison) -> KerasTensor:
        return mean_squared_error(pictures.output[: ops.shape(pictures.twin)[0]], pictures.twin)

    return Term("stability_loss", weight, error, needs_twin=True)


def adversarial_loss(weight: float) -> Term:
    """Returns the term that is low if discriminators cannot tell outputs from originals (Goodfellow et al. 2014).

    Args:
        weight: The norm of the term's gradient at the output, divided by that of all other terms together. A factor,
            as other terms have, would mean something else for each network, and something else as the discriminators
            learn.

    Example:
        loss = PerceptualLoss([pixel_loss(1.0), feature_loss(1.5e-4, "relu2_2"), adversarial_loss(1.0)])
    """

    def error(pictures: Comparison) -> KerasTensor:
        assert pictures.verdict is not None, "no discriminator has seen the pictures"
        losses = pictures.verdict.generator_losses
        return sum(losses.values()) / len(losses)

    return Term("adversarial_loss", weight, error, JUDGED_LAYERS, is_adversarial=True)


def painting_grams(painting: np.ndarray, layers: Sequence[str], *, weights: str, pooling: str) -> Grams:
    """Returns the Gram matrices of a painting, computed in float32.

    Args:
        painting: uint8 RGB (height, width, 3).
        layers: VGG16 layers.
        weights: As for `vgg.build_vgg`.
        pooling: As for `vgg.build_vgg`.

    Example:
        grams = painting_grams(painting, ["relu1_2", "relu2_2"], weights="bundled", pooling="max")
    """
    responses = build_vgg(layers, weights=weights, pooling=pooling)(painting[None].astype(np.float32))
    return {layer: np.asarray(gram_matrix(responses[layer])) for layer in layers}
