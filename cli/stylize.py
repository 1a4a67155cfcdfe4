"""The `keras-psr stylize` command, which paints pictures."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from keras_psr.cli.batch_jobs import OnPixels, Work
from keras_psr.cli.batch_options import Batch, batch_options
from keras_psr.cli.batch_run import work_through
from keras_psr.cli.model_options import (
    complete_models,
    device_option,
    load_model,
    name_model,
    result_options,
    threads_option,
)
from keras_psr.cli.result_size import read_size
from keras_psr.cli.terminal import say
from keras_psr.constants import PAINT_SIZE, STYLE_TRANSFER
from keras_psr.environment import require_everything
from keras_psr.tasks.config import StyleConfig

if TYPE_CHECKING:
    from keras_psr.images.photo import Photo
    from keras_psr.inference.upscaler import Upscaler
    from keras_psr.tasks.style_transfer.optimization import PixelOptimizer

DEFAULT_ITERATIONS = 300


@click.command()
@click.option(
    *("-m", "-n", "--model"),
    metavar="MODEL",
    help="A shipped style's name (starry-night, starry-night_int8), a run folder, or a .tflite or .keras file.",
    shell_complete=complete_models(task=STYLE_TRANSFER),
)
@click.option(
    "--style",
    type=click.Path(dir_okay=False),
    help="A painting instead of a model: each picture is optimised, which takes a thousand times as long.",
)
@click.option(
    "--iterations",
    type=click.IntRange(1),
    help=f"Iterations of L-BFGS, with --style.  [default: {DEFAULT_ITERATIONS}]",
)
@click.option("--from-noise", is_flag=True, help="Begin with white noise instead of the picture, with --style.")
@click.option(
    "--style-size",
    type=click.IntRange(32),
    help=f"Longer side to which the painting is reduced, with --style.  [default: {StyleConfig.style_size}]",
)
@click.option(
    "--style-weight",
    type=click.FloatRange(0, min_open=True),
    help=f"Weight of the style, with --style.  [default: {StyleConfig.style_weight:g}]",
)
@click.option(
    "--paint-size",
    type=click.IntRange(0),
    metavar="PIXELS",
    default=PAINT_SIZE,
    show_default=True,
    help="Shorter side at which larger pictures are painted, before a network enlarges the painting; 0 for their own.",
)
@click.option("--preserve-colors", is_flag=True, help="Keep the colours of the picture: only brightness is painted.")
@result_options
@threads_option
@device_option
@batch_options(suffix="_ and the name of the model or painting", file_format="png")
def stylize(**options: Any) -> None:
    """Paint pictures, animations and films in a style, with a fitted network or by optimisation.

    INPUT is a picture, an animation, a film (pip install 'keras-psr[video]'), a folder, which is searched recursively,
    or a quoted glob. photo.jpg becomes photo_starry-night.png next to it, and clip.mp4 becomes clip_starry-night.mp4.
    In folders and globs, results of keras-psr and names that end in the suffix are left out. - is stdin, whose result
    goes to stdout unless -o says otherwise.

    With --style there is no network: the pixels themselves are changed until they look like the painting. That is how
    to try a painting before fitting a network to it.

    Strokes have a fixed size in pixels. Therefore larger pictures are reduced to --paint-size, painted, and enlarged to
    their own size by another network.

    Transparency, grey, 16 bits, colour profile, EXIF data and resolution are kept if the format can store them.
    Pictures are turned upright. An interrupted run leaves no incomplete files: continue it with --skip-existing. What
    is done of a film is kept, and --resume continues it.

    \b
    Examples:
      keras-psr stylize photo.jpg --model starry-night
      keras-psr stylize holiday/ -o painted/ --model runs/starry-night --strength 0.8 --preserve-colors
      keras-psr stylize photo.jpg --style painting.jpg --iterations 500 -o slow.png
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    work_through(*prepare(**options))


def prepare(
    model: str | None,
    style: str | None,
    iterations: int | None,
    from_noise: bool,
    style_size: int | None,
    style_weight: float | None,
    paint_size: int,
    threads: int | None,
    device: str,
    **options: Any,
) -> tuple[Batch, Callable[[], Work]]:
    """Returns the batch that the command's options describe, and a function that loads the model for it.

    Raises:
        click.UsageError: The options exclude each other.
    """
    if (model is None) == (style is None):
        raise click.UsageError("Give a --model, or a painting with --style.")
    given = {"iterations": iterations, "from_noise": from_noise, "style_size": style_size, "style_weight": style_weight}
    flags = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if model and flags:
        raise click.UsageError(f"{flags[0]} goes with --style, not with --model.")
    names = ("strength", "match_histogram", "preserve_colors")
    result = {name: options.pop(name) for name in names}
    size_at = read_size(options)
    passes = iterations or DEFAULT_ITERATIONS if style else 1

    def load_enlarger(name: str) -> "Upscaler":
        from keras_psr.inference.upscaler import load

        return load(name, threads=threads, device=device if model else "auto")

    def load_work() -> Work:
        from keras_psr.inference.painting import Painter
        from keras_psr.inference.photos import upscale_photo

        if model:
            network: Upscaler | PixelOptimizer = load_model(model, threads=threads, device=device, task=STYLE_TRANSFER)
        else:
            settings = {"style": style, "style_size": style_size, "style_weight": style_weight}
            network = build_pixel_optimizer(settings, passes, from_noise)
        painter = Painter(network, paint_size, passes=passes, load_enlarger=load_enlarger)
        size, name = size_at(1), name_model(model or style or "")

        def process(photo: "Photo", on_pixels: OnPixels) -> "Photo":
            factor = size.factor(*photo.pixels.shape[:2])
            return upscale_photo(painter, photo, output_scale=factor, on_pixels=on_pixels, **result)

        return Work("stylize", name, lambda name: process, size, f"_{name}", passes)

    return Batch(**options), load_work


def build_pixel_optimizer(settings: dict[str, Any], iterations: int, from_noise: bool) -> "PixelOptimizer":
    """Returns the optimisation towards a painting by a fit's loss without the phase loss. It prints each iteration."""
    require_everything("keras-psr stylize --style")
    from keras_psr.tasks.style_transfer.optimization import PixelOptimizer
    from keras_psr.tasks.style_transfer.task import build_loss

    given = {name: value for name, value in settings.items() if value}
    loss = build_loss(StyleConfig.from_json({"phase_weight": 0.0, "precision": "float32", **given}))

    def on_iteration(iteration: int, objective: float) -> None:
        say(f"iteration {iteration}/{iterations}: objective {objective:.5g}")

    return PixelOptimizer(loss, iterations, from_noise=from_noise, on_iteration=on_iteration)
