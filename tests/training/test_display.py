"""What a fit shows: rates and time left by arithmetic; a bar in a terminal, a line in a notebook, else lines."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from keras_psr.tasks.config import SuperResolutionConfig
from keras_psr.training.display import FitDisplay, Pace, describe_rate

OUT = Path("runs/x4")
LOSSES = {"pixel_loss": 7.9, "loss": 8.0, "total_variation": 0.5}
SCORES = {"val_psnr_y": 29.123, "val_psnr_y_over_bicubic": 1.2, "val_feature_distance_ratio": 0.43}


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def display_in(total, clock, monkeypatch, **options):
    """A display that writes into a text, and that text."""
    monkeypatch.setattr("keras_psr.training.display.time.monotonic", clock)
    text = io.StringIO()
    display = FitDisplay(SuperResolutionConfig(steps=total), OUT, Console(file=text, width=80, **options))
    display.pace.clock = clock
    return display, text


def take_steps(display, clock, steps, seconds):
    for step in steps:
        clock.now += seconds
        display.count(step, LOSSES)


def test_the_first_step_compiles_and_is_left_out_of_the_rate(clock):
    pace = Pace(12, clock)
    for step, now in ((1, 60.0), (2, 64.0), (3, 66.0)):
        clock.now = now
        pace.count(step)
        assert (pace.rate() is None) == (step == 1)
    assert pace.rate() == 2 / 6
    assert pace.describe(3) == "0.33 steps/s, 0:00:27 left"
    assert Pace(5, clock).describe(0) == ""


def test_a_resumed_fit_counts_its_own_steps_only(clock):
    pace = Pace(1000, clock)
    for step in (901, 902):
        clock.now += 10
        pace.count(step)
    assert pace.describe(902) == "0.1 steps/s, 0:16:20 left"


@pytest.mark.parametrize(
    ("rate", "text"), [(1234.5, "1234"), (12.34, "12"), (1.26, "1.3"), (0.347, "0.35"), (0.0384, "0.038")]
)
def test_a_slow_rate_has_digits(rate, text):
    assert describe_rate(rate) == text


def test_without_a_terminal_the_second_step_and_then_the_log_tell_rate_and_time_left(clock, monkeypatch):
    display, text = display_in(110, clock, monkeypatch)
    with display:
        display.begin(0, "the CPU", "float32 (asked for)")
        take_steps(display, clock, range(1, 12), 2.0)
        display.log(12, LOSSES)
    begin, *settings, second, last = text.getvalue().splitlines()
    assert begin == "Fitting into runs/x4, on the CPU, in float32 (asked for):"
    assert " ".join(line.strip() for line in settings).startswith("task super-resolution, data sample, val sample:val")
    assert [second, last] == [
        "step 2/110: loss 8, pixel 7.9, total variation 0.5, 0.5 steps/s, 0:03:36 left",
        "step 12/110: loss 8, pixel 7.9, total variation 0.5, 0.5 steps/s, 0:03:16 left",
    ]


def test_without_a_terminal_no_minute_passes_in_silence(clock, monkeypatch):
    display, text = display_in(100, clock, monkeypatch)
    with display:
        take_steps(display, clock, range(1, 8), 26.0)
    assert [line.split(":")[0] for line in text.getvalue().splitlines()] == ["step 2/100", "step 5/100"]


def test_lines_are_written_above_the_bar_and_none_is_cut(clock, monkeypatch):
    display, text = display_in(3000, clock, monkeypatch, force_terminal=True, color_system=None)
    with display:
        display.begin(0, "the CPU", "float32 (asked for)")
        take_steps(display, clock, (1, 2, 3), 4.0)
        display.log(3, SCORES)
        take_steps(display, clock, (4,), 4.0)
    frames = text.getvalue().replace("\x1b[2K", "").split("\r")
    shown = [line.rstrip() for frame in frames for line in frame.splitlines()]
    assert max(map(len, shown)) <= 80 and not any("…" in line for line in shown)
    assert "Fitting into runs/x4, on the CPU, in float32 (asked for):" in shown
    assert "step 3/3000: validation PSNR 29.12 dB, over bicubic +1.20 dB, feature distance" in shown
    assert "0.430 of bicubic's" in shown
    bars = [line for line in shown if "steps/s" in line]
    assert bars[-1].lstrip().startswith("4/3000 ") and bars[-1].endswith("0.25 steps/s, 3:19:44 left, loss 8")


def test_a_notebook_has_one_line_that_is_updated_twice_a_second(clock, monkeypatch, capsys):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(("updated", data["text/plain"]))

    def show(data, raw, display_id):
        shown.append(("new", data["text/plain"]))
        return Handle()

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=show))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("keras_psr.training.display.time.monotonic", clock)
    clock.now = 100.0
    with FitDisplay(SuperResolutionConfig(steps=50), OUT) as display:
        display.pace.clock = clock
        display.begin(0, "the CPU", "float32 (asked for)")
        take_steps(display, clock, range(1, 51), 0.1)
        display.log(50, LOSSES)
        display.log(50, SCORES)
    kinds = [kind for kind, _ in shown]
    assert kinds == ["new", *["updated"] * 9]  # after steps 1, 7, 13, ... and 50, because 0.5 is not quite 5 times 0.1
    assert shown[-1][1] == "step 50/50: loss 8, pixel 7.9, total variation 0.5, 10 steps/s"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Fitting into runs/x4") and lines[-1].startswith("step 50/50: validation PSNR 29.12")
    assert not any("loss 8" in line for line in lines)


def test_a_terminal_that_is_gone_ends_nothing(clock, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("keras_psr.training.display.time.monotonic", clock)
    with FitDisplay(SuperResolutionConfig(steps=10), OUT, Console(file=Gone())) as display:
        display.begin(0, "the CPU", "float32 (asked for)")
        take_steps(display, clock, range(1, 4), 100.0)
        display.log(3, SCORES)
