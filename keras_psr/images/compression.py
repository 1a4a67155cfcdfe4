"""Tells from a file's header how its picture was compressed, and whether that left artefacts."""

import os
from dataclasses import dataclass
from typing import IO

from PIL import JpegImagePlugin

from keras_psr.images import tiff
from keras_psr.images.decoding import identify, naming_errors, open_with_pillow

CLEAN_QUALITY = 90
"""JPEGs of at least this quality count as clean.

For photographs that were shrunk and saved at quality 60, 75, 85, 90, 95 and 100, the PSNR of `x4-photo` is .3, .2, .1,
-.1, -.3 and -.6 dB above that of `x4`. In feature distance both are level at 90, whether colour is stored at half the
resolution or not (`benchmarks/compression.py`).
"""

# fmt: off
LUMA_STEPS = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)
# fmt: on
"""The quantisation table for luma that the IJG's encoder scales by quality (ITU-T T.81, table K.1)."""

JPEG_IN_TIFF = (6, 7)
"""Numbers of the TIFF compressions that are JPEG."""

ALWAYS_LOSSY = ("AVIF", "HEIF")
"""Formats whose headers do not say whether detail was lost; their encoders lose it unless told otherwise."""


@dataclass(frozen=True)
class Compression:
    """How the picture in a file was compressed.

    Attributes:
        kind: The format as users call it: `PNG`, `JPEG`, `lossy WebP`.
        has_artefacts: Whether it left artefacts that a network for clean pictures would enlarge.
        quality: The quality from 1 to 100 at which the IJG's encoder takes the tables that are closest to a JPEG's own;
            None for other formats, and if the header has no tables.
    """

    kind: str
    has_artefacts: bool = False
    quality: int | None = None


def read_compression(path: str | os.PathLike[str]) -> Compression:
    """Returns how the picture in a file was compressed, from the file's header alone.

    A JPEG has artefacts if its quality, estimated from its quantisation tables, is below `CLEAN_QUALITY`, or if it has
    no tables. A WebP has them if any of its frames is lossy. AVIF, HEIC and JPEG inside TIFF are assumed to have
    them. All other formats keep every pixel; no header says what was lost before a picture was stored in one of them.

    Args:
        path: Picture file.

    Returns:
        The compression.

    Raises:
        ImageFileError: The file is missing or not a picture.

    Example:
        >>> read_compression("photo.jpg")
        Compression(kind='JPEG', has_artefacts=True, quality=75)
    """
    with naming_errors(path), open(path, "rb") as file:
        kind = identify(file)
        if kind == "JPEG":
            return _read_jpeg(file)
        if kind == "WEBP":
            is_lossy = _is_lossy_webp(file)
            return Compression("lossy WebP" if is_lossy else "lossless WebP", is_lossy)
        if kind == "TIFF" and tiff.read_directory(file).compression in JPEG_IN_TIFF:
            return Compression("TIFF with JPEG", True)
        return Compression("HEIC" if kind == "HEIF" else kind, kind in ALWAYS_LOSSY)


def _read_jpeg(file: IO[bytes]) -> Compression:
    with open_with_pillow(file) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        table = image.quantization.get(image.layer[0][3])  # the table of the first component, which is luma
    quality = estimate_quality(sum(table)) if table else None
    return Compression("JPEG", quality is None or quality < CLEAN_QUALITY, quality)


def estimate_quality(table_sum: int) -> int:
    """Returns the quality of the IJG's encoder whose luma table has the sum that is closest to the given one.

    Args:
        table_sum: Sum of the 64 steps by which a JPEG divides luma; 64 for the finest table.

    Returns:
        1 to 100.

    Reference:
        libjpeg's `jpeg_quality_scaling` and `jpeg_add_quant_table`.

    Example:
        >>> estimate_quality(64)
        100
    """
    return min(range(100, 0, -1), key=lambda quality: abs(_ijg_sum(quality) - table_sum))


def _ijg_sum(quality: int) -> int:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(max((step * percent + 50) // 100, 1), 255) for step in LUMA_STEPS)


def _is_lossy_webp(file: IO[bytes]) -> bool:
    """Returns whether any picture of a WebP is in a `VP8 ` chunk, which is lossy; `VP8L` chunks are lossless.

    Raises:
        ValueError: There is neither.

    Reference:
        RFC 9649, section 2.
    """
    file.seek(12)
    is_lossless = False
    while len(head := file.read(8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name == b"VP8 ":
            return True
        is_lossless = is_lossless or name == b"VP8L"
        # Each frame of an animation begins with 16 bytes; its chunks follow. Chunks have an even length.
        file.seek(16 if name == b"ANMF" else size + size % 2, os.SEEK_CUR)
    if not is_lossless:
        raise ValueError("it holds no picture")
    return False
