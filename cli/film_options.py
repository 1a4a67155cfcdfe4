"""The options of `upscale` and `stylize` that are for films."""

from fractions import Fraction
from typing import Any

import click


class Time(click.ParamType):
    """A time: seconds, or hours, minutes and seconds with colons, as in 90, 1:30 and 0:01:30.5."""

    name = "time"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Fraction:
        """Returns the time in seconds."""
        try:
            parts = [Fraction(part) for part in str(value).split(":")]
            seconds = sum((part * 60**place for place, part in enumerate(reversed(parts))), Fraction(0))
            if len(parts) <= 3 and min(parts) >= 0:
                return seconds
        except (ValueError, ZeroDivisionError):
            pass
        return self.fail(f"{value!r} is not a time; expected seconds, or h:mm:ss.", parameter, context)


FILM_OPTIONS = [
    click.option(
        "--codec",
        metavar="NAME",
        help="Codec of films: h264, hevc, av1, vp9, prores, or an encoder of FFmpeg.  "
        "[default: h264; hevc for more than 8 bits]",
    ),
    click.option(
        "--crf",
        type=click.IntRange(0, 63),
        help="Quality of films: 0 is best.  [default: 18 for h264, 20 for hevc, 24 for vp9, 25 for av1]",
    ),
    click.option("--start", type=Time(), metavar="TIME", help="Begin films here: seconds, or h:mm:ss."),
    click.option("--duration", type=Time(), metavar="TIME", help="Process this much of films."),
    click.option("--resume", is_flag=True, help="Go on with films that were interrupted."),
]
"""All are options of a batch (`batch_options.Batch`)."""
