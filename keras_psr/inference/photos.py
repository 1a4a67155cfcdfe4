"""Applies networks to photos: grey, transparent and 16-bit ones included."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from keras_psr.errors import ConfigError
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import is_grey, keep_colors, resize_bicubic, round_to, to_three_channels
from keras_psr.images.pixels import match_histogram as match
from keras_psr.images.screens import is_screen, keep_local_means

STRIP = 256
"""Number of rows that are processed at once in float32."""


class PictureFunction(Protocol):
    """The interface of `upscaler.Upscaler`: a function from a picture to an enlarged or painted one."""

    @property
    def scale(self) -> int:
        """The factor by which both sides grow."""

    @property
    def takes_16_bits(self) -> bool:
        """Whether it accepts uint16 pictures, not only uint8."""

    def __call__(self, image: np.ndarray, *, strength: float, on_pixels: Callable[[int], None]) -> np.ndarray:
        """Returns the enlarged or painted picture, of the same kind and dtype as `image`: grey or RGB, 8 or 16 bits."""


def output_size(height: int, width: int, output_scale: float) -> tuple[int, int]:
    """Returns the height and width of an enlarged picture, in pixels.

    Example:
        >>> output_size(100, 150, 1.5)
        (150, 225)
    """
    return max(1, round(height * output_scale)), max(1, round(width * output_scale))


def upscale_photo(
    upscaler: PictureFunction,
    photo: Photo,
    *,
    output_scale: float | None = None,
    strength: float = 1.0,
    match_histogram: bool = False,
    preserve_colors: bool = False,
    on_pixels: Callable[[int], None] = lambda pixels: None,
) -> Photo:
    """Enlarges or paints a photo. Grey stays grey, even if stored as RGB, and 16 bits stay 16 bits.

    Opacity is resized bicubically. Colours are multiplied by their opacity before the network, so that transparent
    colours do not bleed into opaque ones, and divided by it afterwards; fully transparent colours are resized
    bicubically, so that they are kept. Pictures with only two levels, such as dithered ones, keep their local
    brightness.

    Args:
        upscaler: The network (`upscaler.Upscaler`), a `painting.Painter`, or a
            `style_transfer.optimization.PixelOptimizer`.
        photo: The photo.
        output_scale: Factor by which both sides grow, reached by antialiased bicubic resizing after the network; None
            for the network's own scale.
        strength: Share of the network in the result, in [0, 1]; the rest is bicubic.
        match_histogram: Whether to give each channel the histogram that it has in the photo.
        preserve_colors: Whether to take only the luma from the network; for networks that do not enlarge.
        on_pixels: As for `upscaler.Upscaler`.

    Returns:
        The enlarged or painted photo.

    Raises:
        ConfigError: An argument is out of range, or the photo has 16 bits and the network is quantized.

    Example:
        result = upscale_photo(keras_psr.load("x4"), read_photo("photo.png"), output_scale=3)
    """
    if output_scale is not None and not 0 < output_scale <= 16:
        raise ConfigError(f"output_scale must be above 0, at most 16. Received: {output_scale}.")
    if photo.pixels.ndim == 3 and is_grey(photo.pixels):
        options: dict[str, Any] = {"strength": strength, "match_histogram": match_histogram}
        options |= {"output_scale": output_scale, "on_pixels": on_pixels}
        grey = upscale_photo(upscaler, replace(photo, pixels=photo.pixels[..., 0].copy()), **options)
        return replace(grey, pixels=to_three_channels(grey.pixels))
    alpha, top = photo.alpha, np.iinfo(photo.pixels.dtype).max
    is_transparent = alpha is not None and bool((alpha < top).any())
    given = _multiply(photo, upscaler.takes_16_bits) if is_transparent else photo.pixels
    enlarged = upscaler(given, strength=strength, on_pixels=on_pixels)
    if match_histogram:
        enlarged = match(enlarged, given)
    if preserve_colors:
        enlarged = keep_colors(enlarged, given)
    if upscaler.scale > 1 and not is_transparent and is_screen(given):
        enlarged = keep_local_means(enlarged, given)
    height, width = photo.pixels.shape[:2]
    size = output_size(height, width, output_scale or upscaler.scale)
    enlarged = resize(enlarged, size)
    if alpha is not None:
        alpha = resize(alpha, size) if is_transparent else np.full(size, top, alpha.dtype)
    if is_transparent and alpha is not None:
        enlarged = _divide(enlarged, alpha, resize(photo.pixels, size))
    return replace(photo, pixels=enlarged, alpha=alpha)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a picture bicubically, keeping its dtype; returns `image` itself if it has that size.

    Args:
        image: uint8 or uint16, (height, width) or (height, width, 3).
        size: Height and width of the result, in pixels.

    Example:
        half = resize(image, (image.shape[0] // 2, image.shape[1] // 2))
    """
    return image if image.shape[:2] == size else round_to(resize_bicubic(image, *size), image.dtype)


def _multiply(photo: Photo, takes_16_bits: bool) -> np.ndarray:
    """Multiplies colours by opacity, in 16 bits if the network accepts them: division amplifies rounding errors."""
    assert photo.alpha is not None
    dtype = np.dtype(np.uint16 if takes_16_bits else photo.pixels.dtype)
    factor = np.iinfo(dtype).max / np.iinfo(photo.pixels.dtype).max
    opacity = _spread(photo.alpha, photo.pixels).astype(np.float32) / np.iinfo(photo.alpha.dtype).max
    return np.rint(photo.pixels * opacity * factor).astype(dtype)


def _divide(multiplied: np.ndarray, alpha: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Divides colours by opacity, in the dtype of `alpha`; where opacity is 0, returns the colours of `hidden`."""
    top = np.iinfo(alpha.dtype).max
    factor = np.float32(top * top / np.iinfo(multiplied.dtype).max)
    divided = np.require(hidden, requirements="W")
    for start in range(0, len(alpha), STRIP):
        rows = slice(start, start + STRIP)
        opacity = _spread(alpha[rows], multiplied)
        colours = multiplied[rows] * factor / np.maximum(opacity, 1)
        np.copyto(divided[rows], np.rint(np.minimum(colours, top)).astype(alpha.dtype), where=opacity > 0)
    return divided


def _spread(alpha: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Reshapes opacity so that it broadcasts with grey or RGB pixels."""
    return alpha if pixels.ndim == 2 else alpha[..., None]
