"""The weighted sum of loss terms that a network, or a picture itself, is fitted to."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import KerasTensor, ops

from keras_psr.constants import STYLE_NORMALIZATIONS
from keras_psr.errors import ConfigError
from keras_psr.functional import (
    gram_error,
    gram_matrix,
    mean_absolute_error,
    mean_squared_error,
    phase_error,
    total_variation,
)
from keras_psr.vgg import build_vgg

Shift = tuple[int | KerasTensor, int | KerasTensor]
"""Rows and columns."""

Responses = dict[str, KerasTensor]
"""VGG16's responses by tap, (batch, height, width, channels), of its compute dtype."""


class PerceptualLoss:
    """Named terms between a network's output and the original, and their weighted sum, for both tasks.

    Terms: `pixel_loss` (L1 or L2), `feature_loss` (VGG16 responses), `style_loss` (their Gram matrices), `phase_loss`
    (what repeats with the upsampling lattice) and `total_variation`. A term of weight zero is not computed.

    The style is a painting's, or without one each original's own, which makes the term a texture loss.
    """

    def __init__(
        self,
        *,
        pixel_weight: float = 1.0,
        pixel_norm: str = "l1",
        feature_weight: float = 0.0,
        feature_layer: str = "relu2_2",
        relative_features: bool = False,
        style_weight: float = 0.0,
        style_layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
        style_normalization: str = "energy",
        painting: np.ndarray | None = None,
        phase_weight: float = 0.0,
        phase_period: int = 1,
        total_variation_weight: float = 0.0,
        vgg_weights: str = "bundled",
        vgg_pooling: str = "max",
        vgg_dtype: str = "float32",
        shift_pooling: bool = False,
    ) -> None:
        """Builds the terms, and VGG16 if the feature or style loss has a weight.

        Args:
            pixel_weight: Weight of the pixel loss.
            pixel_norm: `l1`, or `l2` as in the paper (section 3.2).
            feature_weight: Weight of the feature loss (Johnson et al. 2016, equation 2).
            feature_layer: Response the feature loss compares; the paper's is relu2_2, for styles relu3_3.
            relative_features: Divide the feature loss by the mean square of the original's responses, so that 1 is
                what a picture without any response costs.
            style_weight: Weight of the style loss (Johnson et al. 2016, equation 4, summed over layers).
            style_layers: Responses whose Gram matrices the style loss compares.
            style_normalization: Of the style loss, as for `functional.gram_error`.
            painting: Whose style is wanted, uint8 RGB (height, width, 3); None for each original's own.
            phase_weight: Weight of the phase loss (`functional.phase_error`).
            phase_period: Its period, in pixels.
            total_variation_weight: Weight of the total variation of the output.
            vgg_weights: As for `vgg.build_vgg`.
            vgg_pooling: As for `vgg.build_vgg`.
            vgg_dtype: Compute dtype of VGG16; the loss itself is float32.
            shift_pooling: Move VGG16's pooling grid from step to step (`responses`).

        Raises:
            ConfigError: The normalisation or a layer of VGG16 is unknown.
            ModelError: VGG16's weights are missing or damaged.
        """
        if style_normalization not in STYLE_NORMALIZATIONS:
            accepted = ", ".join(STYLE_NORMALIZATIONS)
            raise ConfigError(f"style_normalization must be one of {accepted}. Received: {style_normalization!r}.")
        self.phase_period = phase_period
        self.pixel_error = mean_absolute_error if pixel_norm == "l1" else mean_squared_error
        self.feature_layer, self.relative_features = feature_layer, relative_features
        self.style_layers, self.style_normalization = tuple(style_layers), style_normalization
        self.shift_pooling = shift_pooling
        weights = {
            "pixel_loss": pixel_weight,
            "feature_loss": feature_weight,
            "style_loss": style_weight,
            "phase_loss": phase_weight,
            "total_variation": total_variation_weight,
        }
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        taps = {feature_layer} if feature_weight > 0 else set()
        taps |= set(style_layers) if style_weight > 0 else set()
        self.vgg: keras.Model | None = None
        if taps:
            self.vgg = build_vgg(sorted(taps), weights=vgg_weights, pooling=vgg_pooling, dtype=vgg_dtype)
        self.style: dict[str, np.ndarray] = {}
        if painting is not None and style_weight > 0:
            vgg = build_vgg(self.style_layers, weights=vgg_weights, pooling=vgg_pooling)  # once, so in float32
            responses = vgg(painting[None].astype(np.float32))
            self.style = {layer: np.asarray(gram_matrix(responses[layer])) for layer in self.style_layers}

    def terms(
        self, output: KerasTensor, target: KerasTensor, step: KerasTensor, expected: Responses | None = None
    ) -> dict[str, KerasTensor]:
        """Each term by name, unweighted.

        Args:
            output: The network's picture, (batch, height, width, 3) float32 in [0, 255].
            target: The original, the same shape and range.
            step: Gradient steps done, a scalar integer.
            expected: `responses(target)`, where they are known already.

        Returns:
            Scalars by term name, in the order of `weights`.
        """
        vgg_terms = {}
        if self.vgg is not None:
            vgg_terms = self.vgg_terms(output, target, self._shift(step), expected)
        compute = {
            "pixel_loss": lambda: self.pixel_error(output, target),
            "feature_loss": lambda: vgg_terms["feature_loss"],
            "style_loss": lambda: vgg_terms["style_loss"],
            "phase_loss": lambda: phase_error(output, target, self.phase_period),
            "total_variation": lambda: total_variation(output),
        }
        return {name: compute[name]() for name in self.weights}

    def total(self, terms: dict[str, KerasTensor]) -> KerasTensor:
        """The weighted sum of `terms`, a scalar."""
        return sum(self.weights[name] * term for name, term in terms.items())

    def measure(self, image: np.ndarray, original: np.ndarray) -> dict[str, float]:
        """Each term of one picture, unweighted, and their weighted sum as `loss`.

        Args:
            image: uint8 RGB (height, width, 3), of a size of at least 8.
            original: The same shape.

        Returns:
            Numbers by term name.
        """
        output, target = (picture[None].astype(np.float32) for picture in (image, original))
        terms = self.terms(output, target, step=0)
        return {"loss": float(self.total(terms)), **{name: float(term) for name, term in terms.items()}}

    def vgg_terms(
        self, output: KerasTensor, target: KerasTensor, shift: Shift = (0, 0), expected: Responses | None = None
    ) -> dict[str, KerasTensor]:
        """The feature and the style loss, those of them that have a weight, from one pass for each picture.

        Args:
            output: Pictures (batch, height, width, 3) in [0, 255].
            target: The same shape.
            shift: Rows and columns to cut off at the top and left first. It moves VGG16's pooling grid against the
                upsampling lattice: a network that sees every shift cannot fit a pattern to one.
            expected: As for `terms`.

        Returns:
            Float32 scalars by term name.
        """
        images = [image[:, shift[0] :, shift[1] :] for image in (output, target)]
        responses = self.responses(images[0])
        if expected is None:
            expected = self.responses(images[1])
        terms = {}
        if "feature_loss" in self.weights:
            found, wanted = (ops.cast(maps[self.feature_layer], "float32") for maps in (responses, expected))
            error = mean_squared_error(found, wanted)
            terms["feature_loss"] = error / ops.mean(ops.square(wanted)) if self.relative_features else error
        if "style_loss" in self.weights:
            terms["style_loss"] = sum(
                gram_error(
                    gram_matrix(responses[layer]),
                    self.style[layer] if self.style else gram_matrix(expected[layer]),
                    self.style_normalization,
                )
                for layer in self.style_layers
            )
        return terms

    def responses(self, image: KerasTensor) -> Responses:
        """What VGG16 answers to pictures (batch, height, width, 3) at all layers that some term compares.

        Where TensorFlow traces a function, layers behind the last one that is used cost nothing: it leaves out what
        leads to no result.
        """
        assert self.vgg is not None
        return self.vgg(image)

    def _shift(self, step: KerasTensor) -> Shift:
        """Takes every shift of the pooling grid in turn, so that a resumed fit goes on with the right one."""
        if not self.shift_pooling:
            return (0, 0)
        period = 2 ** (int(self.feature_layer[len("relu")]) - 1)  # of the pooling before that layer, in pixels
        return (step % period, step // period % period)
