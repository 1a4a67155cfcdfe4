"""The size of results: a factor, or a size in pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from keras_psr.errors import ConfigError

LARGEST_FACTOR = 16

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class ResultSize:
    """The requested size of results; by default, the size that the network gives.

    Attributes:
        scale: Scale of the network.
        output_scale: Factor by which both sides grow.
        width: Width in pixels. With a height, the result fits into both.
        height: Height in pixels.
        max_side: Maximum length of the longer side, in pixels.
    """

    scale: int
    output_scale: float | None = None
    width: int | None = None
    height: int | None = None
    max_side: int | None = None

    def factor(self, height: int, width: int) -> float:
        """Returns the factor by which both sides of a picture grow.

        Raises:
            ConfigError: The factor is above `LARGEST_FACTOR`.
        """
        bounds = [wanted / side for wanted, side in ((self.width, width), (self.height, height)) if wanted]
        factor = min(bounds) if bounds else self.output_scale or self.scale
        if self.max_side:
            factor = min(factor, self.max_side / max(height, width))
        if factor > LARGEST_FACTOR:
            raise ConfigError(
                f"a picture of {width}x{height} would be enlarged {factor:.3g} times, more than {LARGEST_FACTOR}. "
                "Ask for a smaller result."
            )
        return factor

    @property
    def suffix(self) -> str:
        """The size as used in the names of results: x4, w1920, h1080, 1920x1080, max3840."""
        if self.width and self.height:
            return f"{self.width}x{self.height}"
        named = {"w": self.width, "h": self.height, "max": self.max_side}
        return next((f"{name}{side}" for name, side in named.items() if side), f"x{self.output_scale or self.scale:g}")


def size_options(command: Command) -> Command:
    """Adds the options that `read_size` reads."""
    side = click.IntRange(1, 2**31 - 1)
    options = [
        click.option(
            "--output-scale",
            type=click.FloatRange(0, LARGEST_FACTOR, min_open=True),
            metavar="X",
            help="Resize the network's result to X times the input's size, bicubically with antialiasing.",
        ),
        click.option(
            "--width", type=side, metavar="PIXELS", help="Make the result this wide; with --height, fit it into both."
        ),
        click.option("--height", type=side, metavar="PIXELS", help="Make the result this high."),
        click.option("--max-side", type=side, metavar="PIXELS", help="Shrink results whose longer side exceeds this."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def read_size(options: dict[str, Any]) -> Callable[[int], ResultSize]:
    """Removes the options of `size_options` from a command's options, and reads them.

    Returns:
        A function from the network's scale to the size of results.

    Raises:
        click.UsageError: The options exclude each other.
    """
    wanted = {name: options.pop(name) for name in ("output_scale", "width", "height", "max_side")}
    given = [f"--{name.replace('_', '-')}" for name, value in wanted.items() if value]
    if len(given) > 1 and given != ["--width", "--height"]:
        raise click.UsageError(f"{given[0]} and {given[1]} exclude each other.")
    return lambda scale: ResultSize(scale, **wanted)
