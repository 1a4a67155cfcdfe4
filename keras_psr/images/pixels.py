"""Pictures as NumPy arrays: rounding, cropping, MATLAB-compatible bicubic resizing and luma.

Outside a network, a picture is uint8 or uint16 RGB of shape (height, width, 3).
"""

import math

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from keras_psr.constants import LUMA_OFFSET, LUMA_WEIGHTS
from keras_psr.errors import ConfigError


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Clips to [0, 255], rounds half to even and converts to uint8.

    Args:
        image: An array of any shape, in grey levels.

    Returns:
        A uint8 array of the same shape.

    Example:
        pixels = to_uint8(network(image)[0].numpy())
    """
    if image.dtype == np.uint8:
        return image.copy()
    return np.rint(np.clip(image, 0, 255), out=np.empty(image.shape, np.uint8), casting="unsafe")


def to_uint16(image: np.ndarray) -> np.ndarray:
    """Clips to [0, 255], scales to [0, 65535], rounds half to even and converts to uint16.

    Args:
        image: An array of any shape, in 8-bit grey levels with fractions.

    Returns:
        A uint16 array of the same shape.

    Example:
        >>> to_uint16(np.array([0, 127.5, 255]))
        array([    0, 32768, 65535], dtype=uint16)
    """
    return np.rint(np.clip(image, 0, 255) * 257).astype(np.uint16)


def from_uint16(image: np.ndarray) -> np.ndarray:
    """Converts 16-bit levels to 8-bit grey levels with fractions: 65535 becomes 255.

    Args:
        image: A uint16 array of any shape.

    Returns:
        A float32 array of the same shape.

    Example:
        >>> from_uint16(np.array([0, 257, 65535], np.uint16))
        array([  0.,   1., 255.], dtype=float32)
    """
    return image.astype(np.float32) / 257


def round_to(image: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Clips to the range of an integer dtype, rounds half to even and converts.

    Args:
        image: An array of any shape, in levels of that dtype.
        dtype: uint8 or uint16.

    Returns:
        An array of the same shape; `image` itself if it already has that dtype.

    Example:
        >>> round_to(np.array([-3.0, 12.5, 300.0]), np.uint8)
        array([  0,  12, 255], dtype=uint8)
    """
    if image.dtype == dtype:
        return image
    limits = np.iinfo(np.dtype(dtype).name)
    return np.rint(np.clip(image, limits.min, limits.max)).astype(dtype)


def is_grey(image: np.ndarray) -> bool:
    """Returns whether all channels are equal in every pixel.

    Args:
        image: (height, width), or (height, width, channels) of any dtype.

    Example:
        is_grey(keras_psr.read_rgb("photo.jpg"))
    """
    strips = (image[top : top + _STRIP] for top in range(0, len(image), _STRIP))
    return image.ndim == 2 or all(bool((strip == strip[..., :1]).all()) for strip in strips)


def to_three_channels(image: np.ndarray) -> np.ndarray:
    """Returns a grey picture with three equal channels, and any other as it is.

    Args:
        image: (height, width), or (height, width, channels) of any dtype.

    Example:
        enlarged = keras_psr.load("x4")(to_three_channels(grey))
    """
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)


def to_8_bits(levels: np.ndarray) -> np.ndarray:
    """Converts 16-bit levels to 8 bits, rounded: 65535 becomes 255.

    Args:
        levels: A uint16 array of any shape, or a uint8 array, which is returned as it is.

    Returns:
        A uint8 array of the same shape. There are never halves to round, because 257 is odd.

    Example:
        >>> to_8_bits(np.array([0, 257, 65535], np.uint16))
        array([  0,   1, 255], dtype=uint8)
    """
    if levels.dtype == np.uint8:
        return levels
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def spread_levels(levels: np.ndarray, bits: int) -> np.ndarray:
    """Converts levels of any bit depth to 8 or 16 bits. Black stays black, and white stays white.

    Args:
        levels: Unsigned integers below 2 ** `bits`, of any shape.
        bits: Bit depth, 1 to 32.

    Returns:
        An array of the same shape, rounded: uint8 for up to 8 bits, else uint16.

    Example:
        >>> spread_levels(np.array([0, 1, 3]), bits=2)
        array([  0,  85, 255], dtype=uint8)
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
    """Divides colours by the opacity with which they were multiplied.

    Args:
        pixels: uint8 or uint16, (height, width) or (height, width, channels).
        alpha: Opacity, (height, width), of the same dtype.

    Returns:
        Pixels of the same shape and dtype; black where fully transparent.

    Example:
        colours = divide_by_opacity(multiplied, alpha)
    """
    top = np.iinfo(pixels.dtype).max
    divided = np.empty_like(pixels)
    for start in range(0, len(pixels), _STRIP):
        rows = slice(start, start + _STRIP)
        opacity = np.maximum(alpha[rows], 1).reshape(alpha[rows].shape + (1,) * (pixels.ndim - 2))
        divided[rows] = np.minimum(np.rint(pixels[rows] * (np.float64(top) / opacity)), top).astype(pixels.dtype)
    return divided


def lay_over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blends a transparent picture with a white background, in 8 bits.

    Args:
        pixels: uint8 or uint16, (height, width) or (height, width, channels).
        alpha: Opacity, (height, width), of the same dtype.

    Returns:
        uint8, with the shape of `pixels`.

    Example:
        opaque = lay_over_white(photo.pixels, photo.alpha)
    """
    pixels, alpha = to_8_bits(pixels), to_8_bits(alpha)
    opacity = (alpha / np.float32(255)).reshape(alpha.shape + (1,) * (pixels.ndim - 2))
    return np.rint(pixels * opacity + 255 * (1 - opacity)).astype(np.uint8)


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """Converts CIELab under D50 to sRGB, relative to white: L = 100 becomes white.

    Args:
        lab: float32, (..., 3): lightness in [0, 100], a and b.

    Returns:
        float32, (..., 3), in [0, 1]; colours outside sRGB are clipped.

    Reference:
        CIE 15; IEC 61966-2-1 adapted to D50 by Bradford's matrix.

    Example:
        >>> lab_to_srgb(np.array([100, 0, 0], np.float32))
        array([1., 1., 1.], dtype=float32)
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
    """Crops a picture at the bottom and right so that both sides are multiples of a number (MATLAB `modcrop`).

    Args:
        image: (height, width) or (height, width, channels), any dtype.
        multiple: Divisor of both sides of the result, in pixels.

    Returns:
        A view of the top left part of `image`.

    Raises:
        ConfigError: A side of the picture is shorter than `multiple`.

    Example:
        high_res = crop_to_multiple(keras_psr.read_rgb("photo.png"), 4)
    """
    height, width = image.shape[:2]
    if min(height, width) < multiple:
        raise ConfigError(
            f"image must have at least {multiple}x{multiple} pixels (height x width). Received: {height}x{width}. "
            "Leave it out or use a larger picture."
        )
    return image[: height - height % multiple, : width - width % multiple]


def resize_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes as MATLAB's `imresize(image, [height width])` does: antialiased, Keys kernel with a = -0.5.

    Pillow has the same kernel, but drops weights that fall outside the picture, whereas MATLAB mirrors the picture.
    Therefore the picture is mirrored first, and Pillow is told which part to resize.

    Args:
        image: (height, width) or (height, width, 3); uint8, or another dtype, which is computed in float32.
        height: Height of the result in pixels.
        width: Width of the result in pixels.

    Returns:
        (height, width) or (height, width, 3): uint8 for uint8, else float32, not clipped.

    Reference:
        Keys 1981, Cubic convolution interpolation for digital image processing.

    Example:
        small = resize_bicubic(image, 120, 160)
    """
    if image.dtype != np.uint8 and image.ndim == 3:  # Pillow supports float pictures with one channel only
        channels = [resize_bicubic(image[..., c], height, width) for c in range(image.shape[2])]
        return np.stack(channels, axis=-1)
    pixels = image if image.dtype == np.uint8 else image.astype(np.float32)
    top, left = _kernel_support(image.shape[0], height), _kernel_support(image.shape[1], width)
    # Both round uint8 between two passes, but MATLAB starts vertically and Pillow horizontally: swap the axes.
    swapped = np.swapaxes(pixels, 0, 1)
    mirrored = np.pad(swapped, [(left, left), (top, top), (0, 0)][: image.ndim], mode="symmetric")
    box = (top, left, top + image.shape[0], left + image.shape[1])
    resized = Image.fromarray(mirrored).resize((height, width), Image.Resampling.BICUBIC, box=box)
    return np.ascontiguousarray(np.swapaxes(np.asarray(resized), 0, 1))


def _kernel_support(size: int, resized: int) -> int:
    """Returns the radius of the cubic kernel in input pixels: two pixels of the coarser grid."""
    return math.ceil(2 * max(1.0, size / resized)) + 1


def match_histogram(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Gives each channel of a picture the histogram of a reference.

    Args:
        image: uint8 or uint16, (height, width) or (height, width, channels).
        reference: A picture with the same dtype and channels, of any size.

    Returns:
        The adjusted picture, with the shape and dtype of `image`.

    Reference:
        Johnson et al. 2016, section 4.2: outputs are matched to the low-resolution input.

    Example:
        matched = match_histogram(enlarged, low_res)
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
    """Combines the luma of a picture with the colours of a photograph.

    Args:
        image: uint8 or uint16, RGB (height, width, 3), or grey (height, width), which is returned unchanged.
        photograph: The photograph, of the same shape and dtype.

    Returns:
        A picture of the same shape and dtype. Colours too bright to be represented become paler.

    Example:
        painted = keep_colors(keras_psr.load("starry-night")(photograph), photograph)
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


def mix(image: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    """Returns the weighted mean of two pictures.

    Args:
        image: uint8 or uint16, (height, width) or (height, width, channels).
        other: A picture of the same shape and dtype.
        strength: Share of `image`, in [0, 1]; the rest is `other`.

    Returns:
        A picture of the same shape and dtype, rounded half to even.

    Example:
        paler = mix(painted, photograph, 0.7)
    """
    mixed = np.empty_like(image)
    for start in range(0, len(image), _STRIP):
        rows = slice(start, start + _STRIP)
        levels = np.float32(strength) * image[rows] + np.float32(1 - strength) * other[rows]
        mixed[rows] = np.rint(levels).astype(image.dtype)
    return mixed


_STRIP = 256
"""Number of rows that are converted at once, so that no intermediate array is as large as a large picture."""


def _count_levels(channel: np.ndarray) -> np.ndarray:
    """Returns the number of pixels with each level."""
    levels = np.iinfo(channel.dtype).max + 1
    strips = (channel[top : top + _STRIP].ravel() for top in range(0, len(channel), _STRIP))
    return sum((np.bincount(strip, minlength=levels) for strip in strips), start=np.zeros(levels, np.int64))


def make_low_res(high_res: np.ndarray, scale: int, blur_sigma: float = 0.0) -> np.ndarray:
    """Makes the low-resolution version of a picture: crops it, blurs it if requested, and reduces it bicubically.

    Args:
        high_res: uint8, (height, width, 3) or (height, width).
        scale: Factor by which both sides are reduced; `high_res` is cropped to a multiple of it first.
        blur_sigma: Standard deviation of a Gaussian blur before the reduction, in high-resolution pixels;
            0 for none. Johnson et al. 2016 use 1.0; benchmarks use none.

    Returns:
        uint8, (height // scale, width // scale[, 3]).

    Raises:
        ConfigError: The picture is smaller than `scale`, or `blur_sigma` is negative.

    Example:
        low_res = make_low_res(keras_psr.read_rgb("photo.png"), scale=4)
    """
    if not blur_sigma >= 0:
        raise ConfigError(f"blur_sigma must be 0 or more pixels. Received: {blur_sigma}. Use 0 for no blur.")
    cropped = crop_to_multiple(high_res, scale)
    if blur_sigma:
        from scipy.ndimage import gaussian_filter

        cropped = gaussian_filter(cropped.astype(np.float32), blur_sigma, axes=(0, 1))
    return to_uint8(resize_bicubic(cropped, cropped.shape[0] // scale, cropped.shape[1] // scale))


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """Returns BT.601 luma in studio range, not rounded, on which super-resolution papers compute PSNR.

    Args:
        image: RGB in [0, 255] of any dtype, (height, width, 3).

    Returns:
        float64, (height, width), in [16, 235].

    Example:
        luma = rgb_to_y(keras_psr.read_rgb("photo.png"))
    """
    return np.asarray(image, np.float64) @ (np.array(LUMA_WEIGHTS) / 255) + LUMA_OFFSET


def crop_center(image: np.ndarray, size: int) -> np.ndarray:
    """Crops the centre of a picture.

    Args:
        image: (height, width) or (height, width, channels), any dtype.
        size: Number of rows and columns to keep; a shorter side is kept whole.

    Returns:
        A view of at most `size` rows and columns.

    Example:
        detail = crop_center(image, 256)
    """
    top, left = (max(0, side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]
