"""Makes the pictures of web/page/public/: a photo to try the page with, and what shipped styles make of it.

python tools/make_page_pictures.py

The photograph is scikit-image's chelsea, by Stefan van der Walt (CC0).
"""

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

import keras_psr
from keras_psr.constants import STYLE_TRANSFER
from keras_psr.images.pixels import resize_bicubic
from keras_psr.inference.registry import shipped_models

PUBLIC = Path(__file__).parents[1] / "web" / "page" / "public"
HEIGHT, WIDTH = 240, 360
SIDE = 176
"""Side of a style's picture, in pixels, which is twice the side on the page."""

TOP, LEFT = 32, 92
"""Position of that picture in the sample, which shows the face."""


def main() -> None:
    """Writes the pictures."""
    sample = resize_bicubic(skimage.data.chelsea()[:, :450], HEIGHT, WIDTH)
    save(sample, PUBLIC / "sample.jpg", quality=92)
    for name, card in shipped_models().items():
        if card["task"] == STYLE_TRANSFER:
            painted = keras_psr.load(name)(sample)
            save(painted[TOP : TOP + SIDE, LEFT : LEFT + SIDE], PUBLIC / "styles" / f"{name}.jpg", quality=82)


def save(image: np.ndarray, path: Path, quality: int) -> None:
    """Writes a JPEG."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(path, quality=quality, optimize=True)


if __name__ == "__main__":
    main()
