"""Photographs with what belongs to them: opacity, 16 bits, colour profile, resolution and metadata."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Photo:
    """A photograph, upright.

    Attributes:
        pixels: uint8 or uint16; RGB (height, width, 3) or grey (height, width).
        alpha: Opacity, (height, width), of the same dtype; None if the file has none.
        icc_profile: Colour profile of the pixels, if the file has one that fits them.
        exif: EXIF data without orientation and without thumbnail.
        dpi: Horizontal and vertical resolution in pixels per inch, if the file says it.
        notes: What could not be kept, each a few words.
        xmp: XMP packet, if the file has one.
        iptc: IPTC records, if the file has some.
        texts: Pairs of keyword and text, as PNG has them; `Comment` is what JPEG and GIF have.
        colour: Pairs of name and content of PNG's chunks for colours that are not an ICC profile, such as `cICP`.
        measured: Height and width in pixels of the picture that the metadata tells of; None if that is this one. What
            stands there in pixels is adapted when the photograph is written (`encoding.fit_to_format`).
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    exif: Image.Exif | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    xmp: bytes | None = None
    iptc: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()
    colour: tuple[tuple[bytes, bytes], ...] = ()
    measured: tuple[int, int] | None = None
