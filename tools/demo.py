"""The first and the last step of `make demo`; between them, `keras-psr` fits, exports, upscales and scores.

`demo.py before FOLDER` writes original.png and low_res.png; `demo.py after FOLDER` writes sheet.png from these and
upscaled.png.
"""

from pathlib import Path

import click
import numpy as np

from keras_psr.data.sources import open_source
from keras_psr.images.decoding import read_rgb
from keras_psr.images.encoding import write_image
from keras_psr.images.pixels import crop_to_multiple, make_low_res, resize_bicubic
from keras_psr.images.sheets import comparison_sheet

SCALE = 4
DETAIL = (slice(190, 323), slice(230, 430))
DETAIL_ZOOM = 3
"""Rows and columns of the part that the sheet also shows enlarged, and by how much."""


@click.command()
@click.argument("when", type=click.Choice(["before", "after"]))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(when: str, folder: Path) -> None:
    """Prepares the held-out photograph, or puts the results side by side."""
    if when == "before":
        (photograph,) = open_source("sample:val")
        original = crop_to_multiple(photograph.read(), SCALE)
        write_image(folder / "original.png", original)
        write_image(folder / "low_res.png", make_low_res(original, SCALE))
    else:
        low_res, original = read_rgb(folder / "low_res.png"), read_rgb(folder / "original.png")
        pictures = {
            "nearest": enlarge_nearest(low_res, SCALE),
            "bicubic": resize_bicubic(low_res, *original.shape[:2]),
            "ours": read_rgb(folder / "upscaled.png"),
            "original": original,
        }
        details = {name: enlarge_nearest(picture[DETAIL], DETAIL_ZOOM) for name, picture in pictures.items()}
        write_image(folder / "sheet.png", comparison_sheet([details, pictures]))
        click.echo(f"Open {folder / 'sheet.png'}: nearest | bicubic | ours | original; a detail above.")


def enlarge_nearest(image: np.ndarray, scale: int) -> np.ndarray:
    """Enlarges a picture by repeating each pixel."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


if __name__ == "__main__":
    main()
