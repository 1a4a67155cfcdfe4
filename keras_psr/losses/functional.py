"""The mathematics of the losses: pure functions of tensors (batch, height, width, channels), float32."""

import keras
from keras import KerasTensor, ops

PHASE_WINDOW = 6
PHASE_STRIDE = 3
"""Window and stride, in periods of the lattice, over which `phase_error` averages; ours, there is no source."""


def mean_squared_error(first: KerasTensor, second: KerasTensor) -> KerasTensor:
    """Squared difference averaged over everything.

    On responses this is the paper's feature loss, ||phi(y') - phi(y)||^2 / (C H W) (Johnson et al. 2016, equation 2);
    on pictures its pixel loss (section 3.2). Both are averaged over the batch.

    Args:
        first: Any shape.
        second: The same shape.

    Returns:
        A scalar.
    """
    return ops.mean(ops.square(first - second))


def mean_absolute_error(first: KerasTensor, second: KerasTensor) -> KerasTensor:
    """Absolute difference averaged over everything (L1; LapSRN and EDSR prefer it to the paper's squared form).

    Args:
        first: Any shape.
        second: The same shape.

    Returns:
        A scalar.
    """
    return ops.mean(ops.abs(first - second))


def total_variation(image: KerasTensor) -> KerasTensor:
    """Squared differences of vertical and of horizontal neighbours, each averaged, summed.

    The paper names the term without a formula; its authors' code sums squared neighbour differences over the batch
    (jcjohnson/fast-neural-style, TotalVariation.lua). Averaging makes the weight independent of picture and batch size.

    Args:
        image: (batch, height, width, channels), height and width at least 2.

    Returns:
        A scalar.
    """
    rows = image[:, 1:] - image[:, :-1]
    columns = image[:, :, 1:] - image[:, :, :-1]
    return ops.mean(ops.square(rows)) + ops.mean(ops.square(columns))


def gram_matrix(responses: KerasTensor) -> KerasTensor:
    """Products of all pairs of channels, averaged over places and divided by the number of channels.

    Which features occur together, wherever they are: the style of a picture, without its content.

    Args:
        responses: (batch, height, width, channels). Products of bfloat16 are rounded to it, which takes half the time;
            those of float16, which they would leave, are computed in float32.

    Returns:
        (batch, channels, channels) float32, symmetric; does not depend on the size of the picture.

    Reference:
        Johnson et al. 2016, equation 3: psi psi^T / (C H W).
    """
    _, height, width, channels = ops.shape(responses)
    dtype = "bfloat16" if keras.backend.standardize_dtype(responses.dtype) == "bfloat16" else "float32"
    features = ops.reshape(ops.cast(responses, dtype), (-1, height * width, channels))
    products = ops.cast(ops.matmul(ops.transpose(features, (0, 2, 1)), features), "float32")
    return products / ops.cast(channels * height * width, "float32")


def feature_error(found: KerasTensor, wanted: KerasTensor, normalization: str = "mean") -> KerasTensor:
    """Squared difference of responses, averaged over everything (Johnson et al. 2016, equation 2).

    Args:
        found: (batch, height, width, channels).
        wanted: The same shape.
        normalization: `energy` divides by the mean square of what is wanted, so that 1 is what a picture without any
            response costs; any other leaves the average as it is.

    Returns:
        A scalar.
    """
    error = mean_squared_error(found, wanted)
    return error / ops.mean(ops.square(wanted)) if normalization == "energy" else error


def gram_error(gram: KerasTensor, target: KerasTensor, normalization: str = "energy") -> KerasTensor:
    """Squared Frobenius norm of the difference of two Gram matrices, averaged over the batch.

    Args:
        gram: (batch, channels, channels).
        target: The same shape, or (1, channels, channels) for one painting.
        normalization: `paper` leaves it so (Johnson et al. 2016, equation 4); `mean` divides by the number of entries,
            as the authors' code does (jcjohnson/fast-neural-style, MSECriterion); `energy` divides by the squared
            norm of the target, so that 1 is what a picture without any response costs, in each layer, for each style.

    Returns:
        A scalar.
    """
    if normalization == "mean":
        return mean_squared_error(gram, target)
    error = ops.mean(ops.sum(ops.square(gram - target), axis=(1, 2)))
    return error if normalization == "paper" else error / ops.mean(ops.sum(ops.square(target), axis=(1, 2)))


def phase_error(output: KerasTensor, target: KerasTensor, period: int) -> KerasTensor:
    """What repeats in the error with the period of the upsampling lattice, and nothing else.

    The error is sorted by its position modulo `period` into period^2 phases and the mean over phases is taken away.
    What is left of each phase is averaged over windows of `PHASE_WINDOW` periods and over the whole crop; the result is
    the mean square of both averages, summed. Texture averages out in a window; a grid does not.

    Args:
        output: (batch, period * height, period * width, channels), height and width at least `PHASE_WINDOW`.
        target: The same shape.
        period: Of the lattice, in pixels: a network's upscaling factor, or the coarsest grid of a style network.

    Returns:
        A scalar.
    """
    error = output - target
    _, height, width, channels = error.shape
    rows, columns = height // period, width // period
    phases = ops.reshape(error, (-1, rows, period, columns, period, channels))
    phases = phases - ops.mean(phases, axis=(2, 4), keepdims=True)
    phases = ops.reshape(ops.transpose(phases, (0, 1, 3, 2, 4, 5)), (-1, rows, columns, period * period * channels))
    windows = ops.average_pool(phases, PHASE_WINDOW, PHASE_STRIDE, padding="valid")
    return ops.mean(ops.square(windows)) + ops.mean(ops.square(ops.mean(phases, axis=(1, 2))))
