"""What several commands need: plain lines on stderr, and the model that a user means."""

from typing import TYPE_CHECKING

import click

from keras_psr.constants import SCALES
from keras_psr.errors import ConfigError

if TYPE_CHECKING:
    from keras_psr.inference import Upscaler

DEFAULT_SCALE = 4

model_option = click.option(
    "--model",
    metavar="MODEL",
    help="A shipped model's name (x4, x4_int8), a run folder, or a .tflite or .keras file.  "
    "[default: the shipped model for the scale]",
)
scale_option = click.option(
    "--scale",
    type=click.Choice(SCALES),
    help=f"Upscaling factor.  [default: the model's; {DEFAULT_SCALE} without --model]",
)


def say(line: str) -> None:
    """Writes a line for people, on stderr."""
    click.echo(line, err=True)


def load_model(model: str | None, scale: int | None, threads: int | None = None) -> "Upscaler":
    """Loads the model of `--model` and `--scale`.

    Args:
        model: What `inference.load` takes; None for the shipped model of the scale.
        scale: The scale that the user asked for, if any.
        threads: Tiles to compute at once; None for one on each core.

    Returns:
        The network as a function of pictures.

    Raises:
        ConfigError: The model is of another scale.
        ModelError: It cannot be loaded.
    """
    from keras_psr.inference import load

    name = model or f"x{scale or DEFAULT_SCALE}"
    upscaler = load(name, threads=threads)
    if scale not in (None, upscaler.scale):
        raise ConfigError(
            f"--scale {scale} does not fit the model {name}, which enlarges {upscaler.scale} times. "
            "Leave --scale out, or give another --model."
        )
    return upscaler
