"""The weighted sum of loss terms that a network, or a picture itself, is optimised for."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import KerasTensor

from keras_psr.losses.terms import Comparison, Responses, Term
from keras_psr.losses.vgg import build_vgg


class PerceptualLoss:
    """A weighted sum of named terms that compare a network's output with the original, for both tasks.

    All terms share one VGG16. A term whose weight is zero is not computed.

    Attributes:
        terms: The terms whose weight is not zero.
        encoder: The VGG16 whose responses the terms compare; None if no term compares responses.
        needs_twin: Whether a term compares the outputs for two frames of a film.
        is_adversarial: Whether a term needs discriminators.

    Example:
        loss = PerceptualLoss([pixel_loss(0.1), feature_loss(1.0, "relu2_2")])
        total = loss.total(loss.compute(output, target))
    """

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        vgg_weights: str = "bundled",
        vgg_pooling: str = "max",
        vgg_dtype: str = "float32",
        shift_period: int = 1,
    ) -> None:
        """Creates the loss, and builds VGG16 if a term needs it.

        Args:
            terms: Terms from `losses.terms`.
            vgg_weights: As for `vgg.build_vgg`.
            vgg_pooling: As for `vgg.build_vgg`.
            vgg_dtype: Compute dtype of VGG16; the terms themselves are float32.
            shift_period: Number of positions, vertically and horizontally, through which the steps of a fit shift
                VGG16's pooling grid, so that a network cannot adapt a pattern to one position. 1 does not shift it.

        Raises:
            ConfigError: A VGG16 layer is unknown.
            ModelError: VGG16's weights are missing or damaged.
        """
        self.terms = [term for term in terms if term.weight > 0]
        self.needs_twin = any(term.needs_twin for term in self.terms)
        self.is_adversarial = any(term.is_adversarial for term in self.terms)
        self.shift_period = shift_period
        layers = sorted({layer for term in self.terms for layer in term.layers})
        self.encoder: keras.Model | None = None
        if layers:
            self.encoder = build_vgg(layers, weights=vgg_weights, pooling=vgg_pooling, dtype=vgg_dtype)

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the terms, by name."""
        return {term.name: term.weight for term in self.terms}

    def compute(
        self,
        output: KerasTensor,
        target: KerasTensor,
        step: KerasTensor | int = 0,
        wanted: Responses | None = None,
        twin: KerasTensor | None = None,
    ) -> dict[str, KerasTensor]:
        """Returns the unweighted terms, by name.

        Args:
            output: The network's output, (batch, height, width, 3) float32 in [0, 255].
            target: The originals, the same shape and range.
            step: Number of gradient steps so far, which decides how the pooling grid is shifted.
            wanted: `responses(target)`, if already known.
            twin: As in `terms.Comparison`. Without it, terms that need it are left out.
        """
        return self.errors(self.compare(output, target, step, wanted, twin))

    def compare(
        self,
        output: KerasTensor,
        target: KerasTensor,
        step: KerasTensor | int = 0,
        wanted: Responses | None = None,
        twin: KerasTensor | None = None,
    ) -> Comparison:
        """Returns what the terms compare; the arguments are those of `compute`."""
        found: Responses = {}
        if self.encoder is not None:
            found = self.responses(self._shifted(output, step))
            wanted = self.responses(self._shifted(target, step)) if wanted is None else wanted
        return Comparison(output, target, found, wanted or {}, twin)

    def errors(self, comparison: Comparison) -> dict[str, KerasTensor]:
        """Returns the unweighted terms, by name, without those that need a twin or a verdict that is not there."""
        return {
            term.name: term.error(comparison)
            for term in self.terms
            if not (term.needs_twin and comparison.twin is None)
            and not (term.is_adversarial and comparison.verdict is None)
        }

    def total(self, terms: dict[str, KerasTensor]) -> KerasTensor:
        """Returns the weighted sum of what `compute` returns, a scalar, without adversarial terms."""
        return sum(
            term.weight * terms[term.name] for term in self.terms if term.name in terms and not term.is_adversarial
        )

    def measure(self, image: np.ndarray, original: np.ndarray) -> dict[str, float]:
        """Returns the unweighted terms of one picture by name, and their weighted sum as `loss`.

        Args:
            image: uint8 RGB (height, width, 3), both sides at least 8.
            original: The same shape.
        """
        output, target = (picture[None].astype(np.float32) for picture in (image, original))
        terms = self.compute(output, target)
        return {"loss": float(self.total(terms)), **{name: float(term) for name, term in terms.items()}}

    def responses(self, image: KerasTensor) -> Responses:
        """Returns VGG16's responses to pictures (batch, height, width, 3) at every layer that a term compares."""
        assert self.encoder is not None, "no term compares responses"
        return self.encoder(image)

    def _shifted(self, image: KerasTensor, step: KerasTensor | int) -> KerasTensor:
        """Returns pictures cropped at the top and left to shift the pooling grid, by each number of pixels in turn."""
        if self.shift_period == 1:
            return image
        return image[:, step % self.shift_period :, step // self.shift_period % self.shift_period :]
