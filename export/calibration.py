"""The tiles for calibration, on which the ranges of a quantized network's responses are measured."""

from collections.abc import Sequence

import numpy as np

from keras_psr.data.sources import Picture, use_pictures
from keras_psr.errors import ConfigError
from keras_psr.images.pixels import make_low_res

NUM_TILES = 100

CALIBRATION_MIDDLE = 64
"""Side of calibration tiles without their halo, in pixels: with 32, rare responses of `x4` were clipped."""


PRINT = (3, 56, 200)
"""Number of tiles that look like print, and their two grey levels.

Photographs have no edges as sharp as those of letters, so ranges measured on photographs alone clip the responses to
text. More contrast is better for text, but leaves photographs fewer levels.
"""


def calibration_tiles(
    pictures: Sequence[Picture], *, scale: int, tile: int, count: int = NUM_TILES
) -> list[np.ndarray]:
    """Cuts calibration tiles out of pictures, always the same ones.

    The tiles look like a network's inputs: each picture is reduced by the scale, or less if a tile would not fit, and
    random crops are taken from all pictures equally. A few more crops have only two grey levels, like print
    (`PRINT`). The last tile is a ramp from black to white, so that the input's range is exactly [0, 255].

    Args:
        pictures: The pictures to cut from.
        scale: Upscaling factor of the network.
        tile: Side of a tile, in pixels.
        count: Number of crops.

    Returns:
        `count` + `PRINT[0]` + 1 uint8 RGB pictures (tile, tile, 3).

    Raises:
        DataError: No picture is as large as a tile.

    Example:
        tiles = calibration_tiles(open_sources(["sample"]), scale=4, tile=96)
    """

    def reduce(picture: Picture) -> np.ndarray:
        pixels = picture.read()
        shorter = min(pixels.shape[:2])
        if shorter < tile:
            raise ConfigError(f"{pixels.shape[0]}x{pixels.shape[1]} is smaller than the tile of {tile}")
        return make_low_res(pixels, min(scale, shorter // tile))

    refusal = (
        f"--calibration: none of {{number}} pictures is as large as a tile, {tile}x{tile}. Use a smaller --tile "
        "or other pictures."
    )
    reduced, _ = use_pictures(pictures, reduce, refusal=refusal)
    generator = np.random.default_rng(0)
    tiles = []
    for index in range(count):
        pixels = reduced[index % len(reduced)]
        top, left = (int(generator.integers(side - tile + 1)) for side in pixels.shape[:2])
        tiles.append(pixels[top : top + tile, left : left + tile])
    number, dark, bright = PRINT
    for pixels in tiles[:number]:
        is_bright = pixels.mean(axis=-1, keepdims=True) > np.median(pixels)
        tiles.append(np.where(is_bright, np.uint8(bright), np.uint8(dark)).repeat(3, axis=-1))
    ramp = np.rint(np.linspace(0, 255, tile)).astype(np.uint8)
    return [*tiles, np.broadcast_to(ramp[:, None], (tile, tile, 3))]
