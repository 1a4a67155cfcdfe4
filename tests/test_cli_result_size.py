"""Sizes in pixels become factors that give exactly these sizes."""

import click
import pytest

from keras_psr.cli.result_size import ResultSize, read_size
from keras_psr.errors import ConfigError
from keras_psr.inference.photos import output_size

NONE = {"output_scale": None, "width": None, "height": None, "max_side": None}


def resize(rows, columns, **wanted):
    return output_size(rows, columns, ResultSize(4, **wanted).factor(rows, columns))


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        ({}, (400, 600)),
        ({"output_scale": 1.5}, (150, 225)),
        ({"width": 1920}, (1280, 1920)),
        ({"width": 75}, (50, 75)),
        ({"height": 333}, (333, 500)),
        ({"width": 300, "height": 1000}, (200, 300)),
        ({"width": 1000, "height": 300}, (300, 450)),
        ({"max_side": 300}, (200, 300)),
        ({"max_side": 9999}, (400, 600)),
    ],
)
def test_a_picture_of_150_by_100(wanted, size):
    assert resize(100, 150, **wanted) == size


@pytest.mark.parametrize("width", [1, 7, 97, 641, 1013])
def test_the_width_is_exact(width):
    for wanted in range(max(1, width // 3), 16 * width, max(1, width // 5)):
        assert resize(50, width, width=wanted)[1] == wanted


@pytest.mark.parametrize(
    ("wanted", "suffix"),
    [
        ({}, "x4"),
        ({"output_scale": 1.5}, "x1.5"),
        ({"width": 1920}, "w1920"),
        ({"height": 1080}, "h1080"),
        ({"width": 1920, "height": 1080}, "1920x1080"),
        ({"max_side": 3840}, "max3840"),
    ],
)
def test_names_tell_the_size(wanted, suffix):
    assert ResultSize(4, **wanted).suffix == suffix


def test_more_than_16_times_is_refused():
    assert resize(100, 100, width=1600) == (1600, 1600)
    with pytest.raises(ConfigError, match="100x100 would be enlarged 16.1 times, more than 16"):
        resize(100, 100, width=1610)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"output_scale": 2.0, "width": 5}, "--output-scale and --width"),
        ({"height": 5, "max_side": 5}, "--height and --max-side"),
        ({"width": 5, "height": 5, "max_side": 5}, "--width and --height"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(options, named):
    with pytest.raises(click.UsageError, match="exclude each other"):
        read_size({**NONE, **options})


def test_the_options_are_taken_out():
    options = {**NONE, "width": 7, "other": 1}
    assert read_size(options)(2) == ResultSize(2, width=7)
    assert options == {"other": 1}
