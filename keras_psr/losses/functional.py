"""The mathematics of the losses: pure functions of float32 tensors (batch, height, width, channels)."""

import keras
from keras import KerasTensor, ops

from keras_psr.constants import CHROMA_WEIGHTS, LUMA_WEIGHTS

TEXTURE_WINDOW = 5
"""Side in pixels of the windows in which `texture_map` measures how much a picture varies."""

TEXTURE_REACH = 5
"""Pixels around which `texture_map` looks for a smoother window: just enough for one that an edge does not touch."""

TEXTURE_DEVIATION = 3.0
"""Standard deviation of fine luma, in grey levels, that counts as half a texture in `texture_map`.

Noise of a photograph has about 1, and half of all windows of photographs have more than 6.
"""

SQUARINGS = 6
"""Number of squarings in `spectral_norm`: its result is then at most 4% too large for 64 columns."""

PHASE_WINDOW = 6
PHASE_STRIDE = 3
"""Window and stride, in periods of the lattice, over which `phase_error` averages. These values are our own choice."""


def mean_squared_error(first: KerasTensor, second: KerasTensor) -> KerasTensor:
    """Returns the squared difference of two tensors, averaged over all elements.

    For responses this is the paper's feature loss, ||phi(y') - phi(y)||^2 / (C H W) (Johnson et al. 2016, equation 2);
    for pictures it is the paper's pixel loss (section 3.2). Both are averaged over the batch.

    Args:
        first: A tensor of any shape.
        second: A tensor of the same shape.

    Returns:
        A scalar.

    Example:
        loss = mean_squared_error(network(low_res), high_res)
    """
    return ops.mean(ops.square(first - second))


def mean_absolute_error(first: KerasTensor, second: KerasTensor) -> KerasTensor:
    """Returns the absolute difference of two tensors, averaged over all elements.

    LapSRN and EDSR prefer this L1 form to the paper's squared form.

    Args:
        first: A tensor of any shape.
        second: A tensor of the same shape.

    Returns:
        A scalar.

    Example:
        loss = mean_absolute_error(network(low_res), high_res)
    """
    return ops.mean(ops.abs(first - second))


def total_variation(image: KerasTensor) -> KerasTensor:
    """Returns the mean squared difference of vertical neighbours plus that of horizontal neighbours.

    The paper names the term but gives no formula; its authors' code sums squared differences over the batch
    (jcjohnson/fast-neural-style, TotalVariation.lua). Averaging makes the weight independent of picture and batch size.

    Args:
        image: (batch, height, width, channels), height and width at least 2.

    Returns:
        A scalar.

    Example:
        roughness = total_variation(output)
    """
    rows = image[:, 1:] - image[:, :-1]
    columns = image[:, :, 1:] - image[:, :, :-1]
    return ops.mean(ops.square(rows)) + ops.mean(ops.square(columns))


def chroma(image: KerasTensor) -> KerasTensor:
    """Returns how far each pixel is from grey: Cb and Cr, without their offset of 128 (JFIF).

    Args:
        image: RGB, (batch, height, width, 3).

    Returns:
        (batch, height, width, 2); 0 for grey.

    Example:
        speckles = total_variation(chroma(output))
    """
    return ops.matmul(image, ops.transpose(ops.convert_to_tensor(CHROMA_WEIGHTS, image.dtype)))


def gram_matrix(responses: KerasTensor) -> KerasTensor:
    """Returns the products of all pairs of channels, averaged over positions and divided by the number of channels.

    The matrix tells which features occur together, regardless of position: the style of a picture without its content.

    Args:
        responses: (batch, height, width, channels). Products of bfloat16 are rounded to bfloat16, which takes half the
            time; products of float16 are computed in float32, because they would overflow.

    Returns:
        (batch, channels, channels) float32, symmetric. It does not depend on the size of the picture.

    Reference:
        Johnson et al. 2016, equation 3: psi psi^T / (C H W).

    Example:
        gram = gram_matrix(build_vgg(["relu2_2"])(image)["relu2_2"])
    """
    _, height, width, channels = ops.shape(responses)
    dtype = "bfloat16" if keras.backend.standardize_dtype(responses.dtype) == "bfloat16" else "float32"
    features = ops.reshape(ops.cast(responses, dtype), (-1, height * width, channels))
    products = ops.cast(ops.matmul(ops.transpose(features, (0, 2, 1)), features), "float32")
    return products / ops.cast(channels * height * width, "float32")


def feature_error(found: KerasTensor, wanted: KerasTensor, normalization: str = "mean") -> KerasTensor:
    """Returns the squared difference of responses, averaged over all elements (Johnson et al. 2016, equation 2).

    Args:
        found: Responses to the output, (batch, height, width, channels).
        wanted: Responses to the target, the same shape.
        normalization: `energy` divides by the mean square of `wanted`, so that an output without any response costs 1;
            any other value leaves the average as it is.

    Returns:
        A scalar.

    Example:
        loss = feature_error(vgg(output)["relu2_2"], vgg(target)["relu2_2"])
    """
    error = mean_squared_error(found, wanted)
    return error / ops.mean(ops.square(wanted)) if normalization == "energy" else error


def gram_error(gram: KerasTensor, target: KerasTensor, normalization: str = "energy") -> KerasTensor:
    """Returns the squared Frobenius norm of the difference of two Gram matrices, averaged over the batch.

    Args:
        gram: (batch, channels, channels).
        target: The same shape, or (1, channels, channels) for one painting.
        normalization: `paper` leaves the norm as it is (Johnson et al. 2016, equation 4); `mean` divides it by the
            number of entries, as the authors' code does (jcjohnson/fast-neural-style, MSECriterion); `energy` divides
            it by the squared norm of the target, so that an output without any response costs 1 in every layer and
            for every style.

    Returns:
        A scalar.

    Example:
        loss = gram_error(gram_matrix(found), gram_matrix(wanted))
    """
    if normalization == "mean":
        return mean_squared_error(gram, target)
    error = ops.mean(ops.sum(ops.square(gram - target), axis=(1, 2)))
    return error if normalization == "paper" else error / ops.mean(ops.sum(ops.square(target), axis=(1, 2)))


def phase_error(output: KerasTensor, target: KerasTensor, period: int) -> KerasTensor:
    """Returns the part of the error that repeats with the period of the upsampling lattice.

    The error is sorted by position modulo `period` into period^2 phases, and the mean over phases is subtracted. What
    remains of each phase is averaged over windows of `PHASE_WINDOW` periods and over the whole crop; the result is the
    sum of the mean squares of these two averages. Texture averages out in a window; a grid does not.

    Args:
        output: (batch, period * height, period * width, channels), height and width at least `PHASE_WINDOW`.
        target: The same shape.
        period: Period of the lattice, in pixels: a super-resolution network's scale, or the coarsest grid of a style
            network.

    Returns:
        A scalar.

    Example:
        loss = phase_error(output, target, period=4)
    """
    error = output - target
    _, height, width, channels = error.shape
    rows, columns = height // period, width // period
    phases = ops.reshape(error, (-1, rows, period, columns, period, channels))
    phases = phases - ops.mean(phases, axis=(2, 4), keepdims=True)
    phases = _stack_phases(phases)
    windows = ops.average_pool(phases, PHASE_WINDOW, PHASE_STRIDE, padding="valid")
    return ops.mean(ops.square(windows)) + ops.mean(ops.square(ops.mean(phases, axis=(1, 2))))


def _stack_phases(cells: KerasTensor) -> KerasTensor:
    """Makes channels of the phases: (batch, rows, period, columns, period, channels) to (batch, rows, columns, all)."""
    _, rows, period, columns, _, channels = cells.shape
    return ops.reshape(ops.transpose(cells, (0, 1, 3, 2, 4, 5)), (-1, rows, columns, period * period * channels))


def relativistic_loss(better: KerasTensor, worse: KerasTensor) -> KerasTensor:
    """Returns how far a discriminator's decisions are from preferring one of two pictures at each position.

    Both show the same scene, so what is in it cancels, and how real it looks remains. A discriminator of crops on our
    outputs learned more from 16 steps of this loss than from 96 of the hinge loss, which judges each picture by itself.

    Args:
        better: Decisions for the pictures that should be preferred, of any shape.
        worse: Decisions for the others, the same shape.

    Returns:
        The mean of log(1 + exp(worse - better)); log(2) for decisions that are the same.

    Reference:
        Jolicoeur-Martineau 2019, "The relativistic discriminator", section 4.1, with the standard function f.

    Example:
        loss = relativistic_loss(discriminator(high_res), discriminator(network(low_res)))
    """
    return ops.mean(ops.softplus(worse - better))


def spectral_norm(matrix: KerasTensor) -> KerasTensor:
    """Returns the largest singular value of a matrix, or slightly more.

    It is the Schatten norm of a high order, trace((M^T M)^n)^(1 / 2n), with n = 2^`SQUARINGS`. Unlike the usual power
    iteration (Miyato et al. 2018), it needs no vector that is kept from step to step.

    Args:
        matrix: float32 (rows, columns), not all 0. Few columns make it fast.

    Returns:
        A scalar, at most columns^(1 / 2n) times the largest singular value.

    Example:
        kernel = kernel / spectral_norm(keras.ops.reshape(kernel, (-1, kernel.shape[-1])))
    """
    power = ops.matmul(ops.transpose(matrix), matrix)
    norm = ops.trace(power)
    power = power / norm
    for squaring in range(1, SQUARINGS + 1):
        power = ops.matmul(power, power)
        growth = ops.trace(power)
        power = power / growth  # which keeps it within the range of float32
        norm = norm * growth ** (0.5**squaring)
    return ops.sqrt(norm)


def haar_bands(image: KerasTensor) -> KerasTensor:
    """Returns the bands of an orthonormal Haar transform, at half the size.

    Args:
        image: (batch, height, width, channels), height and width even.

    Returns:
        (batch, height / 2, width / 2, 4 * channels): first the channels' sums over blocks of 2x2 pixels, then what
        changes along rows, along columns, and along both; each divided by 2.

    Example:
        detail = haar_bands(output)[..., 3:]
    """
    _, height, width, channels = image.shape
    blocks = ops.reshape(image, (-1, height // 2, 2, width // 2, 2, channels))
    sums, differences = blocks[:, :, :, :, 0] + blocks[:, :, :, :, 1], blocks[:, :, :, :, 0] - blocks[:, :, :, :, 1]
    bands = [half[:, :, 0] + sign * half[:, :, 1] for sign in (1, -1) for half in (sums, differences)]
    return ops.concatenate(bands, axis=-1) / 2


def without_lattice(image: KerasTensor, weights: KerasTensor, period: int) -> KerasTensor:
    """Returns a picture without what repeats with a period: from each phase, its mean in a window is subtracted.

    Windows have `PHASE_WINDOW` periods on a side, as in `phase_error`, because a mesh next to one edge and its negative
    next to another would cancel out in a mean over the whole picture.

    Args:
        image: (batch, height, width, channels), height and width multiples of the period.
        weights: How much each pixel may change, 0 or more, (batch, height, width, 1). Means are weighted by them too.
        period: Period of the upsampling lattice, in pixels.

    Returns:
        The picture minus the weights times the mean over the window around each pixel, of all pixels that have the same
        position in the period.

    Example:
        gradient = without_lattice(gradient, texture_map(high_res), period=4)
    """
    _, height, width, channels = image.shape
    rows, columns = height // period, width // period

    def window_means(values: KerasTensor) -> KerasTensor:
        phases = _stack_phases(ops.reshape(values, (-1, rows, period, columns, period, channels)))
        means = ops.average_pool(phases, PHASE_WINDOW, 1, padding="same")
        means = ops.reshape(means, (-1, rows, columns, period, period, channels))
        return ops.reshape(ops.transpose(means, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels))

    weights = weights * ops.ones_like(image)
    return image - weights * ops.divide_no_nan(window_means(image), window_means(weights))


def texture_map(image: KerasTensor) -> KerasTensor:
    """Returns where a picture has texture: nearly 0 in smooth areas, and also at edges next to one.

    Args:
        image: RGB in [0, 255], (batch, height, width, 3).

    Returns:
        v / (v + `TEXTURE_DEVIATION`^2), (batch, height, width, 1), where v is the local variance of luma without its
        local mean, in the smoothest window that is within reach of `TEXTURE_REACH` pixels.

    Example:
        texture = texture_map(high_res)
    """

    def blur(values: KerasTensor) -> KerasTensor:
        return ops.average_pool(values, TEXTURE_WINDOW, 1, padding="same")

    luma = ops.matmul(image, ops.reshape(ops.convert_to_tensor(LUMA_WEIGHTS, image.dtype), (3, 1))) / 255
    variance = blur(ops.square(luma - blur(luma)))
    variance = -ops.max_pool(-variance, 2 * TEXTURE_REACH + 1, 1, padding="same")
    return variance / (variance + TEXTURE_DEVIATION**2)
