"""Processes a picture tile by tile: where tiles lie, and which part of each is kept."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from keras_psr.errors import ConfigError

TileFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Geometry:
    """How a network's output pixels relate to its input pixels (`receptive_field.measure_geometry`).

    Attributes:
        scale: Output pixels per input pixel along one side; 1 for style transfer.
        halo: Width of the border of a tile that the output of its middle depends on, in input pixels; a multiple of
            `grid`.
        grid: Divisor of the sides and positions of tiles, in input pixels; 1 for a network without strides.
    """

    scale: int
    halo: int
    grid: int = 1

    def whole_blocks(self, size: int) -> int:
        """Returns `size` rounded up to a multiple of the grid, in input pixels."""
        return math.ceil(size / self.grid) * self.grid

    def middle(self, tile: int) -> int:
        """Returns the side of a tile without its halo, in input pixels.

        Raises:
            ConfigError: The tile is not larger than its halo, or not a multiple of the grid.
        """
        around = 2 * self.halo
        if tile <= around or tile % self.grid:
            multiple = f"a multiple of {self.grid} and " if self.grid > 1 else ""
            raise ConfigError(
                f"tile must be {multiple}larger than twice the network's halo, {around}. Received: {tile}."
            )
        return tile - around


@dataclass(frozen=True)
class Span:
    """One tile along one side of a picture.

    Attributes:
        start: First pixel that the tile reads, counted in the picture extended by the halo.
        first: First pixel of the picture that is kept.
        end: The pixel after the last one that is kept.
    """

    start: int
    first: int
    end: int


def tile_starts(size: int, tile: int, geometry: Geometry) -> list[int]:
    """Returns the starts of tiles along one side of a picture that has been extended by the halo at both ends.

    Only the middle of a tile, without its halo, is kept. The last tile is shifted inward so that its middle ends where
    the picture ends, with the picture's side rounded up to a multiple of the grid.

    Args:
        size: Side of the picture, in input pixels, not extended.
        tile: Side of a tile, in input pixels.
        geometry: The network's geometry.

    Returns:
        Increasing positions in the extended picture, beginning with 0; a single one if the picture is not larger than
        a tile's middle.

    Raises:
        ConfigError: The tile is not larger than its halo, or not a multiple of the grid.

    Example:
        >>> tile_starts(100, 48, Geometry(scale=2, halo=8))
        [0, 32, 64, 68]
    """
    size, step = geometry.whole_blocks(size), geometry.middle(tile)
    return [*range(0, size - step, step), max(0, size - step)]


def upscale_in_tiles(
    upscale: TileFunction,
    image: np.ndarray,
    geometry: Geometry,
    *,
    tile: int | tuple[int, int],
    dtype: DTypeLike = np.float32,
    map_tiles: Callable[[Callable[[tuple[Span, Span]], int], Iterable[tuple[Span, Span]]], Iterator[int]] = map,
    on_pixels: Callable[[int], None] = lambda pixels: None,
) -> np.ndarray:
    """Enlarges a picture with a function of tiles. The result does not depend on the tile size.

    The picture is extended beyond its borders by mirroring, by the halo and as far as the last tile reaches. Each
    pixel is therefore at least the halo away from the edge of the tile that it is taken from, so that the zeros with
    which convolutions pad a tile never show, neither at seams nor at the picture's own borders.

    Args:
        upscale: A function from a tile (tile height, tile width[, channels]) to the tile enlarged by the scale, with
            its halo or without all or part of it. It must be thread-safe if `map_tiles` uses threads.
        image: (height, width) or (height, width, channels).
        geometry: The network's geometry; its halo may be larger than the network needs.
        tile: Side of a tile, or its height and width, in input pixels.
        dtype: Dtype of the result, to which the output of `upscale` is converted.
        map_tiles: Applies a function to all tiles, as `map` or `Executor.map` does.
        on_pixels: Called after each tile with the number of output pixels that it filled.

    Returns:
        (scale * height, scale * width[, channels]), filled in place: no other array of its size is allocated.

    Raises:
        ConfigError: The tile is not larger than its halo, or not a multiple of the grid.

    Example:
        geometry = measure_geometry(network)
        enlarged = upscale_in_tiles(lambda tile: network(tile[None])[0].numpy(), image, geometry, tile=128)
    """
    scale, halo, (height, width) = geometry.scale, geometry.halo, image.shape[:2]
    tile_height, tile_width = (tile, tile) if isinstance(tile, int) else tile
    rows, columns = spans(height, tile_height, geometry), spans(width, tile_width, geometry)
    row_sources, column_sources = _mirrored(height, tile_height, geometry), _mirrored(width, tile_width, geometry)
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


def spans(size: int, tile: int, geometry: Geometry) -> list[Span]:
    """Returns the tiles along one side. The parts that they keep adjoin without gaps.

    Raises:
        ConfigError: The tile is not larger than its halo, or not a multiple of the grid.

    Example:
        >>> spans(60, 48, Geometry(scale=2, halo=8))
        [Span(start=0, first=0, end=32), Span(start=28, first=32, end=60)]
    """
    starts = tile_starts(size, tile, geometry)
    ends = [min(size, start + geometry.middle(tile)) for start in starts]
    return [Span(*numbers) for numbers in zip(starts, [0, *ends[:-1]], ends, strict=True)]


def _mirrored(size: int, tile: int, geometry: Geometry) -> np.ndarray:
    """Returns the picture's pixel for each position in the extended picture, which is at least as long as a tile."""
    halo, needed = geometry.halo, max(geometry.whole_blocks(size), geometry.middle(tile))
    return np.pad(np.arange(size), (halo, halo + needed - size), mode="symmetric")
