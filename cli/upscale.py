"""`keras-psr upscale`: pictures in, enlarged pictures out."""

from typing import Any

import click

from keras_psr.cli.batches import Batch, Work, batch_options, work_through
from keras_psr.cli.shared import device_option, load_model, model_option, result_options, scale_option, threads_option


@click.command()
@model_option
@scale_option
@result_options
@threads_option
@device_option
@batch_options(suffix="_x4, for scale 4", file_format="png")
def upscale(
    model: str | None,
    scale: int | None,
    output_scale: float | None,
    match_histogram: bool,
    strength: float,
    threads: int | None,
    device: str,
    **batch: Any,
) -> None:
    """Upscale pictures with a fitted network.

    INPUT is a picture, a folder, which is searched recursively, or a quoted glob. photo.jpg becomes photo_x4.png beside
    it. In folders and globs, pictures whose names end in the suffix already are left out.

    Transparency, grey, 16 bits, colour profile, EXIF data and resolution are kept where the format holds them; pictures
    are turned upright. An interrupted run leaves no half files: go on with --skip-existing.

    \b
    Examples:
      keras-psr upscale photo.jpg
      keras-psr upscale photo.jpg -o big.png --model runs/x4
      keras-psr upscale holiday/ "scans/*.tif" -o enlarged/ --format jpg --quality 92 --skip-existing
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap

    def load() -> Work:
        from keras_psr.upscaling import upscale_photo

        upscaler = load_model(model, scale, threads, device)
        options: dict[str, Any] = {
            "output_scale": output_scale,
            "strength": strength,
            "match_histogram": match_histogram,
        }
        factor = output_scale or upscaler.scale
        return Work(
            verb="upscale",
            process=lambda photo, on_pixels: upscale_photo(upscaler, photo, on_pixels=on_pixels, **options),
            scale=upscaler.scale,
            output_scale=factor,
            suffix=f"_x{factor:g}",
        )

    work_through(Batch(**batch), load)
