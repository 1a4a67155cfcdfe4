"""The names and formats of each task's scores. It does not import Keras, so that `--help` stays light."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_psr.constants import STYLE_TRANSFER, SUPER_RESOLUTION


@dataclass(frozen=True)
class Measure:
    """The way one number is shown.

    Attributes:
        heading: Its name in a line or above a column.
        layout: Its format, as for `format`.
        unit: Text after the number.
        sign: -1 for losses that are shown as gains.
    """

    heading: str
    layout: str
    unit: str = ""
    sign: int = 1

    def show(self, value: float | None) -> str:
        """Returns the number as text, or a dash if it is undefined."""
        return f"{self.sign * value:{self.layout}}{self.unit}" if value is not None and math.isfinite(value) else "-"


@dataclass(frozen=True)
class Report:
    """The words for a task, and the scores that are shown for it.

    Attributes:
        command: The command that uses its networks.
        effect: What its networks do, with their `{scale}`.
        listing_title: Title of the list of its shipped models.
        validation: Scores of a validation during a fit, by name in the log.
        evaluation_title: Title of the table of an evaluation, with fields of its result.
        evaluation: Columns of that table, by name of the score. Columns without any score are left out.
        export_title: Title of the table of an export, with fields of its report.
        export: Columns of that table that compare a file with its network, by name in the report.
        decisive: The one of these scores that decides whether a file is accepted.
        rejection: Message about rejected `{files}`, with fields of the report.
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
        """Returns what a network of a scale does, such as `enlarges 4 times`."""
        return self.effect.format(scale=scale)

    def describe_validation(self, numbers: Mapping[str, float]) -> str:
        """Returns the validation scores in a line of a fit's log, as text; empty if there are none.

        An example is `PSNR 29.12 dB, over bicubic +1.20 dB`.
        """
        return ", ".join(
            f"{measure.heading} {measure.show(numbers[name])}"
            for name, measure in self.validation.items()
            if name in numbers
        )

    def describe_rejection(self, report: Mapping[str, Any]) -> str:
        """Returns a message about the rejected files of an export; empty if none was rejected."""
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
            "texture_distance": Measure("texture", ".1f"),
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
        "yours, use int16x8 or float16, or raise --max-drop.",
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
        evaluation={  # terms without weight and unmeasured times are shown as a dash
            "loss": Measure("objective", ".4f"),
            "feature_loss": Measure("content", ".4f"),
            "style_loss": Measure("style", ".4f"),
            "total_variation": Measure("TV", ".0f"),
            "chroma_noise": Measure("chroma", ".1f"),
            "lattice_ratio": Measure("lattice", ".2f"),
            "flicker": Measure("flicker", ".2f"),
            "flicker_moving": Measure("moving", ".2f"),
            "seconds": Measure("time\n(s)", ".3f"),
        },
        export_title="style",
        export={"psnr": Measure("PSNR\ndB", ".2f"), "ssim_y": Measure("\nSSIM", ".4f")},
        decisive=("psnr", Measure("", ".1f", " dB")),
        rejection="Less than {min_psnr:g} dB of PSNR against the network's pictures, and kept as .rejected: {files}. "
        "Calibrate on pictures like yours, or use int16x8 or float16.",
    ),
}
"""Report by name of the task."""
