"""Brightness data in HDR films: of the display that they were made on, and of the films themselves."""

import struct
from dataclasses import dataclass
from typing import Any

import av

_DYNAMIC = ("DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID", "DOVI_METADATA", "DOVI_RPU_BUFFER")
"""Kinds of data that change from frame to frame, and belong to frames of the original size."""


@dataclass(frozen=True)
class Light:
    """Brightness data of a film, in the notation of x265.

    Attributes:
        display: Primaries, white point and luminance of the display (SMPTE ST 2086), as for `master-display`; may be
            empty.
        levels: Largest and average brightness (CTA-861.3), as for `max-cll`; may be empty.
        is_dynamic: Whether there is other data that changes from frame to frame.
    """

    display: str = ""
    levels: str = ""
    is_dynamic: bool = False

    @property
    def options(self) -> str:
        """The data as x265 takes it, each part after a colon."""
        display = f":master-display={self.display}" if self.display else ""
        return display + (f":max-cll={self.levels}" if self.levels else "")


def find_light(frame: av.VideoFrame) -> Light:
    """Returns the brightness data that comes with a frame.

    Reference:
        AVMasteringDisplayMetadata and AVContentLightMetadata of FFmpeg; SMPTE ST 2086.
    """
    data: Any = frame.side_data
    display, levels = data.get("MASTERING_DISPLAY_METADATA"), data.get("CONTENT_LIGHT_LEVEL")
    return Light(
        _describe_display(bytes(display)) if display is not None else "",
        ",".join(map(str, struct.unpack_from("=2I", bytes(levels)))) if levels is not None else "",
        any(kind in data for kind in _DYNAMIC),
    )


def _describe_display(content: bytes) -> str:
    """Returns the primaries, the white point and the luminance in the units of x265: 0.00002 and 0.0001 cd/m²."""
    *numbers, has_primaries, has_luminance = struct.unpack_from("=22i", content)
    if not (has_primaries and has_luminance):
        return ""
    ratios = [above / below if below else 0.0 for above, below in zip(numbers[::2], numbers[1::2], strict=True)]
    red, green, blue, white = (tuple(round(ratio * 50_000) for ratio in ratios[at : at + 2]) for at in (0, 2, 4, 6))
    darkest, brightest = (round(ratio * 10_000) for ratio in ratios[8:10])
    points = "".join(
        f"{name}({x},{y})" for name, (x, y) in zip(("G", "B", "R", "WP"), (green, blue, red, white), strict=True)
    )
    return f"{points}L({brightest},{darkest})"
