"""The `keras-psr upscale` command, which enlarges pictures."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from keras_psr.cli.batch_jobs import OnPixels, Process, Work
from keras_psr.cli.batch_options import Batch, batch_options
from keras_psr.cli.batch_run import work_through
from keras_psr.cli.model_options import (
    DEFAULT_SCALE,
    device_option,
    load_model,
    model_option,
    name_model,
    result_options,
    scale_option,
    threads_option,
)
from keras_psr.cli.result_size import read_size
from keras_psr.cli.terminal import say

if TYPE_CHECKING:
    from keras_psr.images.photo import Photo


@click.command()
@model_option("the shipped model for the scale that suits each file")
@scale_option
@result_options
@threads_option
@device_option
@batch_options(suffix="_x4, for scale 4", file_format="png")
def upscale(**options: Any) -> None:
    """Upscale pictures, animations and films with a fitted network.

    INPUT is a picture, an animation, a film (pip install 'keras-psr[video]'), a folder, which is searched recursively,
    or a quoted glob. photo.jpg becomes photo_x4.png next to it, and clip.mp4 becomes clip_x4.mp4. In folders and globs,
    results of keras-psr and names that end in the suffix are left out. - is stdin, whose result goes to stdout unless
    -o says otherwise.

    Without --model, lossy files, such as most JPEGs, are enlarged by the model that smooths their artefacts, if one is
    shipped for the scale, and all others by the plain model. A line says what was chosen.

    Transparency, grey, 16 bits, colour profile, EXIF data and resolution are kept if the format can store them.
    Pictures are turned upright. An interrupted run leaves no incomplete files: continue it with --skip-existing. What
    is done of a film is kept, and --resume continues it.

    \b
    Examples:
      keras-psr upscale photo.jpg
      keras-psr upscale photo.jpg -o big.png --model runs/x4
      keras-psr upscale photo.jpg --width 3840
      keras-psr upscale holiday/ "scans/*.tif" -o enlarged/ --format jpg --quality 92 --skip-existing
      keras-psr upscale clip.mp4 --model x2-fast --start 1:30 --duration 10
      curl -s https://example.com/photo.jpg | keras-psr upscale - > big.png
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    work_through(*prepare(**options))


def prepare(
    model: str | None,
    scale: int | None,
    match_histogram: bool,
    strength: float,
    threads: int | None,
    device: str,
    **options: Any,
) -> tuple[Batch, Callable[[], Work]]:
    """Returns the batch that the command's options describe, and a function that loads the model for it.

    Raises:
        click.UsageError: The options exclude each other.
    """
    size_at = read_size(options)

    def load() -> Work:
        named = load_model(model, scale, threads, device) if model else None
        size = size_at(named.scale if named else scale or DEFAULT_SCALE)
        say_once = cache(say)  # two models on the same device give the same line

        def load_named(name: str) -> Process:
            from keras_psr.inference.photos import upscale_photo

            upscaler = named or load_model(name, scale, threads, device, on_device=say_once)

            def process(photo: "Photo", on_pixels: OnPixels) -> "Photo":
                return upscale_photo(
                    upscaler,
                    photo,
                    output_scale=size.factor(*photo.pixels.shape[:2]),
                    strength=strength,
                    match_histogram=match_histogram,
                    on_pixels=on_pixels,
                )

            return process

        return Work("upscale", name_model(model) if model else None, load_named, size, f"_{size.suffix}")

    return Batch(**options), load
