"""Makes docs/gallery_x4.jpg and similar sheets, which show the shipped models on photographs they were not fitted to.

python tools/make_gallery.py

One sheet for each scale and kind of input: nearest | bicubic | each shipped model | original. The photographs are
those of scikit-image that are free to show: astronaut and rocket (NASA, SpaceX; public domain), chelsea and coffee
(Stefan van der Walt, Rachel Michetti; CC0).
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image

import keras_psr
from keras_psr.constants import SUPER_RESOLUTION
from keras_psr.data.degradation import degrade
from keras_psr.images.pixels import crop_to_multiple, make_low_res, resize_bicubic
from keras_psr.images.sheets import comparison_sheet
from keras_psr.inference.registry import shipped_models

DOCS = Path(__file__).parents[1] / "docs"
SIDE = 208
"""Side of the parts that are shown, in pixels; four fill the width of a page."""

PARTS = {"chelsea": (48, 104), "astronaut": (0, 304), "coffee": (176, 296), "rocket": (216, 0)}
"""Photographs, and the top left pixel of the part of each that is shown."""

JPEG_QUALITY = 88


def group_models(cards: dict[str, dict[str, Any]]) -> dict[tuple[int, str], list[str]]:
    """Returns the names of the super-resolution models by scale and degradation, `bicubic` or `photo`."""
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name, card in cards.items():
        if card["task"] == SUPER_RESOLUTION:
            groups[card["scale"], card["fit"]["config"].get("degradation", "bicubic")].append(name)
    for (scale, degradation), names in groups.items():
        if degradation == "photo":  # next to the model for clean pictures
            names[:0] = [f"x{scale}"] if f"x{scale}" in cards else []
    return groups


def make_row(photograph: str, scale: int, degradation: str, models: list[str]) -> dict[str, np.ndarray]:
    """Returns all versions of a part of a photograph. The whole photograph is enlarged, and then cut."""
    original = crop_to_multiple(getattr(skimage.data, photograph)(), scale)
    photo = degradation == "photo"
    low_res = degrade(original, scale, np.random.default_rng(0)) if photo else make_low_res(original, scale)
    versions = {
        "low resolution": low_res.repeat(scale, axis=0).repeat(scale, axis=1),
        "bicubic": resize_bicubic(low_res, *original.shape[:2]),
        **{f"keras-psr {name}": keras_psr.load(name)(low_res) for name in models},
        "original": original,
    }
    top, left = PARTS[photograph]
    return {label: version[top : top + SIDE, left : left + SIDE] for label, version in versions.items()}


def main() -> None:
    """Writes a sheet for each group of shipped models."""
    for (scale, degradation), models in group_models(shipped_models()).items():
        sheet = comparison_sheet([make_row(photograph, scale, degradation, models) for photograph in PARTS])
        path = DOCS / f"gallery_x{scale}{'' if degradation == 'bicubic' else '_' + degradation}.jpg"
        Image.fromarray(sheet).save(path, quality=JPEG_QUALITY, subsampling=0, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
