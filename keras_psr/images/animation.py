"""Animated GIF, PNG and WebP files as they are read: frames, how long each is shown, and how often they are played."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from keras_psr.errors import ImageFileError
from keras_psr.images.photo import Photo
from keras_psr.images.png import SIGNATURE

ANIMATED = {".gif": "GIF", ".png": "PNG", ".webp": "WEBP"}
"""Maps the endings of files that can hold animations to Pillow's names of their formats."""


@dataclass(frozen=True)
class Animation:
    """What an animated file says of itself.

    Attributes:
        path: The file.
        height: Height of the frames, in pixels.
        width: Width of the frames, in pixels.
        durations: How long each frame is shown, in milliseconds.
        plays: How often the animation is played; 0 for ever.
        has_alpha: Whether any frame is transparent somewhere.
        first: Number of the first frame; 1 if the picture before it is only for programs that show no animations.
    """

    path: Path
    height: int
    width: int
    durations: tuple[Fraction, ...]
    plays: int
    has_alpha: bool
    first: int = 0


def find_ending(path: Path) -> str | None:
    """Returns the ending of `ANIMATED` that a file's content asks for, if it has several frames; else None.

    Frames are not decoded. Damaged files have none.

    Example:
        if find_ending(path):
            animation = read_animation(path)
    """
    try:
        with path.open("rb") as file:
            head = file.read(32)
            if head.startswith(SIGNATURE):
                return ".png" if _has_animation_control(file) else None
            if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
                return ".webp" if head[20] & 2 else None
            if head.startswith(b"GIF8"):
                with Image.open(path, formats=["GIF"]) as image:
                    return ".gif" if getattr(image, "is_animated", False) else None
    except Exception:  # Pillow raises many kinds for damaged files
        return None
    return None


def _has_animation_control(file: IO[bytes]) -> bool:
    """Returns whether a PNG has a chunk that says that it has several frames."""
    file.seek(8)
    while len(chunk := file.read(12)) == 12:
        length, name = struct.unpack(">I4s", chunk[:8])
        if name == b"acTL":
            return int.from_bytes(chunk[8:], "big") > 1
        if name in (b"IDAT", b"IEND"):
            return False
        file.seek(length, 1)  # 4 bytes of the content have been read, and 4 of a checksum follow it
    return False


def read_animation(path: Path) -> Animation:
    """Reads what an animated file says of itself, and looks at all its frames.

    Args:
        path: A file for which `find_ending` returns an ending.

    Returns:
        The description.

    Raises:
        ImageFileError: The file is damaged.

    Example:
        animation = read_animation(Path("clip.gif"))
    """
    durations, has_alpha = [], False
    with _opened(path) as image:
        plays, first = _count_plays(image), int(bool(image.info.get("default_image")))
        size = image.size
        for levels, duration in _decode(image, first):
            durations.append(duration)
            has_alpha = has_alpha or bool((levels[..., 3] < 255).any())
    if not durations:
        raise ImageFileError(f"{path} has no frames that can be read; replace or remove it.")
    return Animation(path, size[1], size[0], tuple(durations), plays, has_alpha, first)


def read_frames(animation: Animation) -> Iterator[Photo]:
    """Yields the frames of an animation as photos of 8 bits, as they are shown, without metadata.

    Raises:
        ImageFileError: The file is damaged.

    Example:
        for frame in read_frames(read_animation(Path("clip.gif"))):
            print(frame.pixels.shape)
    """
    with _opened(animation.path) as image:
        for levels, _ in _decode(image, animation.first):
            alpha = levels[..., 3] if animation.has_alpha else None
            yield Photo(np.ascontiguousarray(levels[..., :3]), None if alpha is None else alpha.copy())


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=list(ANIMATED.values()))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageFileError(f"{path} cannot be read ({reason}); replace or remove it.") from error


def _decode(image: Image.Image, first: int) -> Iterator[tuple[np.ndarray, Fraction]]:
    """Yields RGBA pixels, (height, width, 4), and durations in milliseconds, up to the first damaged frame."""
    for number in range(first, getattr(image, "n_frames", 1)):
        try:
            image.seek(number)
            levels = np.asarray(image.convert("RGBA"))
        except Exception:  # if the file was cut off, the frames before that are shown
            return
        yield levels, Fraction(image.info.get("duration") or 0).limit_denominator(1000)


def _count_plays(image: Image.Image) -> int:
    """Returns how often an animation is played; 0 for ever. GIF counts the repetitions after the first time."""
    loops = image.info.get("loop")
    if image.format != "GIF":
        return int(loops or 0)
    return 1 if loops is None else 0 if loops == 0 else loops + 1
