"""What each task's numbers are called and how they are shown; needs no Keras, so that `--help` stays light."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_psr.constants import STYLE_TRANSFER, SUPER_RESOLUTION


@dataclass(frozen=True)
class Measure:
    """How one number is shown.

    Attributes:
        heading: What it is called in a line or above a column.
        layout: Format, as of `format`.
        unit: What follows the number.
        sign: -1 for losses that are shown as gains.
    """

    heading: str
    layout: str
    unit: str = ""
    sign: int = 1

    def show(self, value: float | None) -> str:
        """Returns the number as text; one that is not defined is a dash."""
        return f"{self.sign * value:{self.layout}}{self.unit}" if value is not None and math.isfinite(value) else "-"


@dataclass(frozen=True)
class Report:
    """How a task is spoken of, and which of its numbers are shown where.

    Attributes:
        command: The command that uses its networks.
        effect: What its networks do, with their `{scale}`.
        listing_title: Above the list of its shipped models.
        validation: What a validation during a fit tells, by name in the log.
        evaluation_title: Above the table of an evaluation, with fields of its result.
        evaluation: Columns of that table, by name of the score; those that no row has are left out.
        export_title: Above the table of an export, with fields of its report.
        export: Columns of that table that compare a file with its network, by name in the report.
        decisive: Which of those decides whether a file is accepted.
        rejection: What is said of rejected `{files}`, with fields of the report.
    """

    command: str
    effect: str
    listing_title: str
    validation: Mapping[str, Measure]
    evaluation_title: str
    evaluation: Mapping[str, Measure]
    export_title: str
    export: Mapping[str, Measure]
    decisive: tuple[str, Measure]
    rejection: str

    def describe_effect(self, scale: int) -> str:
        """Returns what a network of this scale does, as in `enlarges 4 times`."""
        return self.effect.format(scale=scale)

    def describe_validation(self, numbers: Mapping[str, float]) -> str:
        """Returns the validation scores among what a fit logs.

        As in `PSNR 29.12 dB, over bicubic +1.20 dB`; empty if there are none.
        """
        return ", ".join(
            f"{measure.heading} {measure.show(numbers[name])}"
            for name, measure in self.validation.items()
            if name in numbers
        )

    def describe_rejection(self, report: Mapping[str, Any]) -> str:
        """Returns what is wrong with the files of an export that were rejected; empty if none was."""
        name, measure = self.decisive
        rejected = [row for row in report["files"].values() if not row["accepted"]]
        if not rejected:
            return ""
        files = ", ".join(f"{row['file']} ({measure.show(row[name])})" for row in rejected)
        return self.rejection.format(**{**report, "files": files})


REPORTS = {
    SUPER_RESOLUTION: Report(
        command="upscale",
        effect="enlarges {scale} times",
        listing_title="super-resolution: PSNR of luma in dB (and over bicubic); more is better",
        validation={
            "val_psnr_y": Measure("PSNR", ".2f", " dB"),
            "val_psnr_y_over_bicubic": Measure("over bicubic", "+.2f", " dB"),
            "val_feature_distance_ratio": Measure("feature distance", ".3f", " of bicubic's"),
            "val_lattice_ratio": Measure("lattice ratio", ".1f"),
        },
        evaluation_title="x{scale}, {degradation}",
        evaluation={
            "psnr_y": Measure("PSNR", ".2f"),
            "ssim_y": Measure("SSIM", ".4f"),
            "psnr_rgb": Measure("PSNR RGB", ".2f"),
            "feature_distance_ratio": Measure("features", ".3f"),
            "lpips_vgg": Measure("LPIPS", ".3f"),
            "lattice_ratio": Measure("lattice", ".2f"),
            "block_ratio": Measure("blocks", ".2f"),
            "color_block_ratio": Measure("colour blocks", ".2f"),
        },
        export_title="x{scale}",
        export={
            "psnr_y_drop": Measure("PSNR\ndB", "+.4f", sign=-1),
            "ssim_y_drop": Measure("\nSSIM", "+.4f", sign=-1),
            "feature_distance_change": Measure("feature\ndistance", "+.2%"),
        },
        decisive=("psnr_y_drop", Measure("", ".3f", " dB")),
        rejection="Lost more than --max-drop {max_drop} dB and kept as .rejected: {files}. Calibrate on pictures like "
        "yours, use int16x8 or float16, or allow more.",
    ),
    STYLE_TRANSFER: Report(
        command="stylize",
        effect="transfers a style",
        listing_title="style transfer: the loss that the network was fitted to; less is better",
        validation={
            "val_loss": Measure("loss", ".3g"),
            "val_feature_loss": Measure("feature", ".3g"),
            "val_style_loss": Measure("style", ".3g"),
            "val_total_variation": Measure("total variation", ".3g"),
        },
        evaluation_title="{size}x{size}",
        evaluation={  # a term without weight, and what took no time, is a dash
            "loss": Measure("objective", ".4f"),
            "feature_loss": Measure("content", ".4f"),
            "style_loss": Measure("style", ".4f"),
            "total_variation": Measure("TV", ".0f"),
            "chroma_noise": Measure("chroma", ".1f"),
            "lattice_ratio": Measure("lattice", ".2f"),
            "seconds": Measure("seconds", ".3f"),
        },
        export_title="style",
        export={"psnr": Measure("PSNR\ndB", ".2f"), "ssim_y": Measure("\nSSIM", ".4f")},
        decisive=("psnr", Measure("", ".1f", " dB")),
        rejection="Less than {min_psnr:g} dB of PSNR against the network's pictures, and kept as .rejected: {files}. "
        "Calibrate on pictures like yours, or use int16x8 or float16.",
    ),
}
"""By name of the task."""
