"""The feed-forward networks of style transfer: functional Keras models from a picture to a picture of the same size."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from keras_psr.errors import ConfigError
from keras_psr.networks.blocks import dtype_policy

REFLECTION = 40
"""Pixels by which the paper's network pads each side: what its ten unpadded convolutions take away on a grid of 4."""

EXIT_GAIN = 32.0
"""Grey levels for one unit of the exit convolution: with 127.5 Adam's first steps overshoot, with 1 they creep."""

MOMENTUM = 0.98
"""Of the statistics that batch norm uses after the fit: with Keras's 0.99 they lag behind in fits of some 100 steps."""


def style(*, num_filters: int = 16, num_residual_blocks: int = 5) -> keras.Model:
    """The default network: the shape of `johnson2016_style` at half its width, made for phones.

    Departures: zero padding, which never shows because tiles are cut with a halo of mirrored pixels (`tiling`), so that
    the reflection stays outside the exported graph; 4x4 transposed convolutions, whose kernel the stride divides
    (Distill); a linear exit in grey levels in place of tanh, which neither saturates nor loses levels in 8 bits.

    Args:
        num_filters: Channels at full size; the two smaller sizes have twice and four times as many.
        num_residual_blocks: Residual blocks on the grid of 4 pixels.

    Returns:
        A functional model (batch, height, width, 3) to the same, sides multiples of 4. Its output may leave [0, 255] a
        little; `pixels.to_uint8` clips.
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
    """The style network of Johnson et al. 2016, supplement table 1.

    Reflection padding of 40 pixels, 9x9 convolution, two 3x3 convolutions of stride 2, residual blocks without padding
    whose identity is cut to fit, two 3x3 transposed convolutions, 9x9 convolution and a tanh scaled to [0, 255]; batch
    norm and ReLU after each but the last. Input scaling to [-1, 1] is ours: the paper does not state any. With another
    number of blocks than five the padding changes with them, so that the size stays.

    Args:
        num_filters: Channels at full size (the paper: 32); the two smaller sizes have twice and four times as many.
        num_residual_blocks: Residual blocks (the paper: 5).

    Returns:
        A functional model (batch, height, width, 3) to the same, sides multiples of 4 and longer than the padding.
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
"""Builders by the name that `--architecture` takes beside `--style`."""


def build_style_network(
    architecture: str = "style", *, num_filters: int = 16, num_residual_blocks: int = 5, dtype: str = "float32"
) -> keras.Model:
    """Builds an untrained network.

    Args:
        architecture: One of `STYLE_ARCHITECTURES`.
        num_filters: Channels at full size, at least 1.
        num_residual_blocks: At least 1.
        dtype: Keras dtype policy of the hidden layers; the output is float32 under any.

    Returns:
        A functional model from (batch, height, width, 3) to the same.

    Raises:
        ConfigError: The architecture is unknown.
    """
    if architecture not in STYLE_ARCHITECTURES:
        accepted = ", ".join(STYLE_ARCHITECTURES)
        raise ConfigError(f"architecture must be one of {accepted} beside --style. Received: {architecture!r}.")
    with dtype_policy(dtype):
        return STYLE_ARCHITECTURES[architecture](num_filters=num_filters, num_residual_blocks=num_residual_blocks)


@keras.saving.register_keras_serializable("keras_psr")
class ReflectionPadding2D(layers.Layer):
    """Mirrors a picture beyond its borders, the border pixel not repeated."""

    def __init__(self, padding: int, **kwargs: Any) -> None:
        """Pads each side by `padding` pixels; sides must be longer than that."""
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """From (batch, height, width, channels) to 2 * padding more rows and columns."""
        around = (self.padding, self.padding)
        return ops.pad(x, ((0, 0), around, around, (0, 0)), mode="reflect")

    def get_config(self) -> dict[str, Any]:
        """What the file of a network keeps of the layer."""
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable("keras_psr")
class EqualPhases(keras.constraints.Constraint):
    """Keeps the kernel of a transposed convolution of stride 2 from making a grid of nothing.

    Each of the four pixels that it makes of one has weights of its own. Where the picture is flat, a style network
    would paint the difference of their sums, a pattern of two pixels, for it has nothing else to make a texture of. So
    the sums, for each pair of channels, are kept equal: what is flat stays flat, as behind nearest-neighbour
    enlargement. The paper's table has no such constraint; the idea is ours.

    It is registered because networks that were saved before it belonged to the fit alone name it in their files.
    """

    def __call__(self, kernel: keras.KerasTensor) -> keras.KerasTensor:
        """The nearest kernel (size, size, outputs, inputs), size even, whose phases have equal sums."""
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
    """The paper's convolution, batch norm and ReLU."""
    x = layers.Conv2D(filters, size, strides=strides, padding=padding, name=name)(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, synchronized=True, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _upsample(x: keras.KerasTensor, filters: int, size: int, *, name: str) -> keras.KerasTensor:
    """A transposed convolution to twice the size, batch norm and ReLU."""
    upsampling = layers.Conv2DTranspose(filters, size, strides=2, padding="same", name=name)
    x = upsampling(x)
    if size % 2 == 0:
        # The optimizer reads it from the variable. In the layer's configuration it would be saved with the network, and
        # plain Keras could not load that.
        upsampling.kernel.constraint = EqualPhases()
    x = layers.BatchNormalization(momentum=MOMENTUM, synchronized=True, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
