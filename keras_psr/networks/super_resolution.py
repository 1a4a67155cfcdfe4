"""The super-resolution networks: functional Keras models from RGB to RGB of any size, float32 in [0, 255], NHWC."""

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
    """Builds the super-resolution network of Johnson et al. 2016, supplement table 2.

    Its layers are a 9x9 convolution, residual blocks, one 3x3 transposed convolution of stride 2 per factor of two, a
    9x9 convolution and a tanh scaled to [0, 255]; batch norm and ReLU follow each convolution except the last. The
    paper's table has four residual blocks; our default is five. Scaling the input to [-1, 1] is our choice: the paper
    does not specify any scaling.

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
    """Builds the default network: `johnson2016` with inexpensive improvements from later work.

    It differs in three ways. It has no batch norm (EDSR). Its transposed convolutions are 4x4, so that the stride
    divides the kernel (LapSRN, Distill). It adds its output to the bilinearly upsampled input (MSRResNet) through a
    linear exit that starts at zero, so that a network before its fit upsamples bilinearly and colours cannot drift far.

    Args:
        scale: Upscaling factor: 2, 4 or 8.
        num_filters: Channels of every hidden layer.
        num_residual_blocks: Residual blocks on the low-resolution grid.

    Returns:
        A functional model from (batch, height, width, 3) to (batch, scale * height, scale * width, 3). Its output may
        leave [0, 255] slightly; `pixels.to_uint8` clips it.
    """
    image = layers.Input((None, None, 3), name="image")
    x = _low_res_features(image, 9, num_filters, num_residual_blocks)
    for index in range(1, int(log2(scale)) + 1):
        upsampling = layers.Conv2DTranspose(
            num_filters, 4, strides=2, padding="same", activation="relu", name=f"upsample{index}", **_he_normal(x, 2)
        )
        x = upsampling(x)
    # In grey levels, not in [-1, 1]: a gain of 127.5 after 5,184 inputs would make Adam's first steps overshoot.
    detail = layers.Conv2D(3, 9, padding="same", kernel_initializer="zeros", name="exit")(x)
    return keras.Model(image, _enlarged_plus(image, detail, scale), name=f"residual_x{scale}")


def fast(*, scale: int = 4, num_filters: int = 32, num_residual_blocks: int = 5) -> keras.Model:
    """Builds the network for phones: `residual` with all hidden layers on the low-resolution grid.

    In `residual`, two thirds of the arithmetic come after the first upsampling. Here a single transposed convolution at
    the end produces RGB. Its stride is the scale and its kernel twice that (FSRCNN), so that each output pixel depends
    on neighbouring low-resolution pixels. The entry is 5x5 instead of 9x9, because the blocks after it widen the
    receptive field enough.

    Args:
        scale: Upscaling factor: 2, 4 or 8.
        num_filters: Channels of every hidden layer. In XNNPACK, 32 are faster than 24, and 40 as slow as 48.
        num_residual_blocks: Residual blocks on the low-resolution grid.

    Returns:
        A functional model from (batch, height, width, 3) to (batch, scale * height, scale * width, 3). Its output may
        leave [0, 255] slightly; `pixels.to_uint8` clips it.

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
"""Maps the names that `--architecture` accepts to builders."""


def build_network(
    architecture: str = "residual",
    *,
    scale: int = 4,
    num_filters: int = 64,
    num_residual_blocks: int = 5,
    dtype: str = "float32",
) -> keras.Model:
    """Builds a network for super-resolution, not fitted yet.

    Args:
        architecture: One of `ARCHITECTURES`.
        scale: Upscaling factor: 2, 4 or 8.
        num_filters: Channels of every hidden layer, at least 1.
        num_residual_blocks: Residual blocks on the low-resolution grid, at least 1.
        dtype: Keras dtype policy of the hidden layers; the output is always float32.

    Returns:
        A functional model from (batch, height, width, 3) to (batch, scale * height, scale * width, 3).

    Raises:
        ConfigError: An argument is not one of the accepted values.

    Example:
        network = keras_psr.build_network("fast", scale=2, num_filters=32)
        network.summary()
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
    """Applies the layers of `residual` and `fast` on the low-resolution grid: entry convolution and residual blocks."""
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
    """Adds the network's detail to the bilinearly upsampled input, in float32."""
    enlarged = layers.UpSampling2D(scale, interpolation="bilinear", dtype="float32", name="enlarged")(image)
    return layers.Add(dtype="float32", name="output")([enlarged, detail])


def _he_normal(x: keras.KerasTensor, kernel_size: int, gain: float = 1.0) -> dict[str, keras.Initializer]:
    """Returns He initialisation (He et al. 2015) times `gain` for a layer on `x` with the given kernel size.

    It is written as a normal distribution, because Keras 3.15 saves its own He initializers in a form that older
    versions cannot load.
    """
    fan_in = kernel_size**2 * x.shape[-1]
    return {"kernel_initializer": keras.initializers.RandomNormal(stddev=gain * (2 / fan_in) ** 0.5)}


def _convolution_norm_relu(x: keras.KerasTensor, convolution: layers.Layer) -> keras.KerasTensor:
    """Applies a convolution, batch norm over the batch of all devices, and ReLU."""
    x = layers.BatchNormalization(synchronized=True, name=f"{convolution.name}_norm")(convolution(x))
    return layers.ReLU(name=f"{convolution.name}_relu")(x)
