"""The feed-forward networks, as functional Keras models that take and give RGB in [0, 255], float32, NHWC, any size."""

from collections.abc import Callable
from math import log2

import keras
from keras import layers

from keras_psr.constants import SCALES
from keras_psr.errors import ConfigError
from keras_psr.networks.blocks import dtype_policy

RESIDUAL_BRANCH_GAIN = 0.1
"""Initial gain of a residual branch without batch norm (ESRGAN supplement and BasicSR: 0.1)."""


def johnson2016(*, scale: int = 4, num_filters: int = 64, num_residual_blocks: int = 5) -> keras.Model:
    """The super-resolution network of Johnson et al. 2016, supplement table 2.

    9x9 convolution, residual blocks, one stride-1/2 3x3 transposed convolution per factor of two, 9x9 convolution and
    a tanh scaled to [0, 255]; batch norm and ReLU after each but the last. The paper's table has four residual blocks;
    five are this project's default. Input scaling to [-1, 1] is ours: the paper does not state any.

    Args:
        scale: Upscaling factor: 2, 4 or 8.
        num_filters: Channels of every hidden layer (the paper: 64).
        num_residual_blocks: Residual blocks on the low-resolution grid (the paper: 4).

    Returns:
        A functional model from (batch, height, width, 3) to (batch, scale * height, scale * width, 3).
    """
    image = layers.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="to_unit_range")(image)
    x = _convolution_norm_relu(x, layers.Conv2D(num_filters, 9, padding="same", name="entry"))
    for index in range(1, num_residual_blocks + 1):
        name = f"block{index}"
        branch = layers.Conv2D(num_filters, 3, padding="same", name=f"{name}_conv1")
        branch = _convolution_norm_relu(x, branch)
        branch = layers.Conv2D(num_filters, 3, padding="same", name=f"{name}_conv2")(branch)
        branch = layers.BatchNormalization(synchronized=True, name=f"{name}_conv2_norm")(branch)
        x = layers.Add(name=f"{name}_add")([x, branch])
    for index in range(1, int(log2(scale)) + 1):
        upsampling = layers.Conv2DTranspose(num_filters, 3, strides=2, padding="same", name=f"upsample{index}")
        x = _convolution_norm_relu(x, upsampling)
    x = layers.Conv2D(3, 9, padding="same", name="exit")(x)
    x = layers.Activation("tanh", dtype="float32", name="tanh")(x)
    output = layers.Rescaling(127.5, offset=127.5, dtype="float32", name="to_pixels")(x)
    return keras.Model(image, output, name=f"johnson2016_x{scale}")


def residual(*, scale: int = 4, num_filters: int = 64, num_residual_blocks: int = 5) -> keras.Model:
    """The default network: the shape of `johnson2016` with the later field's cheap improvements.

    Departures: no batch norm (EDSR); 4x4 transposed convolutions, whose kernel the stride divides (LapSRN, Distill);
    the network adds to a bilinearly enlarged input (MSRResNet), through a linear exit that starts at zero, so an
    unfitted network is the bilinear enlargement and colours cannot drift far.

    Args:
        scale: Upscaling factor: 2, 4 or 8.
        num_filters: Channels of every hidden layer.
        num_residual_blocks: Residual blocks on the low-resolution grid.

    Returns:
        A functional model from (batch, height, width, 3) to (batch, scale * height, scale * width, 3). Its output may
        leave [0, 255] a little; `pixels.to_uint8` clips.
    """
    image = layers.Input((None, None, 3), name="image")
    x = _low_res_features(image, 9, num_filters, num_residual_blocks)
    for index in range(1, int(log2(scale)) + 1):
        upsampling = layers.Conv2DTranspose(
            num_filters, 4, strides=2, padding="same", activation="relu", name=f"upsample{index}", **_he_normal(x, 2)
        )
        x = upsampling(x)
    # In grey levels, not in [-1, 1]: a gain of 127.5 behind 5,184 inputs makes Adam's first steps overshoot.
    detail = layers.Conv2D(3, 9, padding="same", kernel_initializer="zeros", name="exit")(x)
    return keras.Model(image, _enlarged_plus(image, detail, scale), name=f"residual_x{scale}")


def fast(*, scale: int = 4, num_filters: int = 32, num_residual_blocks: int = 5) -> keras.Model:
    """The network for phones: `residual` without a layer between the low-resolution grid and the output's.

    In `residual` two thirds of the arithmetic come after the first upsampling. Here one transposed convolution at the
    end goes straight to RGB, its stride the scale and its kernel twice that (FSRCNN), so that neighbouring
    low-resolution pixels share each output pixel. The entry is 5x5, not 9x9: the blocks behind it see enough.

    Args:
        scale: Upscaling factor: 2, 4 or 8.
        num_filters: Channels of every hidden layer. In XNNPACK 32 are faster than 24, and 40 as slow as 48.
        num_residual_blocks: Residual blocks on the low-resolution grid.

    Returns:
        A functional model from (batch, height, width, 3) to (batch, scale * height, scale * width, 3). Its output may
        leave [0, 255] a little; `pixels.to_uint8` clips.

    Reference:
        Dong et al. 2016, Accelerating the Super-Resolution Convolutional Neural Network.
    """
    image = layers.Input((None, None, 3), name="image")
    x = _low_res_features(image, 5, num_filters, num_residual_blocks)
    detail = layers.Conv2DTranspose(
        3, 2 * scale, strides=scale, padding="same", kernel_initializer="zeros", name="exit"
    )(x)
    return keras.Model(image, _enlarged_plus(image, detail, scale), name=f"fast_x{scale}")


ARCHITECTURES: dict[str, Callable[..., keras.Model]] = {"johnson2016": johnson2016, "residual": residual, "fast": fast}
"""Builders by the name that `--architecture` takes."""


def build_network(
    architecture: str = "residual",
    *,
    scale: int = 4,
    num_filters: int = 64,
    num_residual_blocks: int = 5,
    dtype: str = "float32",
) -> keras.Model:
    """Builds an untrained network.

    Args:
        architecture: One of `ARCHITECTURES`.
        scale: Upscaling factor: 2, 4 or 8.
        num_filters: Channels of every hidden layer, at least 1.
        num_residual_blocks: Residual blocks on the low-resolution grid, at least 1.
        dtype: Keras dtype policy of the hidden layers; the output is float32 under any.

    Returns:
        A functional model from (batch, height, width, 3) to (batch, scale * height, scale * width, 3).

    Raises:
        ConfigError: An argument is outside what is accepted.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"architecture must be one of {', '.join(ARCHITECTURES)}. Received: {architecture!r}.")
    if scale not in SCALES:
        raise ConfigError(f"scale must be one of 2, 4, 8 (a power of two). Received: {scale}.")
    for name, value in {"num_filters": num_filters, "num_residual_blocks": num_residual_blocks}.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1. Received: {value}.")
    with dtype_policy(dtype):
        return ARCHITECTURES[architecture](
            scale=scale, num_filters=num_filters, num_residual_blocks=num_residual_blocks
        )


def _low_res_features(
    image: keras.KerasTensor, entry_size: int, num_filters: int, num_residual_blocks: int
) -> keras.KerasTensor:
    """The part of `residual` and `fast` on the low-resolution grid: entry convolution and residual blocks."""
    x = layers.Rescaling(1 / 127.5, offset=-1, name="to_unit_range")(image)
    entry = layers.Conv2D(
        num_filters, entry_size, padding="same", activation="relu", name="entry", **_he_normal(x, entry_size)
    )
    x = entry(x)
    for index in range(1, num_residual_blocks + 1):
        name = f"block{index}"
        branch = layers.Conv2D(
            num_filters, 3, padding="same", activation="relu", name=f"{name}_conv1", **_he_normal(x, 3)
        )(x)
        branch = layers.Conv2D(
            num_filters, 3, padding="same", name=f"{name}_conv2", **_he_normal(x, 3, RESIDUAL_BRANCH_GAIN)
        )(branch)
        x = layers.Add(name=f"{name}_add")([x, branch])
    return x


def _enlarged_plus(image: keras.KerasTensor, detail: keras.KerasTensor, scale: int) -> keras.KerasTensor:
    """The bilinear enlargement of the input plus what the network found, in float32."""
    enlarged = layers.UpSampling2D(scale, interpolation="bilinear", dtype="float32", name="enlarged")(image)
    return layers.Add(dtype="float32", name="output")([enlarged, detail])


def _he_normal(x: keras.KerasTensor, kernel_size: int, gain: float = 1.0) -> dict[str, keras.Initializer]:
    """He initialisation (He et al. 2015) times `gain`, for a layer on `x` whose outputs read kernel_size^2 pixels each.

    Spelled out as a normal distribution, because Keras 3.15 saves its own He initializers in a form that older ones do
    not load.
    """
    fan_in = kernel_size**2 * x.shape[-1]
    return {"kernel_initializer": keras.initializers.RandomNormal(stddev=gain * (2 / fan_in) ** 0.5)}


def _convolution_norm_relu(x: keras.KerasTensor, convolution: layers.Layer) -> keras.KerasTensor:
    """The paper's convolution, batch norm over the batch of all devices, ReLU."""
    x = layers.BatchNormalization(synchronized=True, name=f"{convolution.name}_norm")(convolution(x))
    return layers.ReLU(name=f"{convolution.name}_relu")(x)
