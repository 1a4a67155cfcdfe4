"""Keeps the local brightness of enlarged screens: pictures of only two levels, as dithering and printing make them."""

import numpy as np

from keras_psr.images.pixels import resize_bicubic, round_to

CELL = 4
"""Side of a cell of a screen, in pixels. The eye sees only a cell's mean."""

STEPS = 6
"""Number of correction steps; after six, the means of cells differ by less than one level."""

_ROWS = 256
"""Number of rows of a large picture that are compared at once."""


def is_screen(image: np.ndarray) -> bool:
    """Returns whether each channel of a picture has exactly two levels.

    Args:
        image: (height, width) or (height, width, channels), any dtype.

    Example:
        is_screen(keras_psr.read_rgb("dithered.png"))
    """
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    if np.any(low == high):
        return False
    strips = (image[top : top + _ROWS] for top in range(0, len(image), _ROWS))
    return all(bool(((strip == low) | (strip == high)).all()) for strip in strips)


def keep_local_means(enlarged: np.ndarray, screen: np.ndarray) -> np.ndarray:
    """Gives an enlarged screen the local brightness of the original. Black and white pixels do not change.

    Networks draw the dots of a screen with too much contrast. Values beyond black and white are clipped, more at one
    end than at the other, which shifts the mean by up to 25 of 255 levels.

    Args:
        enlarged: The enlarged screen; uint8 or uint16, (height, width) or (height, width, channels).
        screen: The original screen, with the same dtype and channels.

    Returns:
        The corrected picture, with the shape and dtype of `enlarged`.

    Example:
        enlarged = keep_local_means(keras_psr.load("x4")(dithered), dithered)
    """
    kept = np.empty_like(enlarged)
    for channel in np.ndindex(enlarged.shape[2:]):
        place = (..., *channel)
        kept[place] = round_to(_correct(enlarged[place], screen[place]), enlarged.dtype)
    return kept


def _correct(enlarged: np.ndarray, screen: np.ndarray) -> np.ndarray:
    """Corrects one channel. Pixels move towards their cell's mean, more if they are far from black and white."""
    top = np.float32(np.iinfo(enlarged.dtype).max)
    cells = tuple(max(1, side // CELL) for side in screen.shape)
    levels, wanted = enlarged / top, resize_bicubic(screen / top, *cells)
    for _ in range(STEPS):
        room = levels * (1 - levels)
        lacking = wanted - resize_bicubic(levels, *cells)
        moved = resize_bicubic(lacking / np.maximum(resize_bicubic(room, *cells), 0.005), *levels.shape)
        levels = np.clip(levels + moved * room, 0, 1)
    return levels * top
