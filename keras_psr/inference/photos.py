"""Enlarging and painting photographs with all that belongs to them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from keras_psr.errors import ConfigError
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import is_grey, keep_colors, resize_bicubic, round_to
from keras_psr.images.pixels import match_histogram as match
from keras_psr.images.screens import is_screen, keep_local_means

STRIP = 256
"""Rows that are computed at once in float32."""


class PictureFunction(Protocol):
    """What `upscaler.Upscaler` is: a function of pictures, `scale` times as large."""

    @property
    def scale(self) -> int:
        """Factor of the sides."""

    @property
    def takes_16_bits(self) -> bool:
        """Whether it takes uint16 pictures, not only uint8."""

    def __call__(self, image: np.ndarray, *, strength: float, on_pixels: Callable[[int], None]) -> np.ndarray:
        """The picture of a picture, uint8 or uint16, RGB or grey."""


def output_size(height: int, width: int, output_scale: float) -> tuple[int, int]:
    """Height and width of an enlarged picture, in pixels."""
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
    """Enlarges a photograph, or paints it; grey stays grey, also where it is stored as RGB; 16 bits stay 16 bits.

    Opacity is enlarged by bicubic. Colours go through the network multiplied by their opacity, so that what is
    transparent does not bleed into what is not, and are divided afterwards; under full transparency, colours are
    enlarged by bicubic, for somebody may want them. Pictures of two levels, such as dithered photographs, keep their
    local brightness.

    Args:
        upscaler: The network (`upscaler.Upscaler`), or `style_transfer.optimization.PixelOptimizer`.
        photo: The photograph.
        output_scale: Factor of the result's sides, reached by bicubic, antialiased where it shrinks, after the network;
            None for the network's own.
        strength: Share of the network in the result, in [0, 1]; the rest is bicubic.
        match_histogram: Give each channel the distribution of levels that it has in the photograph.
        preserve_colors: Take only the luma from the network; for networks that do not enlarge.
        on_pixels: As for `upscaler.Upscaler`.

    Returns:
        The enlarged photograph.

    Raises:
        ConfigError: An argument is out of range, or the photograph has 16 bits and the network is quantized.
    """
    if output_scale is not None and not 0 < output_scale <= 16:
        raise ConfigError(f"output_scale must be above 0, at most 16. Received: {output_scale}.")
    if photo.pixels.ndim == 3 and is_grey(photo.pixels):
        options: dict[str, Any] = {"strength": strength, "match_histogram": match_histogram}
        options |= {"output_scale": output_scale, "on_pixels": on_pixels}
        grey = upscale_photo(upscaler, replace(photo, pixels=photo.pixels[..., 0].copy()), **options)
        return replace(grey, pixels=np.repeat(grey.pixels[..., None], 3, axis=-1))
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
    if enlarged.shape[:2] != size:
        enlarged = _resize(enlarged, size)
    if alpha is not None:
        alpha = _resize(alpha, size) if is_transparent else np.full(size, top, alpha.dtype)
    if is_transparent and alpha is not None:
        enlarged = _divide(enlarged, alpha, _resize(photo.pixels, size))
    return replace(photo, pixels=enlarged, alpha=alpha)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic, in the dtype of the picture."""
    return round_to(resize_bicubic(image, *size), image.dtype)


def _multiply(photo: Photo, takes_16_bits: bool) -> np.ndarray:
    """Colours times opacity: with 16 bits if the network takes them, because division makes rounding errors large."""
    assert photo.alpha is not None
    dtype = np.dtype(np.uint16 if takes_16_bits else photo.pixels.dtype)
    factor = np.iinfo(dtype).max / np.iinfo(photo.pixels.dtype).max
    opacity = _spread(photo.alpha, photo.pixels).astype(np.float32) / np.iinfo(photo.alpha.dtype).max
    return np.rint(photo.pixels * opacity * factor).astype(dtype)


def _divide(multiplied: np.ndarray, alpha: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Colours over opacity, in `alpha`'s dtype, and those of `hidden` where opacity is 0."""
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
    """Opacity in a shape that can be multiplied with grey or RGB pixels."""
    return alpha if pixels.ndim == 2 else alpha[..., None]
