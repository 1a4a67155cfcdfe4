"""The discriminators of the adversarial loss: small networks that tell a fit's outputs from originals.

One sees the picture itself, as the bands of a Haar transform. The others see VGG16's responses, which the feature loss
computes anyway (Sauer et al. 2021, "Projected GANs Converge Faster"). These describe textures better, but VGG16 hardly
responds to a fine mesh, which networks draw if only its responses are judged. In the bands of high frequencies, a mesh
stands out.
"""

import keras
from keras import KerasTensor, layers, ops

from keras_psr.losses.functional import haar_bands, spectral_norm

JUDGED_LAYERS = ("relu2_2", "relu3_3")
"""VGG16 layers whose responses are judged. At full size, a discriminator of relu1_2 would cost most and see least."""

PICTURE = "picture"
"""Name of the discriminator that sees the picture."""

TYPICAL_SUM = 128.0
"""Standard deviation of the low band of a Haar transform of photographs, in grey levels.

Its mean is about twice that.
"""

TYPICAL_DETAIL = 8.0
"""The same for the band that changes along both rows and columns; the other two bands of detail have 16."""

TYPICAL_RESPONSE = 300.0
"""Root mean square of VGG16's responses to photographs, at each of the first three blocks."""

SLOPE = 0.2
"""Slope of the leaky ReLU below 0, as in DCGAN (Radford et al. 2016) and most discriminators since."""

Decisions = dict[str, KerasTensor]
"""The discriminators' decisions by name, (batch, height', width', 1) float32: positive for originals."""


class NormalizedConvolution(layers.Layer):
    """A convolution that keeps the size, and whose kernel is divided by its spectral norm (Miyato et al. 2018).

    So the discriminator cannot become ever steeper, which is what makes adversarial fits unstable.
    """

    def __init__(self, filters: int, kernel_size: int, *, use_bias: bool = True, **options: object) -> None:
        """Stores the number of output channels and the side of the kernel. The options are those of all layers."""
        super().__init__(**options)
        self.filters, self.kernel_size, self.use_bias = filters, kernel_size, use_bias

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights. All singular values of an orthogonal kernel are 1."""
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        # Not cast to 16 bits, because the norm needs more.
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="orthogonal", autocast=False)
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        """Returns the convolution of (batch, height, width, channels)."""
        kernel = ops.convert_to_tensor(self.kernel)
        kernel = kernel / spectral_norm(ops.reshape(kernel, (-1, self.filters)))
        outputs = ops.conv(inputs, ops.cast(kernel, inputs.dtype), padding="same")
        return outputs + ops.cast(self.bias, inputs.dtype) if self.use_bias else outputs


def build_discriminators(dtype: str = "float32") -> keras.Model:
    """Builds the discriminators of the picture and of VGG16's responses.

    Args:
        dtype: Keras dtype policy of the hidden layers.

    Returns:
        A model from a dictionary of `picture_bands`, named `PICTURE`, and VGG16's responses at `JUDGED_LAYERS` to
        `Decisions`.

    Example:
        decisions = build_discriminators()({"picture": picture_bands(image), **vgg(image)})
    """
    bands = keras.Input((None, None, 12), name=PICTURE)
    responses = {
        name: keras.Input((None, None, channels), name=name)
        for name, channels in zip(JUDGED_LAYERS, (128, 256), strict=True)
    }
    decisions = {PICTURE: _judge_bands(bands, dtype)}
    decisions |= {name: _judge_responses(inputs, name, dtype) for name, inputs in responses.items()}
    return keras.Model({PICTURE: bands, **responses}, decisions, name="discriminators")


def picture_bands(image: KerasTensor) -> KerasTensor:
    """Returns a picture as its discriminator sees it: the bands of its Haar transform, all about equally strong.

    Args:
        image: RGB in [0, 255], (batch, height, width, 3), both sides multiples of `constants.DISCRIMINATOR_GRID`.

    Returns:
        (batch, height / 2, width / 2, 12).

    Example:
        decisions = build_discriminators()({"picture": picture_bands(image), **vgg(image)})
    """
    bands = haar_bands(image)
    return ops.concatenate([bands[..., :3] / TYPICAL_SUM - 2, bands[..., 3:] / TYPICAL_DETAIL], axis=-1)


def _judge_bands(bands: KerasTensor, dtype: str) -> KerasTensor:
    """Returns the decision at each position of the bands, by a small U-Net (Schönfeld et al. 2020).

    Its poolings are averages, because the gradient of a convolution with strides has a grid, which the network
    would learn.
    """
    fine = _convolve(bands, 32, "picture_fine", dtype)
    middle = _convolve(_halve(fine, dtype), 64, "picture_middle", dtype)
    coarse = _convolve(_halve(middle, dtype), 64, "picture_coarse1", dtype)
    coarse = _convolve(coarse, 64, "picture_coarse2", dtype)
    middle = _convolve(layers.add([_double(coarse, dtype), middle], dtype=dtype), 32, "picture_up1", dtype)
    fine = _convolve(layers.add([_double(middle, dtype), fine], dtype=dtype), 32, "picture_up2", dtype)
    return _decide(fine, "picture_decision")


def _judge_responses(responses: KerasTensor, name: str, dtype: str) -> KerasTensor:
    """Returns the decision at each position of a layer's responses."""
    x = layers.Rescaling(1 / TYPICAL_RESPONSE, dtype=dtype)(responses)
    x = _convolve(x, 64, f"{name}_entry", dtype, kernel_size=1)
    x = _convolve(x, 64, f"{name}_hidden", dtype)
    return _decide(x, f"{name}_decision")


def _convolve(x: KerasTensor, filters: int, name: str, dtype: str, kernel_size: int = 3) -> KerasTensor:
    x = NormalizedConvolution(filters, kernel_size, name=name, dtype=dtype)(x)
    return layers.LeakyReLU(SLOPE, dtype=dtype)(x)


def _decide(x: KerasTensor, name: str) -> KerasTensor:
    """Returns decisions, without a bias, because it would cancel out in `functional.relativistic_loss`."""
    return NormalizedConvolution(1, 3, use_bias=False, name=name, dtype="float32")(x)


def _halve(x: KerasTensor, dtype: str) -> KerasTensor:
    return layers.AveragePooling2D(2, dtype=dtype)(x)


def _double(x: KerasTensor, dtype: str) -> KerasTensor:
    return layers.UpSampling2D(2, dtype=dtype)(x)
