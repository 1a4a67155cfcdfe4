"""Metrics of one picture: PSNR and SSIM against a reference, and how strongly a grid or blocks show."""

import math
from collections.abc import Sequence

import numpy as np

from keras_psr.constants import CHROMA_WEIGHTS
from keras_psr.errors import ConfigError
from keras_psr.images.pixels import crop_to_multiple, rgb_to_y

_SSIM_WINDOW = 11

_JPEG_BLOCK = 8
"""Side of JPEG's blocks in pixels; twice that for colour, which most files store at half the resolution (4:2:0)."""


def psnr_y(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Returns the peak signal-to-noise ratio of the luma (BT.601 studio range, peak 255).

    Args:
        image: uint8 RGB, (height, width, 3).
        reference: The original, of the same shape and dtype.
        border: Pixels shaved off each side before comparing; published tables shave `scale`.

    Returns:
        The ratio in decibels; infinity if nothing differs.

    Raises:
        ConfigError: The pictures cannot be compared, or nothing is left inside the border.

    Example:
        psnr = psnr_y(keras_psr.load("x4")(low_res), high_res, border=4)
    """
    return _psnr(*map(rgb_to_y, _shave(image, reference, border)))


def psnr_rgb(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Returns the peak signal-to-noise ratio over all three channels (peak 255).

    Args:
        image: uint8 RGB, (height, width, 3).
        reference: The original, of the same shape and dtype.
        border: Pixels shaved off each side before comparing.

    Returns:
        The ratio in decibels; infinity if nothing differs.

    Raises:
        ConfigError: The pictures cannot be compared, or nothing is left inside the border.

    Example:
        psnr = psnr_rgb(image, reference, border=0)
    """
    return _psnr(*_shave(image, reference, border))


def ssim_y(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Returns the structural similarity of the luma: 11x11 Gaussian window, sigma 1.5, K1 .01, K2 .03, data range 255.

    The mean is over the pixels whose whole window lies inside the picture, as in the authors' code.

    Args:
        image: uint8 RGB, (height, width, 3).
        reference: The original, of the same shape and dtype.
        border: Pixels shaved off each side before comparing; published tables shave `scale`.

    Returns:
        The similarity: 1 for equal pictures, else less.

    Raises:
        ConfigError: The pictures cannot be compared, or less than one window is left inside the border.

    Reference:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity.

    Example:
        ssim = ssim_y(keras_psr.load("x4")(low_res), high_res, border=4)
    """
    from skimage.metrics import structural_similarity

    image_y, reference_y = map(rgb_to_y, _shave(image, reference, border, at_least=_SSIM_WINDOW))
    protocol = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return float(structural_similarity(image_y, reference_y, **protocol))


def lattice_ratio(image: np.ndarray, scale: int) -> float:
    """Returns the strength of an upsampling grid: the luma's spectral power on the lattice, about 1 without a grid.

    A network that upsamples by `scale` can leave a pattern that repeats every `scale` pixels. In the spectrum of the
    windowed luma it appears as peaks at multiples of 1 / `scale` cycles per pixel. Each peak is divided by the
    typical power around it (from the median, which for noise is ln 2 times the mean), and the median over all peaks
    is returned.

    Args:
        image: uint8 RGB, (height, width, 3); cropped to a multiple of 2 x `scale`.
        scale: Factor by which the picture was upsampled, 2 or more; for style transfer, the side of the coarsest grid.

    Returns:
        The ratio of powers, 0 or more. NaN for a picture of uniform brightness, and for sides below 14 x `scale`
        pixels, where the surroundings of one peak include the next.

    Raises:
        ConfigError: `image` is not a uint8 RGB picture, or `scale` is below 2.

    Example:
        grid = lattice_ratio(keras_psr.load("x4")(low_res), scale=4)
    """
    _check_picture("image", image)
    if scale < 2:
        raise ConfigError(f"scale must be 2 or more to have a lattice. Received: {scale}.")
    if min(image.shape[:2]) < 14 * scale:
        return math.nan
    luma = rgb_to_y(crop_to_multiple(image, 2 * scale))
    height, width = luma.shape
    if np.ptp(luma) == 0:
        return math.nan
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2
    peaks = [(i * height // scale, j * width // scale) for i in range(scale) for j in range(scale)][1:]
    return float(np.median([_peak_ratio(power, row, column) for row, column in peaks]))


def block_ratio(image: np.ndarray, scale: int) -> float:
    """Returns how strongly the blocks of an enlarged JPEG show in its luma; about 1 if they do not.

    JPEG draws each block of 8x8 pixels without regard to the next, so that brightness jumps where they meet. The jumps
    go up as often as down, which leaves nothing in the spectrum (so that `lattice_ratio` does not see them), but their
    absolute values repeat with the blocks. The absolute differences between neighbouring columns are cut off at one
    grey level, because blocks are seen on flat areas, where a jump that has been enlarged is no larger, and because
    edges would outweigh them. Averaged along columns, they are a signal whose spectrum has peaks at multiples of one
    cycle a block. Each of the first four is divided by the mean power around it, the same is done for rows, and the
    median over all peaks is returned. Where the blocks begin does not matter.

    Args:
        image: uint8 RGB, (height, width, 3).
        scale: Factor by which the JPEG was enlarged, 1 or more.

    Returns:
        The ratio of powers, 0 or more. NaN where it is not defined: for pictures without brightness changes, and for
        those smaller than 6 blocks in both directions.

    Raises:
        ConfigError: `image` is not a uint8 RGB picture, or `scale` is below 1.

    Reference:
        Wang, Bovik and Evans 2000, Blind measurement of blocking artifacts in images.

    Example:
        blocks = block_ratio(keras_psr.load("x4")(keras_psr.read_rgb("photo.jpg")), scale=4)
    """
    _check_picture("image", image)
    return _block_ratio([rgb_to_y(image)], _JPEG_BLOCK, scale)


def color_block_ratio(image: np.ndarray, scale: int) -> float:
    """Returns how strongly the blocks of an enlarged JPEG show in its colour; about 1 if they do not.

    This is `block_ratio` of JPEG's two channels of colour, whose blocks have sides of 16 pixels in most files.

    Args:
        image: uint8 RGB, (height, width, 3).
        scale: Factor by which the JPEG was enlarged, 1 or more.

    Returns:
        The ratio of powers, 0 or more. NaN where it is not defined: for grey pictures, and for those smaller than 6
        blocks in both directions.

    Raises:
        ConfigError: `image` is not a uint8 RGB picture, or `scale` is below 1.

    Example:
        blocks = color_block_ratio(keras_psr.load("x4")(keras_psr.read_rgb("photo.jpg")), scale=4)
    """
    _check_picture("image", image)
    return _block_ratio([image @ np.array(weights) for weights in CHROMA_WEIGHTS], 2 * _JPEG_BLOCK, scale)


def chroma_noise(image: np.ndarray) -> float:
    """Returns the power of the colour in the finest detail: of Cb and Cr above a quarter cycle per pixel.

    Coloured fringes and speckles have it, while strokes and edges are mostly luma there.

    Args:
        image: uint8 RGB, (height, width, 3), at least 8 pixels a side.

    Returns:
        The variance in squared grey levels, summed over Cb and Cr (JFIF), through a Hann window; 0 for grey.

    Raises:
        ConfigError: `image` is not a uint8 RGB picture, or is too small.

    Example:
        ratio = chroma_noise(painted) / chroma_noise(painting)
    """
    _check_picture("image", image)
    height, width = image.shape[:2]
    if min(height, width) < 8:
        raise ConfigError(f"image must have at least 8 pixels on each side. Received: {width}x{height}.")
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])[..., None]
    chroma = image @ np.array(CHROMA_WEIGHTS).T
    spectrum = np.fft.fft2((chroma - chroma.mean(axis=(0, 1))) * window, axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    power = np.sum(np.abs(spectrum[frequency > 1 / 4]) ** 2)
    return float(power / (height * width * np.sum(window**2)))


def mean_scores(pictures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of each score over several pictures; for ratios of powers, the median of the defined values.

    Example:
        >>> mean_scores([{"psnr_y": 30.0}, {"psnr_y": 32.0}])
        {'psnr_y': 31.0}
    """
    means = {name: float(np.mean([scores[name] for scores in pictures])) for name in pictures[0]}
    for name in POWER_RATIOS & set(means):
        ratios = np.array([scores[name] for scores in pictures])
        defined = ratios[np.isfinite(ratios)]
        means[name] = float(np.median(defined)) if defined.size else math.nan
    return means


POWER_RATIOS = {"lattice_ratio", "block_ratio", "color_block_ratio"}
"""Scores that are not defined for every picture, and that a single picture with a pattern of its own may dominate."""


def _block_ratio(planes: Sequence[np.ndarray], block: int, scale: int) -> float:
    """Returns the median over planes, directions and peaks of how far the peaks of `block_ratio` stand out."""
    if scale < 1:
        raise ConfigError(f"scale must be 1 or more. Received: {scale}.")
    ratios = [
        ratio
        for plane in planes
        for turned in (plane, plane.T)
        if turned.shape[1] > 6 * block * scale
        for ratio in _jump_peaks(turned, block * scale)
    ]
    return float(np.median(ratios)) if ratios else math.nan


def _jump_peaks(plane: np.ndarray, period: int) -> list[float]:
    """Returns how far the first four multiples of 1 / `period` stand out in the spectrum of jumps along rows."""
    jumps = np.minimum(np.abs(np.diff(plane, axis=1)), 1).mean(axis=0)
    number = len(jumps) // period  # of periods, and the distance of two peaks in bins
    signal = jumps[: number * period]
    if np.ptp(signal) < 1e-9:
        return []
    hann = np.hanning(len(signal) + 1)[:-1]  # spreads a peak over three bins
    power = np.abs(np.fft.fft((signal - signal.mean()) * hann)) ** 2
    away = np.arange(2, number // 2 + 1)
    around = np.concatenate([-away, away])
    peaks = number * np.arange(1, 5)
    return [power.take([peak - 1, peak, peak + 1]).mean() / power.take(peak + around).mean() for peak in peaks]


def _peak_ratio(power: np.ndarray, row: int, column: int) -> float:
    """Divides the mean power of 3x3 bins by the mean expected from the 25x25 bins around, without the inner 7x7."""
    reach = np.arange(-12, 13)
    around = power[np.ix_((row + reach) % power.shape[0], (column + reach) % power.shape[1])]
    outer = np.ones(around.shape, bool)
    outer[9:16, 9:16] = False
    return around[11:14, 11:14].mean() / (np.median(around[outer]) / math.log(2))


def _psnr(image: np.ndarray, reference: np.ndarray) -> float:
    error = np.mean((image.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _shave(image: np.ndarray, reference: np.ndarray, border: int, at_least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cuts `border` pixels off each side of both pictures, and checks that `at_least` rows and columns remain."""
    _check_picture("image", image)
    _check_picture("reference", reference)
    if image.shape != reference.shape:
        raise ConfigError(
            f"image and reference must have the same shape. Received: {image.shape} and {reference.shape}. "
            "Crop the reference to a multiple of the scale first."
        )
    height, width = image.shape[:2]
    if border < 0 or min(height, width) - 2 * border < at_least:
        raise ConfigError(
            f"image must have at least {at_least}x{at_least} pixels inside a border of {border}. "
            f"Received: {height}x{width} including it. Leave it out or use a larger picture."
        )
    inner = np.s_[border : height - border, border : width - border]
    return image[inner], reference[inner]


def _check_picture(name: str, image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ConfigError(
            f"{name} must be uint8 RGB of shape (height, width, 3). Received: {image.dtype} of shape "
            f"{image.shape}. Round with pixels.to_uint8."
        )
