"""Films as they are written: encoded frames, and everything else that is copied from the film they come from."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av

from keras_psr.errors import ConfigError
from keras_psr.films.colour import FrameWriter
from keras_psr.films.encoders import Encoding, find_container
from keras_psr.films.reading import Film, Moment, Packet, is_copied, opened
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import lay_over_white, to_8_bits

SIGNED = "handler_name"
"""The entry of a stream's metadata that says who made it. MP4, QuickTime, Matroska and WebM all keep it."""

_MOVFLAGS = "+hybrid_fragmented+frag_keyframe+delay_moov"
"""Makes MP4 and QuickTime files playable up to the last second while they are written, and ordinary at the end."""

_STALE = ("bps", "duration", "encoder", "number_of_", "_statistics", SIGNED, "vendor_id", "alpha_mode")
"""Beginnings of the names of metadata, in lower case, that describe how a stream was encoded."""

_OF_CONTAINER = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")


class FilmWriter:
    """Writes a film: encodes moments, and copies sound, subtitles, attachments, chapters and metadata.

    Attributes:
        notes: What could not be copied, in a few words each.
        end: End of the last frame written, in seconds.
        count: Number of frames written.
    """

    def __init__(
        self,
        target: Path,
        film: Film,
        encoding: Encoding,
        size: tuple[int, int],
        *,
        start: Fraction = Fraction(0),
        duration: Fraction | None = None,
        signature: str = "",
        in_memory: bool = False,
    ) -> None:
        """Opens a file and writes its header.

        Args:
            target: The file; an existing one is replaced. Its ending chooses the format.
            film: The film that moments and packets come from.
            encoding: How to encode.
            size: Height and width of the moments' photos, in pixels.
            start: Where the part of the film begins that is written, in seconds.
            duration: Its length; None for the rest.
            signature: Who made it, for the metadata.
            in_memory: Whether to write to memory instead, to try whether everything fits together.

        Raises:
            ConfigError: The format cannot hold the codec or the sound, or the encoder refuses the size or a setting.
            ImageFileError: The film can no longer be opened.
            OSError: The file cannot be written.
        """
        self.notes = [*encoding.notes, *_describe_left_out(film), *_describe_padding(size, encoding)]
        self.end, self.count = Fraction(0), 0
        self._film, self._blend = film, film.has_alpha and "transparency" in " ".join(encoding.notes)
        kind = find_container(target)
        options = {"movflags": _MOVFLAGS} if kind in ("mp4", "mov") else {}
        height, width = (-(-side // unit) * unit for side, unit in zip(size, encoding.alignment, strict=True))
        self._convert = FrameWriter(film.colour.written, encoding.frame_format, height, width)
        self._durations: dict[int, int] = {}
        self._last_dts: dict[int, Fraction] = {}
        place: Any = BytesIO() if in_memory else str(target)
        self._output = av.open(place, "w", format=kind, container_options=options)
        try:
            with opened(film.path) as source, _reasons(encoding, (height, width)):
                self._streams = self._add_streams(source, target, encoding, (height, width), signature)
                self._output.metadata.update(
                    {name: text for name, text in source.metadata.items() if name.lower() not in _OF_CONTAINER}
                )
                self._output.set_chapters(_cut_chapters(source.chapters(), film.origin + start, duration))
                self._output.start_encoding()
        except BaseException:
            self._output.close()
            raise

    def _add_streams(
        self,
        source: av.container.InputContainer,
        target: Path,
        encoding: Encoding,
        size: tuple[int, int],
        signature: str,
    ) -> dict[int, Any]:
        """Adds a stream for each stream of the film, in the same order. Returns them by their index in the film."""
        streams = dict[int, Any]()
        for stream in source.streams:
            if stream.index == self._film.index:
                streams[stream.index] = self._video = self._add_video(stream, encoding, size, signature)
            elif is_copied(stream):
                copied = self._add_copy(stream, target)
                if copied is not None:
                    streams[stream.index] = copied
        return streams

    def _add_video(self, stream: Any, encoding: Encoding, size: tuple[int, int], signature: str) -> Any:
        film, colour = self._film, self._film.colour.written
        try:
            video: Any = self._output.add_stream(encoding.encoder, rate=film.rate, options=dict(encoding.options))
        except ValueError as error:
            raise ConfigError(
                f"{self._output.format.name} cannot hold {encoding.encoder}. Give another ending or --codec."
            ) from error
        video.height, video.width, video.pix_fmt = *size, encoding.frame_format
        video.time_base = film.time_base
        context = video.codec_context
        context.time_base, context.sample_aspect_ratio = film.time_base, film.pixel_aspect
        context.color_range, context.colorspace = 2 if colour.is_full else 1, colour.matrix
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        if encoding.encoder == "libx265" and self._output.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # the tag that QuickTime and Safari ask for
        video.metadata.update(
            {name: text for name, text in stream.metadata.items() if not name.lower().startswith(_STALE)}
        )
        video.metadata[SIGNED] = signature
        return video

    def _add_copy(self, stream: Any, target: Path) -> Any | None:
        """Adds a copy of a stream of the film; None, with a note, if the format cannot hold it.

        Raises:
            ConfigError: The stream is sound.
        """
        name = stream.name or "unknown"
        if _fits(stream, self._output.format.name):
            copied = self._output.add_stream_from_template(stream)
            copied.disposition = stream.disposition
            copied.metadata.update(
                {name: text for name, text in stream.metadata.items() if name.lower() not in ("duration", "encoder")}
            )
            return copied
        if stream.type == "audio":
            raise ConfigError(f"{target} cannot hold the film's sound ({name}). Write an .mkv.")
        words = "subtitles" if stream.type == "subtitle" else "an attachment"
        self.notes.append(f"{target.suffix} cannot hold {words} ({name})")
        return None

    def write(self, item: "Moment | Packet") -> None:
        """Encodes a moment, or copies a packet."""
        if isinstance(item, Moment):
            photo = _lay_over_white(item.photo) if self._blend else item.photo
            frame = self._convert(photo)
            frame.pts, frame.time_base = item.time, self._film.time_base
            self._durations[item.time] = item.duration
            for packet in self._video.encode(frame):
                self._mux_video(packet)
            self.count += 1
            self.end = max(self.end, (item.time + item.duration) * self._film.time_base)
        elif item.stream_index in self._streams:
            item.stream = self._streams[item.stream_index]
            self._mux(item)

    def _mux_video(self, packet: Packet) -> None:
        unit = self._film.time_base
        duration = self._durations.pop(packet.pts or 0, 0)
        packet.duration = duration or max(1, round(1 / (self._film.rate * unit)))
        self._mux(packet)

    def _mux(self, packet: Packet) -> None:
        self._output.mux(packet)

    def close(self) -> None:
        """Writes what the encoder still holds, and the end of the file."""
        try:
            for packet in self._video.encode(None):
                self._mux_video(packet)
        finally:
            self._output.close()


def _fits(stream: Any, kind: str) -> bool:
    """Returns whether a format can hold a copy of a stream, by trying it in memory."""
    try:
        with av.open(BytesIO(), "w", format=kind) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


@contextmanager
def _reasons(encoding: Encoding, size: tuple[int, int]) -> Iterator[None]:
    """Turns what FFmpeg raises while an encoder is opened into one line with its reason.

    Raises:
        ConfigError: FFmpeg raised an error.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as lines:
            yield
    except av.FFmpegError as error:
        said = [" ".join(line[2].split()) for line in lines if line[2].strip()]
        reason = said[-1] if said else error.strerror
        raise ConfigError(
            f"{encoding.encoder} refuses frames of {size[1]}x{size[0]} ({reason}). Give another size or --codec."
        ) from error
    finally:
        av.logging.set_level(level)


def _describe_left_out(film: Film) -> list[str]:
    return [f"left out: {', '.join(dict.fromkeys(film.left_out))}"] if film.left_out else []


def _describe_padding(size: tuple[int, int], encoding: Encoding) -> list[str]:
    rest = [-side % unit for side, unit in zip(size, encoding.alignment, strict=True)]
    if not any(rest):
        return []
    padded = f"{size[1] + rest[1]}x{size[0] + rest[0]}"
    return [f"{size[1]}x{size[0]} extended to {padded}, because {encoding.frame_format} needs even sides"]


def _cut_chapters(chapters: list[Any], begin: Fraction, duration: Fraction | None) -> list[Any]:
    """Returns the chapters within a part of a film, with times that count from its beginning."""
    cut = []
    for chapter in chapters:
        unit = chapter["time_base"] or Fraction(1, 1000)
        limits = [max(Fraction(0), chapter[side] * unit - begin) for side in ("start", "end")]
        if duration is not None:
            limits = [min(limit, duration) for limit in limits]
        if limits[0] < limits[1]:
            cut.append({**chapter, "start": int(limits[0] / unit), "end": int(limits[1] / unit), "time_base": unit})
    return cut


def _lay_over_white(photo: Photo) -> Photo:
    if photo.alpha is None:
        return photo
    pixels, alpha = photo.pixels, photo.alpha
    if pixels.dtype != "uint8":
        pixels, alpha = to_8_bits(pixels), to_8_bits(alpha)
    return Photo(lay_over_white(pixels, alpha))
