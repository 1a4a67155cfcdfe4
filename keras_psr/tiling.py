"""Enlarging a picture tile by tile: where tiles lie, and which part of each is kept."""

from collections.abc import Callable

import numpy as np

from keras_psr.errors import ConfigError

TileFunction = Callable[[np.ndarray], np.ndarray]


def tile_starts(size: int, tile: int, halo: int) -> list[int]:
    """Where tiles begin along one side, so that each pixel is at least `halo` away from a cut in some tile.

    The last tile is shifted inward to end with the picture.

    Args:
        size: Side of the picture, in low-resolution pixels.
        tile: Side of a tile.
        halo: What a pixel needs around it (`receptive_field.receptive_halo`).

    Returns:
        Increasing starts, the first 0; one if the picture is no longer than a tile.

    Raises:
        ConfigError: The tile is all halo.
    """
    step = tile - 2 * halo
    if step < 1:
        raise ConfigError(f"tile must be larger than twice the network's halo, {2 * halo}. Received: {tile}.")
    if size <= tile:
        return [0]
    return [*range(0, size - tile, step), size - tile]


def upscale_in_tiles(upscale: TileFunction, image: np.ndarray, *, scale: int, tile: int, halo: int) -> np.ndarray:
    """Enlarges a picture with a function of square tiles.

    Args:
        upscale: From (tile, tile, 3) to (scale * tile, scale * tile, 3).
        image: (height, width, 3). A side shorter than a tile is mirrored to fill it.
        scale: Upscaling factor.
        tile: Side of a tile, in low-resolution pixels.
        halo: What a pixel needs around it.

    Returns:
        (scale * height, scale * width, 3), of the dtype that `upscale` gives.

    Raises:
        ConfigError: The tile is all halo.
    """
    height, width = image.shape[:2]
    filled = np.pad(image, [(0, max(0, tile - height)), (0, max(0, tile - width)), (0, 0)], mode="symmetric")
    rows, columns = (_kept_parts(side, tile, halo) for side in filled.shape[:2])
    output: np.ndarray | None = None
    for top, row_from, row_to in rows:
        for left, column_from, column_to in columns:
            enlarged = upscale(filled[top : top + tile, left : left + tile])
            if output is None:
                output = np.empty((filled.shape[0] * scale, filled.shape[1] * scale, 3), enlarged.dtype)
            kept = enlarged[
                (row_from - top) * scale : (row_to - top) * scale,
                (column_from - left) * scale : (column_to - left) * scale,
            ]
            output[row_from * scale : row_to * scale, column_from * scale : column_to * scale] = kept
    assert output is not None
    return output[: height * scale, : width * scale]


def _kept_parts(size: int, tile: int, halo: int) -> list[tuple[int, int, int]]:
    """(start, first kept pixel, end of the kept pixels) of each tile along one side; the kept parts do not overlap."""
    starts = tile_starts(size, tile, halo)
    ends = [*(start + tile - halo for start in starts[:-1]), size]
    return list(zip(starts, [0, *ends[:-1]], ends, strict=True))
