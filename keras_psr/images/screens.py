"""Pictures of two levels, such as dithered photographs, enlarged without becoming brighter or darker."""

import numpy as np

from keras_psr.images.pixels import resize_bicubic, round_to

CELL = 4
"""Pixels of a screen, in both directions, whose mean is what the eye sees of them."""

STEPS = 6
"""Corrections, each of what the one before left; after six, cells differ by less than a level."""

_ROWS = 256
"""Rows of a large picture that are compared at once."""


def is_screen(image: np.ndarray) -> bool:
    """Whether each channel of a picture has exactly two levels.

    Args:
        image: (height, width) or (height, width, channels), any dtype.
    """
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    if np.any(low == high):
        return False
    strips = (image[top : top + _ROWS] for top in range(0, len(image), _ROWS))
    return all(bool(((strip == low) | (strip == high)).all()) for strip in strips)


def keep_local_means(enlarged: np.ndarray, screen: np.ndarray) -> np.ndarray:
    """Gives an enlarged screen the local brightness that the screen has; black and white pixels stay as they are.

    Networks draw the dots of a screen with more contrast than there is room for. What overshoots black and white is
    clipped, more of it at one end than at the other, which shifts the mean by as much as 25 levels of 255.

    Args:
        enlarged: The screen, enlarged; uint8 or uint16, (height, width) or (height, width, channels).
        screen: The screen, of the same dtype and channels.

    Returns:
        Of the shape and dtype of `enlarged`.
    """
    kept = np.empty_like(enlarged)
    for channel in np.ndindex(enlarged.shape[2:]):
        place = (..., *channel)
        kept[place] = round_to(_correct(enlarged[place], screen[place]), enlarged.dtype)
    return kept


def _correct(enlarged: np.ndarray, screen: np.ndarray) -> np.ndarray:
    """One channel; pixels move by what their cell lacks, the more the farther they are from black and white."""
    top = np.float32(np.iinfo(enlarged.dtype).max)
    cells = tuple(max(1, side // CELL) for side in screen.shape)
    levels, wanted = enlarged / top, resize_bicubic(screen / top, *cells)
    for _ in range(STEPS):
        room = levels * (1 - levels)
        lacking = wanted - resize_bicubic(levels, *cells)
        moved = resize_bicubic(lacking / np.maximum(resize_bicubic(room, *cells), 0.005), *levels.shape)
        levels = np.clip(levels + moved * room, 0, 1)
    return levels * top
