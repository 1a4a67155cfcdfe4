"""Pictures as NumPy arrays: rounding, cropping, MATLAB-compatible bicubic resizing and luma.

Outside a network a picture is uint8 RGB of shape (height, width, 3).
"""

import math

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from keras_psr.constants import LUMA_OFFSET, LUMA_WEIGHTS
from keras_psr.errors import ConfigError


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Clip to [0, 255], round half to even and convert to uint8.

    Args:
        image: Any shape, in grey levels.

    Returns:
        uint8 array of the same shape.
    """
    if image.dtype == np.uint8:
        return image.copy()
    return np.rint(np.clip(image, 0, 255), out=np.empty(image.shape, np.uint8), casting="unsafe")


def to_uint16(image: np.ndarray) -> np.ndarray:
    """Stretch [0, 255] to [0, 65535], clip, round half to even and convert to uint16.

    Args:
        image: Any shape, in grey levels of 8 bits, with fractions.

    Returns:
        uint16 array of the same shape.
    """
    return np.rint(np.clip(image, 0, 255) * 257).astype(np.uint16)


def round_to(image: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Clip to the range of a dtype of whole numbers, round half to even and convert.

    Args:
        image: Any shape, in levels of that dtype.
        dtype: uint8 or uint16.

    Returns:
        Array of the same shape; `image` itself if it has that dtype.
    """
    if image.dtype == dtype:
        return image
    limits = np.iinfo(np.dtype(dtype).name)
    return np.rint(np.clip(image, limits.min, limits.max)).astype(dtype)


def is_grey(image: np.ndarray) -> bool:
    """Whether all channels are equal in every pixel.

    Args:
        image: (height, width), or (height, width, channels) of any dtype.
    """
    strips = (image[top : top + _STRIP] for top in range(0, len(image), _STRIP))
    return image.ndim == 2 or all(bool((strip == strip[..., :1]).all()) for strip in strips)


def to_8_bits(levels: np.ndarray) -> np.ndarray:
    """Turn levels of 16 bits into those of 8: 65535 to 255, rounded.

    Args:
        levels: uint16, any shape.

    Returns:
        uint8 array of the same shape. No half ever comes up, because 257 is odd.
    """
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def spread_levels(levels: np.ndarray, bits: int) -> np.ndarray:
    """Turn levels of any depth into those of 8 or 16 bits: black stays black, and white becomes white.

    Args:
        levels: Unsigned integers below 2 ** `bits`, any shape.
        bits: Depth, 1 to 32.

    Returns:
        Of the same shape: uint8 for up to 8 bits, else uint16, rounded.
    """
    top, given = 255 if bits <= 8 else 65535, 2**bits - 1
    dtype = np.uint8 if bits <= 8 else np.uint16
    if top == given:
        return levels.astype(dtype)
    spread = np.empty(levels.shape, dtype)
    for start in range(0, len(levels), _STRIP):
        rows = slice(start, start + _STRIP)
        spread[rows] = (levels[rows].astype(np.uint64) * top + given // 2) // given
    return spread


def divide_by_opacity(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours from colours that were multiplied with their opacity.

    Args:
        pixels: uint8 or uint16, (height, width) or (height, width, channels).
        alpha: Opacity, (height, width), of the same dtype.

    Returns:
        Of the shape and dtype of `pixels`; black under full transparency.
    """
    top = np.iinfo(pixels.dtype).max
    divided = np.empty_like(pixels)
    for start in range(0, len(pixels), _STRIP):
        rows = slice(start, start + _STRIP)
        opacity = np.maximum(alpha[rows], 1).reshape(alpha[rows].shape + (1,) * (pixels.ndim - 2))
        divided[rows] = np.minimum(np.rint(pixels[rows] * (np.float64(top) / opacity)), top).astype(pixels.dtype)
    return divided


def lay_over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay a picture over white.

    Args:
        pixels: uint8, (height, width) or (height, width, channels).
        alpha: Opacity, uint8, (height, width).

    Returns:
        uint8, of the shape of `pixels`.
    """
    opacity = (alpha / np.float32(255)).reshape(alpha.shape + (1,) * (pixels.ndim - 2))
    return np.rint(pixels * opacity + 255 * (1 - opacity)).astype(np.uint8)


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """CIELab under D50 to sRGB, relative to white: L = 100 becomes white.

    Args:
        lab: float32, (..., 3): lightness in [0, 100], and a and b.

    Returns:
        float32, (..., 3), in [0, 1]; colours beyond sRGB are clipped.

    Reference:
        CIE 15; IEC 61966-2-1 adapted to D50 by Bradford's matrix.
    """
    middle = (lab[..., 0] + 16) / 116
    roots = np.stack([middle + lab[..., 1] / 500, middle, middle - lab[..., 2] / 200], axis=-1)
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29)) * _WHITE_D50
    linear = np.clip(xyz @ _LINEAR_SRGB_OF_D50.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


_WHITE_D50 = np.array([0.96422, 1.0, 0.82521])
_LINEAR_SRGB_OF_D50 = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)


def crop_to_multiple(image: np.ndarray, multiple: int) -> np.ndarray:
    """Cut rows off the bottom and columns off the right until both sides are multiples (MATLAB `modcrop`).

    Args:
        image: (height, width) or (height, width, channels), any dtype.
        multiple: Divisor of both sides of the result, in pixels.

    Returns:
        A view of the top left part of `image`.

    Raises:
        ConfigError: A side of the picture is shorter than `multiple`.
    """
    height, width = image.shape[:2]
    if min(height, width) < multiple:
        raise ConfigError(
            f"image is too small: expected at least {multiple}x{multiple} pixels (height x width), received "
            f"{height}x{width}; leave it out or use a larger picture."
        )
    return image[: height - height % multiple, : width - width % multiple]


def resize_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize as MATLAB's `imresize(image, [height width])` does: antialiased, Keys kernel with a = -0.5.

    Pillow has the same kernel but drops weights that fall outside the picture, where MATLAB mirrors the
    picture. So the picture is mirrored first, and Pillow is told which part to resize.

    Args:
        image: (height, width) or (height, width, 3); uint8, or anything else to be computed in float32.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        (height, width) or (height, width, 3): uint8 for uint8, else float32, not clipped.

    Reference:
        Keys 1981, Cubic convolution interpolation for digital image processing.
    """
    if image.dtype != np.uint8 and image.ndim == 3:  # Pillow holds float pictures of one channel only
        channels = [resize_bicubic(image[..., c], height, width) for c in range(image.shape[2])]
        return np.stack(channels, axis=-1)
    pixels = image if image.dtype == np.uint8 else image.astype(np.float32)
    top, left = _kernel_support(image.shape[0], height), _kernel_support(image.shape[1], width)
    # Both round uint8 between two passes, but MATLAB begins vertically, Pillow horizontally: swap the axes.
    swapped = np.swapaxes(pixels, 0, 1)
    mirrored = np.pad(swapped, [(left, left), (top, top), (0, 0)][: image.ndim], mode="symmetric")
    box = (top, left, top + image.shape[0], left + image.shape[1])
    resized = Image.fromarray(mirrored).resize((height, width), Image.Resampling.BICUBIC, box=box)
    return np.ascontiguousarray(np.swapaxes(np.asarray(resized), 0, 1))


def _kernel_support(size: int, resized: int) -> int:
    """Input pixels that the cubic kernel reaches to either side: two pixels of the coarser grid."""
    return math.ceil(2 * max(1.0, size / resized)) + 1


def match_histogram(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give each channel of a picture the distribution of levels of another picture.

    Args:
        image: uint8 or uint16, (height, width) or (height, width, channels).
        reference: Of the same dtype and channels, any size.

    Returns:
        The picture with other levels, in the same shape and dtype.

    Reference:
        Johnson et al. 2016, section 4.2: outputs are matched to the low-resolution input.
    """
    matched = np.empty_like(image)
    for channel in np.ndindex(image.shape[2:]):
        place = (..., *channel)
        given, wanted = (np.cumsum(_count_levels(part[place])) / part[place].size for part in (image, reference))
        present = np.flatnonzero(np.diff(wanted, prepend=0))
        table = np.rint(np.interp(given, wanted[present], present)).astype(image.dtype)
        for top in range(0, len(image), _STRIP):
            matched[place][top : top + _STRIP] = table[image[place][top : top + _STRIP]]
    return matched


def keep_colors(image: np.ndarray, photograph: np.ndarray) -> np.ndarray:
    """The luma of one picture with the colours of another: only brightness differs from the photograph.

    Args:
        image: uint8 or uint16, RGB (height, width, 3) or grey (height, width), which is returned as it is.
        photograph: Of the same shape and dtype.

    Returns:
        A picture of the same shape and dtype; colours brighter than there are become paler.
    """
    if image.ndim == 2:
        return image
    weights, top = np.array(LUMA_WEIGHTS, np.float32) / sum(LUMA_WEIGHTS), np.iinfo(image.dtype).max
    kept = np.empty_like(image)
    for start in range(0, len(image), _STRIP):
        rows = slice(start, start + _STRIP)
        colours = photograph[rows].astype(np.float32)
        change = (image[rows].astype(np.float32) - colours) @ weights
        kept[rows] = np.rint(np.clip(colours + change[..., None], 0, top)).astype(image.dtype)
    return kept


_STRIP = 256
"""Rows of a large picture that are converted at once, so that no array of wider numbers is as large as the picture."""


def _count_levels(channel: np.ndarray) -> np.ndarray:
    """How many pixels have each level."""
    levels = np.iinfo(channel.dtype).max + 1
    strips = (channel[top : top + _STRIP].ravel() for top in range(0, len(channel), _STRIP))
    return sum((np.bincount(strip, minlength=levels) for strip in strips), start=np.zeros(levels, np.int64))


def make_low_res(high_res: np.ndarray, scale: int, blur_sigma: float = 0.0) -> np.ndarray:
    """Make the low-resolution input that belongs to a picture: crop, blur if asked for, antialiased bicubic.

    Args:
        high_res: uint8, (height, width, 3) or (height, width).
        scale: Factor by which both sides shrink; `high_res` is cropped to a multiple of it first.
        blur_sigma: Standard deviation of a Gaussian blur before shrinking, in high-resolution pixels;
            0 for none. Johnson et al. 2016 train with 1.0; benchmarks use none.

    Returns:
        uint8, (height // scale, width // scale[, 3]).

    Raises:
        ConfigError: The picture is smaller than `scale` or `blur_sigma` is negative.
    """
    if not blur_sigma >= 0:
        raise ConfigError(f"blur_sigma must be 0 or more pixels, received {blur_sigma}; use 0 for no blur.")
    cropped = crop_to_multiple(high_res, scale)
    if blur_sigma:
        from scipy.ndimage import gaussian_filter

        cropped = gaussian_filter(cropped.astype(np.float32), blur_sigma, axes=(0, 1))
    return to_uint8(resize_bicubic(cropped, cropped.shape[0] // scale, cropped.shape[1] // scale))


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """Luma of BT.601 in studio range, not rounded, as super-resolution papers measure it.

    Args:
        image: (height, width, 3) RGB in [0, 255], any dtype.

    Returns:
        float64, (height, width), in [16, 235].
    """
    return np.asarray(image, np.float64) @ (np.array(LUMA_WEIGHTS) / 255) + LUMA_OFFSET


def crop_center(image: np.ndarray, size: int) -> np.ndarray:
    """Cut the middle out of a picture.

    Args:
        image: (height, width) or (height, width, channels), any dtype.
        size: Rows and columns to keep, in pixels; a shorter side is kept whole.

    Returns:
        A view of at most `size` rows and columns.
    """
    top, left = (max(0, side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]
