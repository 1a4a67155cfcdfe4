"""Writes tiling.json, the arithmetic of tiles along one side of a picture: `python tests/golden/make_tiling.py`.

Python, JavaScript and TypeScript must all agree with it. It is worked out here pixel by pixel from the rule of
docs/deploy.md, without keras_psr and without anything that is not in Python itself.
"""

import itertools
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("tiling.json")

DESCRIPTION = [
    "Where tiles lie along one side of a picture of `size` pixels.",
    "The extended picture has `halo` more pixels before the picture and enough of them after it, mirrored at its "
    "borders with the border pixel repeated; `mirrored` holds the picture's pixel for each place of it.",
    "A span [start, first, end] is one tile: it reads the extended picture from place `start`, `tile` pixels long, and "
    "the picture's pixels from `first` to before `end` are kept of it.",
    "`refused` holds tiles that are not larger than twice their halo, or no multiples of the grid.",
]

SHAPES = [  # tile, halo, grid
    (128, 16, 1),  # x4
    (122, 13, 1),  # x4-fast
    (368, 56, 4),  # the styles
    (9, 4, 1),  # one pixel is kept of each tile
    (12, 0, 1),
    (48, 8, 4),
]
SIZES = (1, 2, 5, 95, 96, 97, 192, 300)
REFUSED = [(32, 16, 1), (31, 16, 1), (16, 8, 4), (30, 8, 4), (0, 0, 1)]


def pixel_at(place: int, size: int) -> int:
    """Returns the pixel that a mirror at each border shows at a place, counted from the picture's first pixel."""
    while not 0 <= place < size:
        place = -1 - place if place < 0 else 2 * size - 1 - place
    return place


def tiles(size: int, tile: int, halo: int, grid: int) -> dict[str, Any]:
    """Returns the spans of one side, and the picture's pixel for each place of the extended picture."""
    middle = tile - 2 * halo
    whole = size
    while whole % grid:
        whole += 1
    starts = [0]
    while starts[-1] + middle < whole:
        starts.append(min(starts[-1] + middle, whole - middle))  # the last one is moved inward
    kept: list[list[int]] = [[] for _ in starts]
    for pixel in range(size):
        kept[next(index for index, start in enumerate(starts) if start <= pixel < start + middle)].append(pixel)
    places = range(-halo, max(whole, middle) + halo)
    return {
        "size": size,
        "tile": tile,
        "halo": halo,
        "grid": grid,
        "spans": [[start, pixels[0], pixels[-1] + 1] for start, pixels in zip(starts, kept, strict=True)],
        "mirrored": [pixel_at(place, size) for place in places],
    }


def document() -> str:
    """Returns the file's text, with a line for each case."""
    cases = [json.dumps(tiles(size, *shape)) for shape, size in itertools.product(SHAPES, SIZES)]
    refused = [json.dumps({"tile": tile, "halo": halo, "grid": grid}) for tile, halo, grid in REFUSED]
    parts = [
        f'"description": {json.dumps(DESCRIPTION, indent=2)}',
        '"cases": [\n' + ",\n".join(cases) + "\n]",
        '"refused": [\n' + ",\n".join(refused) + "\n]",
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
