"""Makes docs/gallery_styles.jpg, which shows the shipped styles on photographs they were not fitted to.

python tools/make_style_gallery.py [MODEL...]

The photographs come with scikit-image and are free to show: astronaut and rocket (NASA, SpaceX; public domain), chelsea
and coffee (Stefan van der Walt, Rachel Michetti; CC0).
"""

import sys
from pathlib import Path

import skimage.data
from PIL import Image

import keras_psr
from keras_psr.constants import STYLE_TRANSFER
from keras_psr.images.sheets import comparison_sheet
from keras_psr.inference.registry import shipped_models
from keras_psr.tasks.style_transfer.evaluation import square

PATH = Path(__file__).parents[1] / "docs" / "gallery_styles.jpg"
PHOTOGRAPHS = ("chelsea", "coffee", "astronaut")
SIDE = 288
"""Side of each picture, in pixels."""


def main(models: list[str]) -> None:
    """Writes the sheet: a row for each photograph, with the photograph painted in each style."""
    styles = {Path(model).name: keras_psr.load(model) for model in models}
    photographs = [square(getattr(skimage.data, name)(), SIDE) for name in PHOTOGRAPHS]
    rows = [{"photograph": photo} | {name: paint(photo) for name, paint in styles.items()} for photo in photographs]
    Image.fromarray(comparison_sheet(rows)).save(PATH, quality=88, subsampling=0, optimize=True)
    print(f"{PATH}: {PATH.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    shipped = [name for name, card in shipped_models().items() if card["task"] == STYLE_TRANSFER]
    main(sys.argv[1:] or shipped)
