"""The tiles on which the ranges of a quantized network are measured."""

from collections.abc import Sequence

import numpy as np

from keras_psr.errors import DataError, ImageFileError
from keras_psr.pixels import make_low_res
from keras_psr.sources import Picture, report_skipped

NUM_TILES = 100

CALIBRATION_MIDDLE = 64
"""Side of calibration tiles without their halo, in pixels: with 32, rare responses of `x4` were clipped."""


def calibration_tiles(
    pictures: Sequence[Picture], *, scale: int, tile: int, count: int = NUM_TILES
) -> list[np.ndarray]:
    """Cuts tiles out of pictures, the same ones each time.

    The tiles look like what networks are given: each picture is reduced by the scale, or by as much of it as leaves a
    tile, and crops are spread over it, as many from each picture. One tile more is a ramp from black to white, so that
    the input's range is exactly [0, 255].

    Args:
        pictures: Where tiles come from.
        scale: Upscaling factor of the network.
        tile: Side of a tile, in pixels.
        count: Tiles from pictures.

    Returns:
        `count` + 1 uint8 RGB pictures (tile, tile, 3).

    Raises:
        DataError: No picture is as large as a tile.
    """
    reduced, skipped = [], []
    for picture in pictures:
        try:
            pixels = picture.read()
        except ImageFileError as error:
            skipped.append((picture.name, str(error)))
            continue
        if min(pixels.shape[:2]) < tile:
            skipped.append((picture.name, f"{pixels.shape[0]}x{pixels.shape[1]} is smaller than the tile of {tile}"))
            continue
        reduced.append(make_low_res(pixels, min(scale, min(pixels.shape[:2]) // tile)))
    report_skipped(skipped)
    if not reduced:
        raise DataError(
            f"--calibration: no picture of {len(pictures)} is as large as a tile, {tile}x{tile}. Use a smaller --tile "
            "or other pictures."
        )
    generator = np.random.default_rng(0)
    tiles = []
    for index in range(count):
        pixels = reduced[index % len(reduced)]
        top, left = (int(generator.integers(side - tile + 1)) for side in pixels.shape[:2])
        tiles.append(pixels[top : top + tile, left : left + tile])
    ramp = np.rint(np.linspace(0, 255, tile)).astype(np.uint8)
    return [*tiles, np.broadcast_to(ramp[:, None], (tile, tile, 3))]
