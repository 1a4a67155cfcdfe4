"""A photo with its opacity, colour profile, resolution and metadata, in 8 or 16 bits."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Photo:
    """An upright photo with everything that belongs to it.

    Attributes:
        pixels: uint8 or uint16; RGB (height, width, 3) or grey (height, width).
        alpha: Opacity, (height, width), of the same dtype; None if the file has none.
        icc_profile: Colour profile of the pixels, if the file has one that fits them.
        exif: EXIF data without orientation and thumbnail.
        dpi: Horizontal and vertical resolution in pixels per inch, if the file states it.
        notes: What could not be kept, in a few words each.
        xmp: XMP packet, if the file has one.
        iptc: IPTC records, if the file has any.
        texts: Pairs of keyword and text, as in PNG; the comments of JPEG and GIF have the keyword `Comment`.
        colour: Pairs of name and content of PNG's colour chunks other than the ICC profile, such as `cICP`, which also
            stands for the code points of AVIF and HEIC.
        measured: Height and width, in pixels, of the picture that the metadata describes; None if it is this one.
            Metadata in pixels is adapted when the photo is written (`encoding.fit_to_format`).
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
