"""The weighted sum of loss terms that a network is fitted to."""

import keras
from keras import KerasTensor, ops

from keras_psr.functional import mean_absolute_error, mean_squared_error, phase_error, total_variation
from keras_psr.vgg import build_vgg

Shift = tuple[int | KerasTensor, int | KerasTensor]
"""Rows and columns."""


class PerceptualLoss:
    """Named terms between a network's output and the original, and their weighted sum.

    Terms: `pixel_loss` (L1 or L2), `feature_loss` (VGG16 responses), `phase_loss` (what repeats with the upsampling
    lattice) and `total_variation`. A term of weight zero is not computed. During the warm-up the feature loss is left
    out, and with it the cost of VGG16: SRGAN and ESRGAN start from networks fitted to pixels for the same reason.
    """

    def __init__(
        self,
        *,
        scale: int,
        pixel_weight: float = 1.0,
        pixel_norm: str = "l1",
        feature_weight: float = 0.0,
        feature_layer: str = "relu2_2",
        phase_weight: float = 0.0,
        total_variation_weight: float = 0.0,
        vgg_weights: str = "bundled",
        vgg_pooling: str = "max",
        vgg_dtype: str = "float32",
        warmup_steps: int = 0,
        shift_pooling: bool = False,
    ) -> None:
        """Builds the terms, and VGG16 if the feature loss has a weight.

        Args:
            scale: The network's upscaling factor, the period of the phase loss.
            pixel_weight: Weight of the pixel loss.
            pixel_norm: `l1`, or `l2` as in the paper (section 3.2).
            feature_weight: Weight of the feature loss (Johnson et al. 2016, equation 2).
            feature_layer: Response the feature loss compares; the paper's is relu2_2 (section 4.2).
            phase_weight: Weight of the phase loss (`functional.phase_error`).
            total_variation_weight: Weight of the total variation of the output.
            vgg_weights: As for `vgg.build_vgg`.
            vgg_pooling: As for `vgg.build_vgg`.
            vgg_dtype: Compute dtype of VGG16; the loss itself is float32.
            warmup_steps: Steps at the start without the feature loss.
            shift_pooling: Move VGG16's pooling grid from step to step (`feature_loss`).
        """
        self.scale = scale
        self.pixel_error = mean_absolute_error if pixel_norm == "l1" else mean_squared_error
        self.feature_layer = feature_layer
        self.warmup_steps, self.shift_pooling = warmup_steps, shift_pooling
        weights = {
            "pixel_loss": pixel_weight,
            "feature_loss": feature_weight,
            "phase_loss": phase_weight,
            "total_variation": total_variation_weight,
        }
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.vgg: keras.Model | None = None
        if feature_weight > 0:
            self.vgg = build_vgg((feature_layer,), weights=vgg_weights, pooling=vgg_pooling, dtype=vgg_dtype)

    def terms(self, output: KerasTensor, target: KerasTensor, step: KerasTensor) -> dict[str, KerasTensor]:
        """Each term by name, unweighted.

        Args:
            output: The network's picture, (batch, height, width, 3) float32 in [0, 255].
            target: The original, the same shape and range.
            step: Gradient steps done, a scalar integer.

        Returns:
            Scalars by term name, in the order of `weights`.
        """
        compute = {
            "pixel_loss": lambda: self.pixel_error(output, target),
            "feature_loss": lambda: ops.cond(
                step < self.warmup_steps,
                lambda: ops.zeros((), "float32"),
                lambda: self.feature_loss(output, target, self._shift(step)),
            ),
            "phase_loss": lambda: phase_error(output, target, self.scale),
            "total_variation": lambda: total_variation(output),
        }
        return {name: compute[name]() for name in self.weights}

    def total(self, terms: dict[str, KerasTensor]) -> KerasTensor:
        """The weighted sum of `terms`, a scalar."""
        return sum(self.weights[name] * term for name, term in terms.items())

    def feature_loss(self, output: KerasTensor, target: KerasTensor, shift: Shift = (0, 0)) -> KerasTensor:
        """Mean squared difference of VGG16 responses.

        Args:
            output: Pictures (batch, height, width, 3) in [0, 255].
            target: The same shape.
            shift: Rows and columns to cut off at the top and left first. It moves VGG16's pooling grid against the
                upsampling lattice: a network that sees every shift cannot fit a pattern to one.

        Returns:
            A float32 scalar.
        """
        assert self.vgg is not None
        images = [image[:, shift[0] :, shift[1] :] for image in (output, target)]
        responses = [ops.cast(self.vgg(image)[self.feature_layer], "float32") for image in images]
        return mean_squared_error(*responses)

    def _shift(self, step: KerasTensor) -> Shift:
        """Takes every shift of the pooling grid in turn, so that a resumed fit goes on with the right one."""
        if not self.shift_pooling:
            return (0, 0)
        period = 2 ** (int(self.feature_layer[len("relu")]) - 1)  # of the pooling before that layer, in pixels
        return (step % period, step // period % period)
