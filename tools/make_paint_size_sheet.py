"""Makes docs/paint_size.jpg: one photograph of three sizes, painted as it is and at the paint size.

python tools/make_paint_size_sheet.py [MODEL]

The photograph comes with scikit-image and is free to show: astronaut (NASA; public domain).
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

import keras_psr
from keras_psr.constants import PAINT_SIZE
from keras_psr.images.pixels import crop_center, resize_bicubic
from keras_psr.images.sheets import comparison_sheet

PATH = Path(__file__).parents[1] / "docs" / "paint_size.jpg"
SIDES = (256, 1024, 4000)
"""Sides of the photograph, in pixels."""

SHOWN = 288
"""Side of each picture on the sheet, in pixels."""


def main(model: str) -> None:
    """Writes the sheet: a row as they are and one at the paint size, and of the largest a detail at full size."""
    network = keras_psr.load(model)
    painters = {"as it is": network, f"at {PAINT_SIZE}": keras_psr.Painter(network)}
    photographs = [resize_bicubic(skimage.data.astronaut(), side, side) for side in SIDES]
    rows = []
    for name, paint in painters.items():
        painted = dict(zip(SIDES, map(paint, photographs), strict=True))
        row: dict[str, np.ndarray] = {
            f"{side:,}, {name}": resize_bicubic(picture, SHOWN, SHOWN) for side, picture in painted.items()
        }
        rows.append(row | {f"detail, {name}": crop_center(painted[SIDES[-1]], SHOWN)})
    Image.fromarray(comparison_sheet(rows)).save(PATH, quality=85, subsampling=0, optimize=True)
    print(f"{PATH}: {PATH.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["starry-night"]))
