"""Sheets of labelled pictures side by side, for the previews of a fit and the demo."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_psr.errors import ConfigError

_GAP = 4
"""Width of the white space between pictures and around labels, in pixels."""


def comparison_sheet(rows: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Arranges pictures side by side on white, each below its label.

    Args:
        rows: Rows from top to bottom. Each maps labels to uint8 RGB pictures of one size, (height, width, 3), from
            left to right. Rows may differ in size and number of pictures.

    Returns:
        uint8 RGB, (height, width, 3). Labels wider than their picture are cut off.

    Raises:
        ConfigError: There is no picture to show, or the pictures of a row differ in size.

    Example:
        sheet = comparison_sheet([{"bicubic": bicubic, "network": enlarged}])
    """
    if not rows or not all(rows):
        raise ConfigError("rows must contain at least one picture each. Received: an empty one.")
    strips = [_labelled_row(row) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate([_padded(strip, right=width - strip.shape[1]) for strip in strips])


def _labelled_row(pictures: dict[str, np.ndarray]) -> np.ndarray:
    shapes = {label: picture.shape for label, picture in pictures.items()}
    if len(set(shapes.values())) > 1:
        raise ConfigError(f"pictures in a row must have one size. Received: {shapes}. Resize them first.")
    return np.concatenate([_labelled(label, picture) for label, picture in pictures.items()], axis=1)


def _labelled(label: str, picture: np.ndarray) -> np.ndarray:
    width = picture.shape[1]
    font_size = min(max(width // 12, 10), 24)
    title = Image.new("RGB", (width, font_size + 2 * _GAP), "white")
    font = ImageFont.load_default(font_size)
    ImageDraw.Draw(title).text((0, title.height // 2), label, "black", font, anchor="lm")
    return _padded(np.concatenate([np.asarray(title), picture]), _GAP, _GAP, _GAP)


def _padded(picture: np.ndarray, right: int, left: int = 0, bottom: int = 0) -> np.ndarray:
    return np.pad(picture, [(0, bottom), (left, right), (0, 0)], constant_values=255)
