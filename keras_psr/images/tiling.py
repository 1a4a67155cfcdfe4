"""Enlarging a picture tile by tile: where tiles lie, and which part of each is kept."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from keras_psr.errors import ConfigError

TileFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Span:
    """One tile along one side of a picture.

    Attributes:
        start: First pixel that the tile reads, counted in the picture extended by the halo.
        first: First pixel of the picture that is kept.
        end: The pixel behind the last one that is kept.
    """

    start: int
    first: int
    end: int


def tile_starts(size: int, tile: int, halo: int, grid: int = 1) -> list[int]:
    """Where tiles begin along one side of a picture that has been extended by `halo` pixels at both ends.

    The middle of a tile, without `halo` pixels at both ends, is what can be kept of it. The last tile is shifted inward
    so that its middle ends with the picture.

    Args:
        size: Side of the picture, in low-resolution pixels, not extended.
        tile: Side of a tile.
        halo: What a pixel needs around it (`receptive_field.receptive_halo`).
        grid: Number of which all starts must be multiples (`receptive_field.pixel_grid`). `tile` and `halo` are, and
            the picture is thought to be extended to one.

    Returns:
        Increasing starts in the extended picture, the first 0; one if the picture is no longer than a tile's middle.

    Raises:
        ConfigError: The tile is all halo, or not a multiple of the grid.
    """
    if tile % grid:
        raise ConfigError(f"tile must be a multiple of the network's grid, {grid}. Received: {tile}.")
    size, step = math.ceil(size / grid) * grid, tile - 2 * halo
    if step < 1:
        raise ConfigError(f"tile must be larger than twice the network's halo, {2 * halo}. Received: {tile}.")
    return [*range(0, size - step, step), max(0, size - step)]


def upscale_in_tiles(
    upscale: TileFunction,
    image: np.ndarray,
    *,
    scale: int,
    tile: int | tuple[int, int],
    halo: int,
    grid: int = 1,
    dtype: DTypeLike = np.float32,
    map_tiles: Callable[[Callable[[tuple[Span, Span]], int], Iterable[tuple[Span, Span]]], Iterator[int]] = map,
    on_pixels: Callable[[int], None] = lambda pixels: None,
) -> np.ndarray:
    """Enlarges a picture with a function of tiles, with the same result whatever their size.

    The picture is thought to be extended by mirroring, `halo` pixels beyond each border and as far as a tile reaches.
    Each pixel then is at least `halo` pixels away from the edge of the tile that it is taken from, so the zeros with
    which convolutions pad a tile do not show, neither at seams nor at the picture's own borders.

    Args:
        upscale: From (tile height, tile width[, channels]) to `scale` times that, or to the middle of it, without as
            much as the halo at each side; of several threads at once if `map_tiles` has them.
        image: (height, width) or (height, width, channels).
        scale: Upscaling factor.
        tile: Side of a tile, or its height and width, in low-resolution pixels.
        halo: What a pixel needs around it.
        grid: Number of which tiles begin at multiples, as for `tile_starts`.
        dtype: Of the result; what `upscale` gives is converted.
        map_tiles: Applies a function to all tiles, as `map` does or `Executor.map`.
        on_pixels: Called after each tile with the number of pixels of the result that it filled.

    Returns:
        (scale * height, scale * width[, channels]), filled in place: no other array of its size is made.

    Raises:
        ConfigError: The tile is all halo.
    """
    height, width = image.shape[:2]
    tile_height, tile_width = (tile, tile) if isinstance(tile, int) else tile
    rows, columns = spans(height, tile_height, halo, grid), spans(width, tile_width, halo, grid)
    row_sources, column_sources = _mirrored(height, tile_height, halo, grid), _mirrored(width, tile_width, halo, grid)
    output = np.empty((height * scale, width * scale, *image.shape[2:]), dtype)

    def fill(place: tuple[Span, Span]) -> int:
        row, column = place
        read_rows = row_sources[row.start : row.start + tile_height]
        read_columns = column_sources[column.start : column.start + tile_width]
        enlarged = upscale(image[read_rows[:, None], read_columns])
        missing = (tile_height * scale - enlarged.shape[0]) // 2
        # Pixel p of the picture is pixel p + halo of the extended one, so p + halo - start of the tile.
        top, left = ((span.first + halo - span.start) * scale - missing for span in place)
        kept = output[row.first * scale : row.end * scale, column.first * scale : column.end * scale]
        kept[...] = enlarged[top : top + kept.shape[0], left : left + kept.shape[1]]
        return kept.shape[0] * kept.shape[1]

    for pixels in map_tiles(fill, [(row, column) for row in rows for column in columns]):
        on_pixels(pixels)
    return output


def spans(size: int, tile: int, halo: int, grid: int = 1) -> list[Span]:
    """The tiles along one side; what they keep follows one another without a gap.

    Raises:
        ConfigError: The tile is all halo, or not a multiple of the grid.
    """
    starts = tile_starts(size, tile, halo, grid)
    ends = [min(size, start + tile - 2 * halo) for start in starts]
    return [Span(*numbers) for numbers in zip(starts, [0, *ends[:-1]], ends, strict=True)]


def _mirrored(size: int, tile: int, halo: int, grid: int) -> np.ndarray:
    """The pixel of the picture that stands at each place of the extended one, which is as long as a tile at least."""
    needed = max(math.ceil(size / grid) * grid, tile - 2 * halo)
    return np.pad(np.arange(size), (halo, halo + needed - size), mode="symmetric")
