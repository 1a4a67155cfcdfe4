"""How numbers are shown: in lines, in columns, and where a file is rejected."""

import math

import pytest

from keras_psr.constants import STYLE_TRANSFER, SUPER_RESOLUTION
from keras_psr.tasks.config import CONFIGS
from keras_psr.tasks.registry import TASKS
from keras_psr.tasks.report import REPORTS, Measure

ENLARGES, PAINTS = REPORTS[SUPER_RESOLUTION], REPORTS[STYLE_TRANSFER]


def test_each_task_has_settings_a_report_and_functions():
    assert list(CONFIGS) == list(REPORTS) == list(TASKS) == [SUPER_RESOLUTION, STYLE_TRANSFER]


def test_a_validation_tells_the_scores_that_are_there():
    scores = {"val_psnr_y": 29.123, "val_psnr_y_over_bicubic": 1.2, "val_feature_distance_ratio": 0.43}
    text = "PSNR 29.12 dB, over bicubic +1.20 dB, feature distance 0.430 of bicubic's"
    assert ENLARGES.describe_validation({**scores, "val_ssim_y": 0.8}) == text
    assert PAINTS.describe_validation({"val_loss": 0.5, "val_style_loss": 0.2}) == "loss 0.5, style 0.2"
    assert ENLARGES.describe_validation({"loss": 8.0, "pixel_loss": 7.9}) == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_what_is_not_defined_is_a_dash(value):
    assert Measure("", ".2f", " dB").show(value) == "-"


def test_a_drop_is_shown_as_what_is_gained():
    row = {"psnr_y_drop": 0.25, "ssim_y_drop": -0.001, "feature_distance_change": 0.0125}
    shown = [measure.show(row[name]) for name, measure in ENLARGES.export.items()]
    assert shown == ["-0.2500", "+0.0010", "+1.25%"]


def test_only_rejected_files_are_named():
    good = {"file": "a.tflite", "accepted": True, "psnr_y_drop": 0.0, "psnr": 60.0}
    bad = {"file": "b.tflite.rejected", "accepted": False, "psnr_y_drop": 0.25, "psnr": 21.57}
    report = {"max_drop": 0.1, "min_psnr": 30.0, "files": {"float32": good}}
    assert ENLARGES.describe_rejection(report) == PAINTS.describe_rejection(report) == ""
    report["files"]["int8"] = bad
    lost = ENLARGES.describe_rejection(report)
    assert lost.startswith("Lost more than --max-drop 0.1 dB and kept as .rejected: b.tflite.rejected (0.250 dB). ")
    far = PAINTS.describe_rejection(report)
    assert far.startswith("Less than 30 dB of PSNR against the network's pictures, ") and "(21.6 dB)" in far
