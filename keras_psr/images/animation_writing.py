"""Writes animated GIF, PNG and WebP files frame by frame, so that memory does not grow with their length."""

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from keras_psr.errors import ConfigError
from keras_psr.images.encoding import encode_photo
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import to_three_channels
from keras_psr.images.png import SIGNATURE, write_chunk

LOSSY_QUALITY = 95
"""Quality of results that are made from a lossy animation."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of a picture, in pixels."""


class AnimationWriter(ABC):
    """Writes an animation, and stores only the part of each frame that differs from the frame before.

    Subclasses write one format each; `open_animation` chooses.
    """

    unit = Fraction(1)
    """Milliseconds that durations are multiples of."""

    longest = 65_535
    """Maximum duration, in units."""

    def __init__(self, path: Path, plays: int, *, has_alpha: bool, quality: int | None) -> None:
        """Opens a file.

        Args:
            path: The file; an existing one is replaced.
            plays: How often the animation is played; 0 for ever.
            has_alpha: Whether frames are transparent.
            quality: Quality of WebP, 1 to 100; None for no losses.
        """
        self._file: IO[bytes] = path.open("wb")
        self._plays, self._has_alpha, self._quality = plays, has_alpha, quality
        self._before: np.ndarray | None = None
        self._count, self._time, self._duration, self._written = 0, Fraction(0), Fraction(0), 0

    def __enter__(self) -> "AnimationWriter":
        """Returns itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Ends the file, and closes it."""
        if raised[0] is None:
            self._end()
        self._file.close()

    def add(self, photo: Photo, duration: Fraction) -> None:
        """Adds a frame.

        Args:
            photo: The frame; metadata is taken from the first one. All have the same size, and 8 bits.
            duration: How long it is shown, in milliseconds.
        """
        levels = _as_levels(photo, has_alpha=self._has_alpha)
        box = self._changed(levels)
        self._time += duration
        units = min(self.longest, round(self._time / self.unit) - self._written)  # no drift, whatever the unit
        self._written += units
        self._duration = duration
        if self._before is None:
            self._begin(photo, levels)
        left, top, right, bottom = box
        self._add(np.ascontiguousarray(levels[top:bottom, left:right]), box, units)
        self._before, self._count = levels, self._count + 1

    def _changed(self, levels: np.ndarray) -> Box:
        """Returns the smallest part that holds everything that differs from the frame before, with even corners."""
        height, width = levels.shape[:2]
        if self._before is None:
            return 0, 0, width, height
        differs = (levels != self._before).any(axis=-1)
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        if not len(rows):
            return 0, 0, 1, 1
        return int(columns[0]) // 2 * 2, int(rows[0]) // 2 * 2, int(columns[-1]) + 1, int(rows[-1]) + 1

    @abstractmethod
    def _begin(self, photo: Photo, levels: np.ndarray) -> None:
        """Writes what precedes the first frame."""

    @abstractmethod
    def _add(self, levels: np.ndarray, box: Box, units: int) -> None:
        """Writes a part of a frame."""

    @abstractmethod
    def _end(self) -> None:
        """Writes what follows the last frame, and what was not known at the beginning."""


def open_animation(path: Path, plays: int, *, has_alpha: bool = False, quality: int | None = None) -> AnimationWriter:
    """Opens an animated file for writing; to be used as a context.

    Args:
        path: The file, whose ending is .gif, .png or .webp.
        plays: How often the animation is played; 0 for ever.
        has_alpha: Whether frames are transparent. In GIF, pixels are either opaque or not.
        quality: Quality of WebP, 1 to 100; None for no losses.

    Returns:
        The writer.

    Raises:
        ConfigError: The path has another ending.

    Example:
        with open_animation(Path("clip.webp"), plays=0) as writer:
            writer.add(Photo(pixels), Fraction(40))
    """
    writers: dict[str, type[AnimationWriter]] = {".gif": GifWriter, ".png": PngWriter, ".webp": WebpWriter}
    if path.suffix.lower() not in writers:
        raise ConfigError(f"cannot write the animation {path}: expected an ending of {', '.join(writers)}.")
    return writers[path.suffix.lower()](path, plays, has_alpha=has_alpha, quality=quality)


def _as_levels(photo: Photo, *, has_alpha: bool) -> np.ndarray:
    """Returns a photo as (height, width, 3), or (height, width, 4) with opacity."""
    pixels = to_three_channels(photo.pixels)
    if not has_alpha:
        return pixels
    alpha = np.full(pixels.shape[:2], 255, np.uint8) if photo.alpha is None else photo.alpha
    return np.dstack([pixels, alpha])


class GifWriter(AnimationWriter):
    """Writes a GIF, each frame with its own 256 colours.

    Reference:
        Graphics Interchange Format, version 89a.
    """

    unit = Fraction(10)

    def _changed(self, levels: np.ndarray) -> Box:
        """Returns the whole frame if there is transparency, because only whole frames can clear the one before."""
        return (0, 0, levels.shape[1], levels.shape[0]) if self._has_alpha else super()._changed(levels)

    def _begin(self, photo: Photo, levels: np.ndarray) -> None:
        self._file.write(b"GIF89a" + struct.pack("<HHBBB", levels.shape[1], levels.shape[0], 0x70, 0, 0))
        if self._plays != 1:
            repetitions = min(65_535, self._plays - 1) if self._plays else 0
            self._file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", repetitions, 0))
        for keyword, text in photo.texts:
            if keyword == "Comment":
                content = text.encode("utf-8", "replace")
                blocks = [content[start : start + 255] for start in range(0, len(content), 255)]
                self._file.write(b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0")

    def _add(self, levels: np.ndarray, box: Box, units: int) -> None:
        # Disposal 2 clears the frame before the next one; with 1 it stays.
        flags = (2 << 2 | 1) if self._has_alpha else 1 << 2
        self._file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", flags, units, 255, 0))
        colours, data = _split_gif(_quantize(levels))
        left, top, right, bottom = box
        size = (len(colours) // 3).bit_length() - 2
        self._file.write(b"\x2c" + struct.pack("<HHHHB", left, top, right - left, bottom - top, 0x80 | size))
        self._file.write(colours + data)

    def _end(self) -> None:
        self._file.write(b"\x3b")


def _quantize(levels: np.ndarray) -> Image.Image:
    """Returns a frame with a palette of 256 colours; the last one stands for transparency if there is opacity."""
    image = Image.fromarray(np.ascontiguousarray(levels[..., :3]))
    if levels.shape[2] == 3:
        return image.quantize(256, Image.Quantize.MEDIANCUT)
    reduced = image.quantize(255, Image.Quantize.MEDIANCUT)
    indices = np.where(levels[..., 3] < 128, 255, np.asarray(reduced)).astype(np.uint8)
    with_hole = Image.fromarray(indices, "P")
    palette = (reduced.getpalette() or [])[: 255 * 3]
    with_hole.putpalette([*palette, *[0] * (768 - len(palette))])
    return with_hole


def _split_gif(image: Image.Image) -> tuple[bytes, bytes]:
    """Returns the colours and the compressed pixels of a picture with a palette, as Pillow writes them in a GIF."""
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=False)
    content = buffer.getvalue()
    colours = 3 * (2 << (content[10] & 7)) if content[10] & 0x80 else 0
    at = 13 + colours
    while content[at] == 0x21:  # extensions, each a chain of blocks
        at += 2
        while content[at]:
            at += content[at] + 1
        at += 1
    assert content[at] == 0x2C
    start, local = at + 10, content[at + 9]
    if local & 0x80:
        colours = 3 * (2 << (local & 7))
        return content[start : start + colours], content[start + colours : -1]
    return content[13 : 13 + colours], content[start:-1]


class PngWriter(AnimationWriter):
    """Writes an animated PNG.

    Reference:
        Portable Network Graphics specification, third edition, section 11.3.6, https://www.w3.org/TR/png-3/
    """

    longest = 2**31
    """Never reached, because PNG stores durations as fractions of a second."""

    def _begin(self, photo: Photo, levels: np.ndarray) -> None:
        self._sequence, self._control = 0, 0
        still = io.BytesIO()
        corner = levels[:1, :1, 3].copy() if self._has_alpha else None
        encode_photo(still, replace(photo, pixels=levels[:1, :1, :3].copy(), alpha=corner), ".png")
        self._file.write(SIGNATURE)
        for name, content in _png_chunks(still.getvalue()):
            if name == b"IHDR":
                write_chunk(self._file, name, struct.pack(">II", levels.shape[1], levels.shape[0]) + content[8:])
                self._control = self._file.tell()
                write_chunk(self._file, b"acTL", bytes(8))
            elif name not in (b"IDAT", b"IEND"):
                write_chunk(self._file, name, content)

    def _add(self, levels: np.ndarray, box: Box, units: int) -> None:
        left, top, right, bottom = box
        delay = (self._duration / 1000).limit_denominator(65_535)
        if delay.numerator > 65_535:
            delay = Fraction(min(65_535, round(delay)))
        sides = (right - left, bottom - top, left, top)
        control = struct.pack(">IIIIHHBB", *sides, delay.numerator, delay.denominator, 0, 0)
        write_chunk(self._file, b"fcTL", self._next_number() + control)
        still = io.BytesIO()
        encode_photo(still, Photo(levels[..., :3], levels[..., 3] if self._has_alpha else None), ".png")
        for name, content in _png_chunks(still.getvalue()):
            if name == b"IDAT" and not self._count:
                write_chunk(self._file, name, content)
            elif name == b"IDAT":
                write_chunk(self._file, b"fdAT", self._next_number() + content)

    def _end(self) -> None:
        write_chunk(self._file, b"IEND", b"")
        self._file.seek(self._control)
        write_chunk(self._file, b"acTL", struct.pack(">II", self._count, self._plays))

    def _next_number(self) -> bytes:
        self._sequence += 1
        return struct.pack(">I", self._sequence - 1)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length


class WebpWriter(AnimationWriter):
    """Writes an animated WebP.

    Reference:
        WebP container specification, RFC 9649, section 2.7.
    """

    longest = 2**24 - 1

    def _begin(self, photo: Photo, levels: np.ndarray) -> None:
        still = io.BytesIO()
        encode_photo(still, replace(photo, pixels=levels[:1, :1, :3].copy(), alpha=None), ".webp")
        found = dict(_webp_chunks(still.getvalue()))
        flags = 2 | (0x10 if self._has_alpha else 0)
        for name, flag in ((b"ICCP", 0x20), (b"EXIF", 0x08), (b"XMP ", 0x04)):
            flags |= flag if name in found else 0
        size = b"".join((side - 1).to_bytes(3, "little") for side in levels.shape[1::-1])
        self._file.write(b"RIFF\0\0\0\0WEBP")
        self._chunk(b"VP8X", struct.pack("<I", flags) + size)
        if b"ICCP" in found:
            self._chunk(b"ICCP", found[b"ICCP"])
        self._chunk(b"ANIM", struct.pack("<IH", 0, min(self._plays, 65_535)))
        self._after = [(name, found[name]) for name in (b"EXIF", b"XMP ") if name in found]

    def _add(self, levels: np.ndarray, box: Box, units: int) -> None:
        left, top, right, bottom = box
        options: dict[str, Any] = {"lossless": True, "exact": True}
        if self._quality is not None:
            options = {"quality": self._quality}
        still = io.BytesIO()
        Image.fromarray(levels).save(still, "WEBP", **options)
        numbers = (left // 2, top // 2, right - left - 1, bottom - top - 1, units)
        content = b"".join(number.to_bytes(3, "little") for number in numbers) + b"\2"  # 2: replace, do not blend
        for name, part in _webp_chunks(still.getvalue()):
            if name in (b"ALPH", b"VP8 ", b"VP8L"):
                content += name + struct.pack("<I", len(part)) + part + bytes(len(part) % 2)
        self._chunk(b"ANMF", content)

    def _end(self) -> None:
        for name, content in self._after:
            self._chunk(name, content)
        size = self._file.tell() - 8
        self._file.seek(4)
        self._file.write(struct.pack("<I", size))

    def _chunk(self, name: bytes, content: bytes) -> None:
        self._file.write(name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2))


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, at + 4)
        yield content[at : at + 4], content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
