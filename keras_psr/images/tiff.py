"""TIFF: directories, a decoder for the kinds that Pillow reads wrongly or not at all, and an encoder.

Pillow reads 8-bit and bilevel pictures with interleaved channels. Other bit depths, separate planes, and reversed bit
order are read here; for them Pillow (libtiff) only decompresses.

Reference:
    TIFF revision 6.0, Adobe 1992, and its technical notes.
"""

import io
import lzma
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from keras_psr.environment import available_cores
from keras_psr.images.pixels import divide_by_opacity, lab_to_srgb, round_to, spread_levels, to_8_bits
from keras_psr.images.png import deflate

STRIP = 1_000_000
"""Bytes of pixels in one strip of a written file; one thread compresses each."""

MAX_DIRECTORIES = 10_000
"""Maximum number of directories to read, which keeps damaged files from looping."""

MAX_SAMPLES = 64
"""Maximum number of channels of a picture."""

MAX_BYTES = 2**32 - 2**24
"""Maximum number of bytes of pixels in a written file, because offsets have 32 bits."""

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 4, 5, 6, 8
COLOURS = {RGB: 3, CMYK: 4, YCBCR: 3, CIELAB: 3}
"""Number of colour channels by kind, where there is more than one."""

_RAW_KINDS = (32803, 34892)  # a colour filter array, and raw colours
_KINDS = {
    **{WHITE_IS_ZERO: "grey", BLACK_IS_ZERO: "grey", RGB: "RGB", PALETTE: "palette", MASK: "mask", CMYK: "CMYK"},
    **{YCBCR: "YCbCr", CIELAB: "CIELab", 9: "ICCLab", 10: "ITULab", 32844: "LogL", 32845: "LogLuv"},
}
_CODECS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 34925: "LZMA", 50000: "ZSTD"}
"""Names of the compressions that work on bytes of any meaning."""

_PICTURE_CODECS = (2, 3, 4, 6, 7, 34712, 33003, 33005, 50001)
"""Compressions that work on pixels: CCITT, JPEG, JPEG 2000, WebP."""


class UnusableKindError(ValueError):
    """A file has a known kind that cannot be read. The text says which, and the remedy."""


@dataclass(frozen=True)
class Directory:
    """One picture of a TIFF.

    Attributes:
        tags: The picture's tags, with values as Pillow returns them.
        prefix: `II` for little endian, or `MM` for big endian.
        is_big: Whether the file is a BigTIFF.
        frame: Index of the directory in the file, from 0.
        count: Number of pictures in the file, without thumbnails and masks.
    """

    tags: TiffImagePlugin.ImageFileDirectory_v2
    prefix: bytes
    is_big: bool
    frame: int
    count: int

    def number(self, tag: int, default: int) -> int:
        """Returns the value of a tag, or the first of its values."""
        return int(self.numbers(tag, (default,))[0])

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Returns the values of a tag."""
        value = self.tags.get(tag, default)
        return tuple(value) if isinstance(value, tuple | list | bytes) else (value,)

    def bytes(self, tag: int) -> bytes:
        """Returns the bytes of a tag, whatever its declared type; empty if there is no such tag."""
        try:
            value = self.tags.get(tag, b"")
            if isinstance(value, str):
                return value.encode("latin-1")
            if self.tags.tagtype.get(tag) == 4:  # IPTC records are often declared as 32-bit numbers
                order = ">" if self.prefix == b"MM" else "<"
                return np.array(self.numbers(tag), f"{order}u4").tobytes()
            return bytes(value)
        except (TypeError, ValueError, OverflowError):
            return b""

    @property
    def width(self) -> int:
        """The number of columns, as stored."""
        return self.number(256, 0)

    @property
    def height(self) -> int:
        """The number of rows, as stored."""
        return self.number(257, 0)

    @property
    def samples(self) -> int:
        """The number of samples per pixel."""
        return self.number(277, len(self.numbers(258, (1,))))

    @property
    def bits(self) -> int:
        """The number of bits per sample; 0 if samples differ."""
        bits = set(self.numbers(258, (1,)))
        return bits.pop() if len(bits) == 1 else 0

    @property
    def kind(self) -> int:
        """The photometric interpretation; by default, RGB for three or more samples, else black is zero."""
        return self.number(262, RGB if self.samples > 2 else BLACK_IS_ZERO)

    @property
    def compression(self) -> int:
        """The number of the compression."""
        return self.number(259, 1)

    @property
    def is_planar(self) -> bool:
        """Whether each sample has its own plane."""
        return self.number(284, 1) == 2 and self.samples > 1

    @property
    def extra(self) -> tuple[int, ...]:
        """The meaning of each extra sample: 0 unknown, 1 opacity by which colours are multiplied, 2 plain opacity."""
        count = max(0, self.samples - COLOURS.get(self.kind, 1))
        return (*self.numbers(338)[:count], *(0,) * (count - len(self.numbers(338))))

    @property
    def orientation(self) -> int:
        """The orientation of the stored picture, 1 (upright) to 8, as in EXIF."""
        value = self.number(274, 1)
        return value if 1 <= value <= 8 else 1


def read_directory(file: IO[bytes]) -> Directory:
    """Finds the picture of a TIFF: its first directory that is neither a thumbnail nor a mask.

    Args:
        file: A TIFF or BigTIFF.

    Returns:
        The picture's directory.

    Raises:
        UnusableKindError: The file has no picture, is a raw file, or has a picture whose meaning is unknown.
    """
    directories = list(_read_directories(file))
    first = directories[0].tags if directories else {}
    has_parts = any(330 in tags for tags in (entry.tags for entry in directories))
    pictures = [entry for entry in directories if not _is_secondary(entry)]
    is_raw = 50706 in first or any(entry.kind in _RAW_KINDS for entry in directories)
    file.seek(8)
    if is_raw or file.read(2) == b"CR" or (not pictures and has_parts) or _has_raw_part(file, directories):
        raise UnusableKindError("a raw file; develop it first")
    if not pictures:
        raise UnusableKindError("a TIFF without a picture; replace or remove it")
    chosen = replace(pictures[0], count=len(pictures))
    _check(chosen)
    return chosen


def _is_secondary(directory: Directory) -> bool:
    """Returns whether a directory is a thumbnail of another picture, or a mask."""
    return bool(directory.number(254, 0) & 0b101) or directory.kind == MASK or directory.number(255, 1) == 2


def _read_directories(file: IO[bytes]) -> Iterator[Directory]:
    file.seek(0)
    head = file.read(16)
    offset, seen = _begin(head).next, set[int]()
    while offset and offset not in seen and len(seen) < MAX_DIRECTORIES:
        entry = _read_at(file, head, offset)
        yield Directory(entry, head[:2], _is_big(head), len(seen), 0)
        seen.add(offset)
        offset = entry.next


def _begin(head: bytes, group: int | None = None) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Returns an empty directory with the file's byte order and offset width; `next` is the offset of the first one."""
    if _is_big(head):  # Pillow detects BigTIFF only in little-endian headers, so the byte order is passed separately
        return TiffImagePlugin.ImageFileDirectory_v2(b"II+\0" + head[4:], head[:2], group)
    return TiffImagePlugin.ImageFileDirectory_v2(head[:8], group=group)


def _is_big(head: bytes) -> bool:
    """Returns whether the file is a BigTIFF, whose offsets have 64 bits."""
    return head[2:4] in (b"+\0", b"\0+")


def _read_at(
    file: IO[bytes], head: bytes, offset: int, group: int | None = None
) -> TiffImagePlugin.ImageFileDirectory_v2:
    entry = _begin(head, group)
    entry.next = 0
    file.seek(offset)
    entry.load(file)
    return entry


def _has_raw_part(file: IO[bytes], directories: list[Directory]) -> bool:
    """Returns whether a subdirectory contains a camera's raw sensor data."""
    file.seek(0)
    head = file.read(16)
    offsets = [offset for entry in directories[:16] for offset in entry.numbers(330)[:16]]
    parts = [_read_at(file, head, offset) for offset in offsets if isinstance(offset, int)]
    return any(part.get(262) in _RAW_KINDS for part in parts)


def _check(entry: Directory) -> None:
    """Checks that this module or Pillow can read a picture.

    Raises:
        UnusableKindError: Neither can read it.
        ValueError: The picture has no size.
    """
    if not 1 <= entry.samples <= MAX_SAMPLES:
        raise UnusableKindError(f"a TIFF of {entry.samples} channels; convert it to RGB first")
    kind, codec = _KINDS.get(entry.kind, f"photometric interpretation {entry.kind}"), entry.compression
    formats, bits = set(entry.numbers(339, (1,))), entry.bits or "mixed"
    if entry.width < 1 or entry.height < 1:
        raise ValueError("its picture has no size")
    if 3 in formats:
        raise UnusableKindError(f"a TIFF of {bits}-bit floating-point {kind}, which has no fixed white; {_TO_16_BITS}")
    if formats & {2, 5, 6} and entry.kind != CIELAB:
        raise UnusableKindError(f"a TIFF of signed or complex numbers, which have no fixed white; {_TO_16_BITS}")
    if not 1 <= entry.bits <= 32:
        raise UnusableKindError(f"a TIFF of {kind} with {entry.numbers(258)} bits per channel; {_TO_16_BITS}")
    if entry.kind not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB):
        raise UnusableKindError(f"a TIFF of {kind}; convert it to RGB first")
    if entry.kind == CMYK and entry.number(332, 1) != 1:
        raise UnusableKindError("a TIFF with inks other than CMYK; convert it to RGB first")
    if entry.samples - len(entry.extra) != COLOURS.get(entry.kind, 1):
        raise UnusableKindError(f"a TIFF of {kind} with {entry.samples} channels; convert it to RGB first")
    if entry.kind in (WHITE_IS_ZERO, BLACK_IS_ZERO) and any(use == 0 for use in entry.extra):
        raise UnusableKindError(f"a TIFF of {entry.samples} channels that have no meaning as colours; {_ONE_CHANNEL}")
    if codec not in _CODECS and codec not in _PICTURE_CODECS:
        raise UnusableKindError(f"a TIFF with compression {codec}, which is not supported; {_WITH_DEFLATE}")
    if not reads_as_pillow(entry) and (codec in _PICTURE_CODECS or entry.kind == YCBCR):
        how = "planes" if entry.is_planar else "pixels"
        raise UnusableKindError(f"a TIFF of {bits}-bit {kind} in {how} with compression {codec}; {_WITH_DEFLATE}")


_TO_16_BITS = "convert it to 8 or 16 bits first"
_WITH_DEFLATE = "save it as RGB with deflate or without compression first"
_ONE_CHANNEL = "save each as grey, or three as RGB, first"


def reads_as_pillow(entry: Directory) -> bool:
    """Returns whether Pillow reads the picture correctly."""
    if entry.is_big and entry.prefix == b"MM":
        return False
    if entry.compression in (6, 7) and entry.bits == 8:
        return entry.kind in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK, YCBCR) and not entry.is_planar
    if entry.is_planar or (entry.number(266, 1) != 1 and entry.compression not in (2, 3, 4)):
        return False
    if entry.bits == 1:
        return entry.samples == 1 and entry.kind in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    if entry.bits != 8 or len(entry.extra) > 1:
        return False
    if entry.kind in (CMYK, WHITE_IS_ZERO):
        return not entry.extra
    return entry.kind in (BLACK_IS_ZERO, RGB, PALETTE, YCBCR)


def read_levels(file: IO[bytes], entry: Directory) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Reads a picture that Pillow does not read correctly.

    Args:
        file: The TIFF.
        entry: The picture's directory.

    Returns:
        Pixels as stored, not turned upright: grey (height, width), RGB (height, width, 3) or 8-bit CMYK
        (height, width, 4), uint8 up to 8 bits, else uint16; opacity, if there is any; notes.

    Raises:
        ValueError: The file is damaged, or the range of its levels is unknown.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and entry.width * entry.height > 2 * limit:
        raise Image.DecompressionBombError
    levels = _read_samples(file, entry)
    colours = entry.samples - len(entry.extra)
    pixels, notes = _read_colours(levels[..., :colours], entry)
    opacity = next((index for index, use in enumerate(entry.extra) if use in (1, 2)), None)
    if len(entry.extra) > (opacity is not None):
        notes.append("extra channels of unknown meaning are left out")
    if opacity is None:
        return pixels, None, notes
    alpha = spread_levels(levels[..., colours + opacity], entry.bits)
    alpha = to_8_bits(alpha) if pixels.dtype != alpha.dtype else alpha
    return (divide_by_opacity(pixels, alpha) if entry.extra[opacity] == 1 else pixels), alpha, notes


def _read_colours(levels: np.ndarray, entry: Directory) -> tuple[np.ndarray, list[str]]:
    """Returns pixels from the samples that describe colours, (height, width, channels), and notes."""
    if entry.kind == PALETTE:
        table = np.array(entry.numbers(320), np.uint16).reshape(3, -1).T
        return (table >> 8).astype(np.uint8)[levels[..., 0]], []
    if entry.kind == CIELAB:
        return _read_lab(levels, entry.bits), ["CIELab converted to sRGB"]
    pixels, notes = spread_levels(levels, entry.bits), []
    if entry.bits > 16:
        notes.append(f"{entry.bits} bits rounded to 16")
        if not (levels >> (entry.bits - 16)).any() and levels.any():
            raise UnusableKindError(
                f"a TIFF of {entry.bits} bits whose levels are all below 1/65536 of white; {_TO_16_BITS}"
            )
    if entry.kind == CMYK and pixels.dtype == np.uint16:
        return to_8_bits(pixels), [*notes, "16 bits rounded to 8 for CMYK"]
    if entry.kind == WHITE_IS_ZERO:
        pixels = np.iinfo(pixels.dtype).max - pixels
    return (pixels[..., 0] if pixels.shape[2] == 1 else pixels), notes


def _read_lab(levels: np.ndarray, bits: int) -> np.ndarray:
    """Converts CIELab to sRGB. Lightness uses all bits; a and b are signed, with 8 bits before the binary point."""
    signed = np.where(levels >= 2 ** (bits - 1), levels.astype(np.int64) - 2**bits, levels)
    lab = signed / np.float32(2.0 ** (bits - 8))
    lab[..., 0] = levels[..., 0] * np.float32(100 / (2**bits - 1))
    dtype = np.uint8 if bits <= 8 else np.uint16
    return round_to(lab_to_srgb(lab) * np.iinfo(dtype).max, dtype)


def _read_samples(file: IO[bytes], entry: Directory) -> np.ndarray:
    """Returns the unsigned samples of a picture as stored, (height, width, samples)."""
    width, height, is_tiled = entry.width, entry.height, 322 in entry.tags
    part_width = entry.number(322, width) if is_tiled else width
    part_height = entry.number(323, height) if is_tiled else min(entry.number(278, height), height)
    if part_width < 1 or part_height < 1:
        raise ValueError("its tiles or strips have no size")
    planes, together = (entry.samples, 1) if entry.is_planar else (1, entry.samples)
    across, down = -(-width // part_width), -(-height // part_height)
    offsets, lengths = entry.numbers(324 if is_tiled else 273), entry.numbers(325 if is_tiled else 279)
    if len(offsets) < planes * across * down:
        raise ValueError(f"only {len(offsets)} of its {planes * across * down} parts are present")
    levels = np.zeros(
        (height, width, entry.samples), np.uint8 if entry.bits <= 8 else f"u{2 if entry.bits <= 16 else 4}"
    )
    for index in range(planes * across * down):
        plane, row, column = index // (across * down), index // across % down, index % across
        top, left = row * part_height, column * part_width
        rows = part_height if is_tiled else min(part_height, height - top)
        expected = rows * -(-part_width * together * entry.bits // 8)
        file.seek(offsets[index])
        data = file.read(lengths[index] if len(lengths) > index else expected)
        if not data and offsets[index] == 0:
            continue  # a part that was left out is black
        numbers = _unpack(_decompress(data, entry, expected), entry, rows, part_width * together)
        part = _undo_differences(numbers.reshape(rows, part_width, together), entry)[: height - top, : width - left]
        target = levels[top : top + part.shape[0], left : left + part.shape[1]]
        target[..., plane : plane + together] = part
    return levels


def _decompress(data: bytes, entry: Directory, expected: int) -> bytes:
    """Returns the decompressed bytes of a strip or tile.

    Raises:
        ValueError: There are fewer bytes than expected.
    """
    if entry.number(266, 1) == 2:
        data = data.translate(_REVERSED)
    codec = _CODECS[entry.compression]
    if codec == "deflate":
        data = zlib.decompressobj().decompress(data, expected)
    elif codec == "LZMA":
        data = lzma.LZMADecompressor().decompress(data, expected)
    elif codec != "none":
        data = _decompress_with_pillow(data, entry.compression, expected)
    if len(data) < expected:
        raise ValueError(f"a strip or tile has {len(data)} bytes instead of {expected}")
    return data[:expected]


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _decompress_with_pillow(data: bytes, compression: int, expected: int) -> bytes:
    """Decompresses bytes with Pillow (libtiff), as if they were an 8-bit grey picture of one long row."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    for tag, value in {256: expected, 257: 1, 258: 8, 259: compression, 262: 1, 277: 1, 278: 1}.items():
        tags[tag] = value
    tags[273], tags[279] = 0, len(data)  # `save` adds the length of what precedes the strip
    wrapped = io.BytesIO()
    tags.save(wrapped)
    wrapped.write(data)
    wrapped.seek(0)
    with TiffImagePlugin.TiffImageFile(wrapped) as image:
        return image.tobytes()


def _unpack(data: bytes, entry: Directory, rows: int, count: int) -> np.ndarray:
    """Unpacks samples of any bit depth, (rows, count)."""
    bits = entry.bits
    order = ">" if entry.prefix == b"MM" else "<"
    if bits in (8, 16, 32):
        return np.frombuffer(data, f"{order}u{bits // 8}").reshape(rows, count)
    table = np.frombuffer(data, np.uint8).reshape(rows, -1)
    if bits == 24:
        triples = table.reshape(rows, count, 3).astype(np.uint32)
        first, last = (0, 2) if order == ">" else (2, 0)
        return triples[..., first] << 16 | triples[..., 1] << 8 | triples[..., last]
    numbers = np.zeros((rows, count), np.uint32)
    for row in range(rows):  # one row at a time, because each bit temporarily takes a byte
        single = np.unpackbits(table[row])[: count * bits].reshape(count, bits)
        for bit in range(bits):
            numbers[row] = numbers[row] << 1 | single[:, bit]
    return numbers


def _undo_differences(numbers: np.ndarray, entry: Directory) -> np.ndarray:
    """Returns samples (rows, columns, samples), summing them along rows if they were stored as differences."""
    predictor = entry.number(317, 1)
    if predictor == 1 or entry.compression == 1:
        return numbers
    if predictor != 2 or entry.bits not in (8, 16, 32):
        raise ValueError(f"TIFF predictor {predictor} of {entry.bits} bits; save it without one")
    return np.cumsum(numbers, axis=1, dtype=numbers.dtype.newbyteorder("="))


def write_tiff(
    file: IO[bytes], pixels: np.ndarray, alpha: np.ndarray | None, tags: Mapping[int, Any], types: Mapping[int, int]
) -> None:
    """Writes a TIFF of 8 or 16 bits in strips, which several threads deflate.

    Args:
        file: The file to write to.
        pixels: uint8 or uint16; RGB (height, width, 3) or grey (height, width).
        alpha: Opacity, (height, width), of the same dtype.
        tags: Tags other than those that describe the pixels.
        types: TIFF types of the tags for which Pillow would choose another type.
    """
    height, width = pixels.shape[:2]
    channels = (3 if pixels.ndim == 3 else 1) + (alpha is not None)
    rows = max(1, STRIP // (width * channels * pixels.itemsize))

    def compress(top: int) -> bytes:
        strip = pixels[top : top + rows]
        strip = np.dstack([strip, alpha[top : top + rows]]) if alpha is not None else strip
        levels = strip.reshape(len(strip), width, channels).astype(strip.dtype.newbyteorder("<"))
        levels[:, 1:] -= levels[:, :-1].copy()
        return deflate(levels.tobytes(), is_whole=True)

    tops = range(0, height, rows)
    with ThreadPoolExecutor(min(len(tops), available_cores())) as executor:
        strips = list(executor.map(compress, tops))
    entry = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    entry.tagtype.update(types)
    entry.tagtype.update({273: 4, 279: 4})
    layout: dict[int, Any] = {256: width, 257: height, 258: (8 * pixels.itemsize,) * channels, 259: 8, 277: channels}
    layout |= {262: RGB if pixels.ndim == 3 else BLACK_IS_ZERO, 278: rows, 284: 1, 317: 2}
    layout |= {338: 2} if alpha is not None else {}  # opacity by which colours are not multiplied
    lengths = [len(strip) for strip in strips]
    layout |= {273: tuple(accumulate([0, *lengths[:-1]])), 279: tuple(lengths)}  # `save` adds what precedes
    for tag, value in {**tags, **layout}.items():
        entry[tag] = value
    entry.save(file)
    for strip in strips:
        file.write(strip)


def read_exif(file: IO[bytes], entry: Directory) -> Image.Exif:
    """Returns all tags of a TIFF's picture, with its EXIF and GPS directories, as EXIF data."""
    exif = Image.Exif()
    file.seek(0)
    head = file.read(16)
    for tag in entry.tags:
        try:
            value = entry.tags[tag]
            if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                part = _read_at(file, head, int(value), tag)
                value = {name: part[name] for name in part if name != ExifTags.IFD.Interop}
        except Exception:  # a damaged entry must not cost the others
            continue
        exif[tag] = value
    return exif
