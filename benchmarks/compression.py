"""Finds the quality above which compressed pictures are enlarged better by the model for clean pictures.

python benchmarks/compression.py x4 x4-photo --data photos/

Pictures are shrunk, compressed as files of many kinds and qualities, and enlarged by both models. Each column has the
score of the first model, of the second, and the second's minus the first's. `images/compression.py` takes its limit
from this table.
"""

import io

import click
import numpy as np
from PIL import Image

import keras_psr
from keras_psr.data.sources import open_sources
from keras_psr.images.metrics import mean_scores
from keras_psr.images.pixels import crop_to_multiple, make_low_res
from keras_psr.losses.vgg import build_vgg
from keras_psr.tasks.super_resolution.evaluation import FEATURE_TAP, score_picture, vgg_responses

KINDS: dict[str, dict[str, object]] = {
    "PNG": {"format": "PNG"},
    **{
        f"JPEG {quality}, {name}": {"format": "JPEG", "quality": quality, "subsampling": name}
        for quality in (60, 75, 85, 90, 93, 95, 97, 100)
        for name in ("4:2:0", "4:4:4")
    },
    **{f"WebP {quality}": {"format": "WEBP", "quality": quality} for quality in (60, 75, 90, 100)},
    **{f"AVIF {quality}": {"format": "AVIF", "quality": quality} for quality in (45, 60, 75, 90)},
}
SHOWN = ("psnr_y", "psnr_rgb", "feature_distance")


def compress(image: np.ndarray, options: dict[str, object]) -> np.ndarray:
    """Returns the picture as it comes back from a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, **options)
    return np.asarray(Image.open(file).convert("RGB"))


@click.command()
@click.argument("clean")
@click.argument("photo")
@click.option("--data", required=True, help="Folder of originals that neither model was fitted to.")
def main(clean: str, photo: str, data: str) -> None:
    """Prints the scores of CLEAN and PHOTO for each kind of file."""
    upscalers = [keras_psr.load(name) for name in (clean, photo)]
    scale, vgg = upscalers[0].scale, build_vgg([FEATURE_TAP])
    originals = [crop_to_multiple(picture.read(), scale) for picture in open_sources([data])]
    expected = [vgg_responses(original, vgg) for original in originals]
    click.echo(f"{'':16} {'  '.join(f'{name:>24}' for name in SHOWN)}")
    for kind, options in KINDS.items():
        smalls = [compress(make_low_res(original, scale), options) for original in originals]
        rows = [
            mean_scores(
                [
                    score_picture(upscaler(small), original, scale, vgg, responses)
                    for small, original, responses in zip(smalls, originals, expected, strict=True)
                ]
            )
            for upscaler in upscalers
        ]
        cells = [f"{rows[0][name]:8.5g} {rows[1][name]:8.5g} {rows[1][name] - rows[0][name]:+.3g}" for name in SHOWN]
        click.echo(f"{kind:16} {'  '.join(f'{cell:>24}' for cell in cells)}")


if __name__ == "__main__":
    main()
