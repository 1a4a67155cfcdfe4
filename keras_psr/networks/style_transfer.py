"""The feed-forward networks for style transfer: functional Keras models that keep a picture's size."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from keras_psr.errors import ConfigError
from keras_psr.networks.blocks import dtype_policy

REFLECTION = 40
"""Pixels by which the paper's network pads each side: what its ten unpadded convolutions remove on a grid of 4."""

EXIT_GAIN = 32.0
"""Grey levels per unit of the exit convolution: with 127.5 Adam's first steps overshoot, with 1 the fit is slow."""

MOMENTUM = 0.98
"""Momentum of batch norm's moving statistics: with Keras's 0.99 they lag in fits of about 100 steps."""


def style(*, num_filters: int = 16, num_residual_blocks: int = 5) -> keras.Model:
    """Builds the default network: `johnson2016_style` at half its width, for phones.

    It differs in three ways. It pads with zeros, which never show because tiles are cut with a halo of mirrored pixels
    (`tiling`); the exported graph therefore needs no reflection padding. Its transposed convolutions are 4x4, so that
    the stride divides the kernel (Distill). Its exit is linear in grey levels instead of tanh: it does not saturate and
    keeps all levels in 8 bits.

    Args:
        num_filters: Channels at full resolution; the two lower resolutions have twice and four times as many.
        num_residual_blocks: Residual blocks at a quarter of the resolution.

    Returns:
        A functional model from (batch, height, width, 3) to the same shape, both sides multiples of 4. Its output may
        leave [0, 255] slightly; `pixels.to_uint8` clips it.
    """
    image = layers.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="to_unit_range")(image)
    x = _convolve(x, num_filters, 9, name="entry")
    x = _convolve(x, 2 * num_filters, 3, strides=2, name="downsample1")
    x = _convolve(x, 4 * num_filters, 3, strides=2, name="downsample2")
    for index in range(1, num_residual_blocks + 1):
        branch = _convolve(x, 4 * num_filters, 3, name=f"block{index}_conv1")
        branch = _convolve(branch, 4 * num_filters, 3, relu=False, name=f"block{index}_conv2")
        x = layers.Add(name=f"block{index}_add")([x, branch])
    x = _upsample(x, 2 * num_filters, 4, name="upsample1")
    x = _upsample(x, num_filters, 4, name="upsample2")
    x = layers.Conv2D(3, 9, padding="same", name="exit")(x)
    output = layers.Rescaling(EXIT_GAIN, offset=127.5, dtype="float32", name="to_pixels")(x)
    return keras.Model(image, output, name="style")


def johnson2016_style(*, num_filters: int = 32, num_residual_blocks: int = 5) -> keras.Model:
    """Builds the style network of Johnson et al. 2016, supplement table 1.

    Its layers are reflection padding of 40 pixels, a 9x9 convolution, two 3x3 convolutions of stride 2, residual blocks
    without padding whose skip connection is cropped to fit, two 3x3 transposed convolutions, a 9x9 convolution and a
    tanh scaled to [0, 255]; batch norm and ReLU follow each convolution except the last. Scaling the input to [-1, 1]
    is our choice: the paper does not specify any scaling. The padding grows with the number of blocks, so that the
    output keeps the input's size.

    Args:
        num_filters: Channels at full resolution (the paper: 32); the two lower resolutions have twice and four times
            as many.
        num_residual_blocks: Residual blocks (the paper: 5).

    Returns:
        A functional model from (batch, height, width, 3) to the same shape, both sides multiples of 4 and longer than
        the padding.
    """
    image = layers.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="to_unit_range")(image)
    x = ReflectionPadding2D(REFLECTION * num_residual_blocks // 5, name="reflection")(x)
    x = _convolve(x, num_filters, 9, name="entry")
    x = _convolve(x, 2 * num_filters, 3, strides=2, name="downsample1")
    x = _convolve(x, 4 * num_filters, 3, strides=2, name="downsample2")
    for index in range(1, num_residual_blocks + 1):
        branch = _convolve(x, 4 * num_filters, 3, padding="valid", name=f"block{index}_conv1")
        branch = _convolve(branch, 4 * num_filters, 3, padding="valid", relu=False, name=f"block{index}_conv2")
        x = layers.Add(name=f"block{index}_add")([layers.Cropping2D(2, name=f"block{index}_cut")(x), branch])
    x = _upsample(x, 2 * num_filters, 3, name="upsample1")
    x = _upsample(x, num_filters, 3, name="upsample2")
    x = layers.Conv2D(3, 9, padding="same", name="exit")(x)
    x = layers.Activation("tanh", dtype="float32", name="tanh")(x)
    output = layers.Rescaling(127.5, offset=127.5, dtype="float32", name="to_pixels")(x)
    return keras.Model(image, output, name="johnson2016_style")


STYLE_ARCHITECTURES: dict[str, Callable[..., keras.Model]] = {"style": style, "johnson2016-style": johnson2016_style}
"""Maps the names that `--architecture` accepts with `--style` to builders."""


def build_style_network(
    architecture: str = "style", *, num_filters: int = 16, num_residual_blocks: int = 5, dtype: str = "float32"
) -> keras.Model:
    """Builds a network for style transfer, not fitted yet.

    Args:
        architecture: One of `STYLE_ARCHITECTURES`.
        num_filters: Channels at full resolution, at least 1.
        num_residual_blocks: Residual blocks, at least 1.
        dtype: Keras dtype policy of the hidden layers; the output is always float32.

    Returns:
        A functional model from (batch, height, width, 3) to the same shape.

    Raises:
        ConfigError: The architecture is unknown.

    Example:
        network = build_style_network("johnson2016-style", num_filters=32)
    """
    if architecture not in STYLE_ARCHITECTURES:
        accepted = ", ".join(STYLE_ARCHITECTURES)
        raise ConfigError(f"architecture must be one of {accepted} with --style. Received: {architecture!r}.")
    with dtype_policy(dtype):
        return STYLE_ARCHITECTURES[architecture](num_filters=num_filters, num_residual_blocks=num_residual_blocks)


@keras.saving.register_keras_serializable("keras_psr")
class ReflectionPadding2D(layers.Layer):
    """Pads a picture by mirroring it at its borders, without repeating the border pixel."""

    def __init__(self, padding: int, **kwargs: Any) -> None:
        """Creates the layer.

        Args:
            padding: Pixels added on each side, fewer than the picture's sides have.
            **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Returns pictures (batch, height, width, channels) with 2 * padding more rows and columns."""
        around = (self.padding, self.padding)
        return ops.pad(x, ((0, 0), around, around, (0, 0)), mode="reflect")

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration that Keras saves with the network."""
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable("keras_psr")
class EqualPhases(keras.constraints.Constraint):
    """Constrains the kernel of a transposed convolution of stride 2 so that it draws no grid on flat areas.

    Each of the four output pixels of one input pixel has its own weights. Where the picture is flat, a style network
    would use the difference between their sums to paint a texture with a period of two pixels. The constraint keeps
    these sums equal for each pair of channels: flat areas stay flat, as after nearest-neighbour upsampling. It is our
    addition; the paper has no such constraint.

    The class is registered because older saved networks name it in their files.
    """

    def __call__(self, kernel: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the nearest kernel whose phases have equal sums, (size, size, outputs, inputs) with an even size."""
        size, _, outputs, inputs = kernel.shape
        phases = ops.reshape(kernel, (size // 2, 2, size // 2, 2, outputs, inputs))
        means = ops.mean(phases, axis=(0, 2), keepdims=True)
        return ops.reshape(phases - means + ops.mean(means, axis=(1, 3), keepdims=True), kernel.shape)


def _convolve(
    x: keras.KerasTensor,
    filters: int,
    size: int,
    *,
    name: str,
    strides: int = 1,
    padding: str = "same",
    relu: bool = True,
) -> keras.KerasTensor:
    """Applies a convolution, batch norm and, unless `relu` is false, ReLU."""
    x = layers.Conv2D(filters, size, strides=strides, padding=padding, name=name)(x)
    x = _normalize(x, name=f"{name}_norm")
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _upsample(x: keras.KerasTensor, filters: int, size: int, *, name: str) -> keras.KerasTensor:
    """Applies a transposed convolution that doubles the resolution, batch norm and ReLU."""
    upsampling = layers.Conv2DTranspose(filters, size, strides=2, padding="same", name=name)
    x = upsampling(x)
    if size % 2 == 0:
        # The optimizer reads the constraint from the variable. In the layer's configuration it would be saved with the
        # network, which plain Keras could then not load.
        upsampling.kernel.constraint = EqualPhases()
    x = _normalize(x, name=f"{name}_norm")
    return layers.ReLU(name=f"{name}_relu")(x)


def _normalize(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Applies batch norm, synchronised over all replicas with TensorFlow, the only backend that can."""
    synchronized = keras.backend.backend() == "tensorflow"
    return layers.BatchNormalization(momentum=MOMENTUM, synchronized=synchronized, name=name)(x)
