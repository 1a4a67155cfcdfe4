"""PNG: an encoder for 8 and 16 bits that uses all cores, and access to the chunks around the pixels.

Reference:
    Portable Network Graphics specification, third edition, https://www.w3.org/TR/png-3/
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from keras_psr.environment import available_cores

SIGNATURE = b"\x89PNG\r\n\x1a\n"

STRIP = 1_000_000
"""Bytes of pixels that one thread filters and compresses at once."""

SAMPLE = 65_536
"""Bytes in the middle of a strip that are compressed in two ways, to choose one for the whole strip."""

MAX_TEXT = 2**20
"""Maximum size of a decompressed text in bytes; longer texts are left out."""

MAX_TEXTS = 2**23
"""Maximum size of all texts of a file together, in bytes."""

MAX_PROFILE = 2**26
"""Maximum size of a decompressed colour profile, in bytes."""

COLOUR_CHUNKS = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
"""Length in bytes of the chunks, other than iCCP, that define the meaning of colours; all precede the pixels."""

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


@dataclass
class Surroundings:
    """The contents of a PNG around its pixels.

    Attributes:
        icc_profile: Colour profile, unchecked.
        texts: Pairs of keyword and text, in order.
        colour: Pairs of name and content of the chunks in `COLOUR_CHUNKS`.
        notes: What could not be read, in a few words each.
    """

    icc_profile: bytes | None = None
    texts: list[tuple[str, str]] = field(default_factory=list)
    colour: list[tuple[bytes, bytes]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def split_chunks(data: bytes) -> tuple[bytes, Surroundings]:
    """Removes texts and the colour profile from a PNG, which may be damaged or too large while its pixels are fine.

    Args:
        data: The contents of the file.

    Returns:
        The file without its texts and colour profile, for a decoder; and what was removed.
    """
    kept, found = [data[: len(SIGNATURE)]], Surroundings()
    room, at = MAX_TEXTS, len(SIGNATURE)
    while at + 8 <= len(data):
        (length,), name = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        if name in _TEXTS or name == b"iCCP":
            room -= _read_chunk(name, data[at + 8 : end - 4], data[end - 4 : end], room, found)
        else:
            kept.append(data[at:end])
            if len(data[at + 8 : end - 4]) == COLOUR_CHUNKS.get(name):
                found.colour.append((name, data[at + 8 : end - 4]))
        at = end
    return b"".join(kept), found


def _read_chunk(name: bytes, content: bytes, checksum: bytes, room: int, found: Surroundings) -> int:
    """Reads a text or the colour profile into `found`, and returns the number of characters of text added."""
    what = "colour profile" if name == b"iCCP" else "text"
    try:
        if checksum != struct.pack(">I", zlib.crc32(name + content)):
            raise ValueError("its checksum is wrong")
        keyword, _, rest = content.partition(b"\0")
        if name == b"iCCP":
            found.icc_profile = _inflate(rest[1:], MAX_PROFILE)
            return 0
        text = _decode_text(name, rest)
        if len(text) > room:
            raise _TooLargeError
        found.texts.append((keyword.decode("latin-1"), text))
        return len(text)
    except _TooLargeError:
        note = f"a {what} of more than {(MAX_PROFILE if name == b'iCCP' else MAX_TEXT) >> 20} MB is left out"
    except (ValueError, zlib.error, IndexError):
        note = f"a damaged {what} is left out"
    if note not in found.notes:
        found.notes.append(note)
    return 0


class _TooLargeError(Exception):
    """A decompressed text or profile exceeds its maximum size."""


def _decode_text(name: bytes, rest: bytes) -> str:
    """Returns the text of a chunk, given what follows its keyword."""
    if name == b"tEXt":
        if len(rest) > MAX_TEXT:
            raise _TooLargeError
        return rest.decode("latin-1")
    if name == b"zTXt":
        return _inflate(rest[1:], MAX_TEXT).decode("latin-1")
    is_compressed, (_, _, text) = rest[0], rest[2:].split(b"\0", 2)
    if not is_compressed and len(text) > MAX_TEXT:
        raise _TooLargeError
    return (_inflate(text, MAX_TEXT) if is_compressed else text).decode("utf-8")


def _inflate(data: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj()
    inflated = decompressor.decompress(data, limit)
    if decompressor.unconsumed_tail:
        raise _TooLargeError
    if not decompressor.eof:
        raise ValueError("it is cut off")
    return inflated


def text_chunk(keyword: str, text: str) -> tuple[bytes, bytes]:
    """Returns the chunk for a text: Latin-1 if that is enough, else UTF-8; compressed if it is long.

    Args:
        keyword: 1 to 79 Latin-1 characters; others are replaced or cut off.
        text: Any text.

    Returns:
        The chunk's name and content.
    """
    key = keyword.encode("latin-1", "replace")[:79] + b"\0"
    is_long = len(text) > 1024
    try:
        content = text.encode("latin-1")
    except UnicodeEncodeError:
        content = text.encode("utf-8", "replace")
        head = key + (b"\1\0\0\0" if is_long else b"\0\0\0\0")
        return b"iTXt", head + (zlib.compress(content) if is_long else content)
    return (b"zTXt", key + b"\0" + zlib.compress(content)) if is_long else (b"tEXt", key + content)


def write_png(
    file: IO[bytes],
    pixels: np.ndarray,
    alpha: np.ndarray | None = None,
    before: Iterable[tuple[bytes, bytes]] = (),
    after: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Writes a PNG in strips, which several threads filter and compress.

    Each row uses the filter that leaves the smallest differences: left, above or Paeth. A strip is compressed with run
    lengths and Huffman codes only, which for photographs gives smaller files than zlib's level 4 in half the time,
    unless a sample shows that repeated strings are worth finding, as in drawings and text.

    Args:
        file: The file to write to.
        pixels: uint8 or uint16; RGB (height, width, 3) or grey (height, width).
        alpha: Opacity, (height, width), of the same dtype.
        before: Names and contents of the chunks before the pixels, in order.
        after: Names and contents of the chunks after the pixels, in order.
    """
    height, width = pixels.shape[:2]
    colour = (2 if pixels.ndim == 3 else 0) + (4 if alpha is not None else 0)
    file.write(SIGNATURE)
    write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0))
    for name, content in before:
        write_chunk(file, name, content)
    for part in _compress(pixels, alpha):
        write_chunk(file, b"IDAT", part)
    for name, content in after:
        write_chunk(file, name, content)
    write_chunk(file, b"IEND", b"")


def write_chunk(file: IO[bytes], name: bytes, content: bytes) -> None:
    """Writes a chunk of a PNG: its length, its name of four letters, its content and a checksum."""
    checksum = zlib.crc32(content, zlib.crc32(name))
    file.write(struct.pack(">I", len(content)) + name)
    file.write(content)
    file.write(struct.pack(">I", checksum))


def _compress(pixels: np.ndarray, alpha: np.ndarray | None) -> Iterator[bytes]:
    """Yields the zlib stream of a picture, one part per strip. Parts end at a byte, so that they can be joined."""
    height, width = pixels.shape[:2]
    row_bytes = width * pixels.itemsize * (pixels.size // (height * width) + (alpha is not None))
    step = max(1, STRIP // row_bytes)
    tops = range(0, height, step)

    def compress(top: int) -> tuple[bytes, int, int]:
        rows = _filter_rows(*_row_bytes(pixels, alpha, max(0, top - 1), min(height, top + step)), is_first=top == 0)
        return deflate(rows, is_whole=False), zlib.adler32(rows), len(rows)

    checksum, length = 1, 0
    with ThreadPoolExecutor(min(len(tops), available_cores())) as executor:
        for index, (part, part_checksum, part_length) in enumerate(executor.map(compress, tops)):
            checksum, length = _join_adler32(checksum, part_checksum, part_length), length + part_length
            start = b"\x78\x01" if index == 0 else b""  # deflate with a window of 32 KB, declared as fastest level
            # An empty final block with fixed codes ends the stream.
            end = b"\x03\x00" + struct.pack(">I", checksum) if index == len(tops) - 1 else b""
            yield start + part + end


def _row_bytes(pixels: np.ndarray, alpha: np.ndarray | None, top: int, end: int) -> tuple[np.ndarray, int]:
    """Returns rows as bytes in the file's order, (rows, bytes), and the number of bytes per pixel."""
    strip = pixels[top:end]
    if alpha is not None:
        strip = np.dstack([strip, alpha[top:end]])
    strip = np.ascontiguousarray(strip, strip.dtype.newbyteorder(">"))
    rows = strip.view(np.uint8).reshape(len(strip), -1)
    return rows, rows.shape[1] // pixels.shape[1]


def _filter_rows(rows: np.ndarray, pixel: int, *, is_first: bool) -> bytes:
    """Returns each row filtered by the best of three filters, preceded by the filter's number.

    Args:
        rows: (rows, bytes). Unless `is_first`, the first row only precedes the ones to filter.
        pixel: Bytes per pixel.
        is_first: Whether the first row is the picture's first.
    """
    if is_first:
        rows = np.concatenate([np.zeros_like(rows[:1]), rows])
    # The whole strip at once: threads that give NumPy little to do wait for each other's turn with Python.
    current, above = rows[1:], rows[:-1]
    left, corner = (np.pad(part[:, :-pixel], [(0, 0), (pixel, 0)]) for part in (current, above))
    candidates = (current - left, current - above, current - _predict_by_paeth(left, above, corner))
    # Small differences are bytes near 0 and 256: as signed numbers, those of small magnitude.
    costs = [np.minimum(part, 0 - part).sum(axis=1, dtype=np.uint32) for part in candidates]
    best = np.argmin(costs, axis=0)
    filtered = np.empty((len(current), rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = np.array([1, 2, 4], np.uint8)[best]
    for index, part in enumerate(candidates):
        filtered[best == index, 1:] = part[best == index]
    return filtered.tobytes()


def _predict_by_paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Returns the byte nearest to left + above - corner among left, above and corner, with byte arithmetic only.

    The distances of left and above from that sum equal those of above and left from the corner. The corner's own
    distance is their difference if it lies between the two, and otherwise their sum, which is never the smallest.

    Reference:
        PNG specification, section 9.4.
    """
    low, high = np.minimum(left, above), np.maximum(left, above)
    to_left = np.maximum(above, corner) - np.minimum(above, corner)
    to_above = np.maximum(left, corner) - np.minimum(left, corner)
    smaller = np.minimum(to_left, to_above)
    is_corner = np.maximum(to_left, to_above) - smaller < smaller
    is_corner &= (low < corner) & (corner < high)
    return _choose(is_corner, corner, _choose(to_left <= to_above, left, above))


def _choose(condition: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Does what `np.where` does, for bytes: several times as fast where neighbours differ, because nothing branches."""
    return other ^ ((one ^ other) & -condition.view(np.uint8))


def deflate(data: bytes, *, is_whole: bool) -> bytes:
    """Compresses filtered pixels with runs and Huffman codes, or repeated strings if a sample gets a tenth smaller.

    Args:
        data: The bytes of filtered pixels.
        is_whole: Whether to return a complete zlib stream, or else raw deflate that ends at a byte, so that more parts
            can follow.
    """
    middle = max(0, (len(data) - SAMPLE) // 2)
    sample = data[middle : middle + SAMPLE]
    runs, strings = ((1, zlib.Z_RLE), (4, zlib.Z_FILTERED))
    chosen = strings if len(_deflate_as(sample, *strings)) < 0.9 * len(_deflate_as(sample, *runs)) else runs
    return _deflate_as(data, *chosen, is_whole=is_whole)


def _deflate_as(data: bytes, level: int, strategy: int, *, is_whole: bool = False) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, 15 if is_whole else -15, 9, strategy)
    return compressor.compress(data) + compressor.flush(zlib.Z_FINISH if is_whole else zlib.Z_FULL_FLUSH)


def _join_adler32(first: int, second: int, length: int) -> int:
    """Returns the Adler-32 checksum of two joined parts from their checksums and the length of the second.

    The low half is 1 plus the sum of all bytes; the high half is the sum of the low halves after each byte.

    Reference:
        RFC 1950, section 9.
    """
    prime = 65521
    low = ((first & 0xFFFF) + (second & 0xFFFF) - 1) % prime
    high = ((first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)) % prime
    return high << 16 | low
