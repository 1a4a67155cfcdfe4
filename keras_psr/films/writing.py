"""Films as they are written: encoded frames, and everything else that is copied from the film they come from."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from keras_psr.errors import ConfigError, ImageFileError
from keras_psr.films.colour import FrameWriter, has_opacity
from keras_psr.films.encoders import Encoding
from keras_psr.films.formats import find_container
from keras_psr.films.reading import TOLERANCE, Film, Moment, Packet, is_copied, opened
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import lay_over_white

SIGNED = "handler_name"
"""The entry of a stream's metadata that says who made it. MP4, QuickTime, Matroska and WebM all keep it."""

_MOVFLAGS = "+hybrid_fragmented+frag_keyframe+delay_moov"
"""Makes MP4 and QuickTime files playable up to the last second while they are written, and ordinary at the end."""

_REPACKED = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
"""Maps codecs whose packets are stored in another form than encoders make to the filters that undo this."""

REORDERED = 4
"""More frames than any encoder stores before one that is shown earlier: as set up here, x264 and x265 store 2."""

_STALE = ("bps", "duration", "encoder", "number_of_", "_statistics", SIGNED, "vendor_id", "alpha_mode")
"""Beginnings of the names of metadata, in lower case, that describe how a stream was encoded."""

_OF_CONTAINER = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")


class FilmWriter:
    """Writes a film: encodes moments, and copies sound, subtitles, attachments, chapters and metadata.

    Attributes:
        size: Height and width of the frames that are written, in pixels.
        notes: What could not be copied, in a few words each.
        end: End of the last frame written, in seconds.
        count: Number of frames written.
        refused: Number of packets that could not be written because of their time stamps.
    """

    def __init__(
        self,
        target: Path,
        film: Film,
        encoding: Encoding,
        size: tuple[int, int],
        *,
        others: Iterable[Packet] = (),
        start: Fraction = Fraction(0),
        duration: Fraction | None = None,
        signature: str = "",
        in_memory: bool = False,
    ) -> None:
        """Opens a file and writes its header.

        Args:
            target: The file; an existing one is replaced. Its ending chooses the format.
            film: The film that everything comes from.
            encoding: How to encode.
            size: Height and width of the moments' photos, in pixels.
            others: Sound and subtitles (`PacketReader`).
            start: Where the part to write begins, in seconds.
            duration: Its length; None for the rest.
            signature: Who made it, for the metadata.
            in_memory: Whether to write to memory instead, to try whether everything fits together.

        Raises:
            ConfigError: The format cannot hold the codec or the sound, or the encoder refuses the size or a setting.
            ImageFileError: The film can no longer be opened, or the file cannot be written.
        """
        kind, frame_format = find_container(target), av.VideoFormat(encoding.frame_format)
        height, width = (-(-side // unit) * unit for side, unit in zip(size, encoding.alignment, strict=True))
        self.size, self.end, self.count, self.refused = (height, width), Fraction(0), 0, 0
        self.notes = [*encoding.notes, *_describe_left_out(film), *_describe_padding(size, self.size, encoding)]
        self.notes += _describe_aspect(film, kind, encoding)
        self._target, self._film, self._encoding = target, film, encoding
        self._blends = film.has_alpha and not has_opacity(frame_format)
        self._colour = film.colour.written_by(encoding.encoder, encoding.frame_format)
        self._convert = FrameWriter(self._colour, encoding.frame_format, height, width)
        self._durations: dict[int, int] = {}
        self._others = iter(others)
        self._next = next(self._others, None)
        self._last_dts: Fraction | None = None
        place: Any = BytesIO() if in_memory else f"file:{target}"
        options = {"movflags": _MOVFLAGS} if kind in ("mp4", "mov") else {}
        self._output = av.open(place, "w", format=kind, container_options=options)
        try:
            self._write_header(start, duration, signature)
        except OSError as error:
            raise self._unwritable(error) from error
        except BaseException:
            self._output.close()
            raise

    def _write_header(self, start: Fraction, duration: Fraction | None, signature: str) -> None:
        with opened(self._film.path) as source:
            self._streams = self._add_streams(source, signature)
            self._output.metadata.update(
                {name: text for name, text in source.metadata.items() if name.lower() not in _OF_CONTAINER}
            )
            self._output.set_chapters(_cut_chapters(source.chapters(), self._film.origin + start, duration))
            what = f"{self._target.suffix} cannot hold {self._encoding.encoder}"
            with _reasons(what, "Give another ending or --codec.", passing=OSError):
                self._output.start_encoding()

    def _add_streams(self, source: av.container.InputContainer, signature: str) -> dict[int, Any]:
        """Adds a stream for each stream of the film, in the same order. Returns them by their index in the film."""
        streams = dict[int, Any]()
        for stream in source.streams:
            if stream.index == self._film.index:
                streams[stream.index] = self._pictures = self._add_pictures(stream, signature)
            elif is_copied(stream):
                copied = self._add_copy(stream)
                if copied is not None:
                    streams[stream.index] = copied
        return streams

    def _add_pictures(self, stream: Any, signature: str) -> Any:
        """Adds the stream of pictures, and opens its encoder.

        Raises:
            ConfigError: The format cannot hold the codec, or the encoder refuses the size or a setting.
        """
        film, encoding, colour, target = self._film, self._encoding, self._colour, self._target
        try:
            pictures: Any = self._output.add_stream(encoding.encoder, rate=film.rate, options=dict(encoding.options))
        except ValueError as error:
            raise ConfigError(
                f"{target.suffix} cannot hold {encoding.encoder}. Give another ending or --codec."
            ) from error
        pictures.height, pictures.width, pictures.pix_fmt = *self.size, encoding.frame_format
        pictures.time_base = film.time_base
        context = pictures.codec_context
        context.time_base, context.sample_aspect_ratio = film.time_base, film.pixel_aspect
        context.color_range, context.colorspace = 2 if colour.is_full else 1, colour.matrix
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        if encoding.encoder == "libx265" and self._output.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # the tag that QuickTime and Safari ask for
        what = f"{encoding.encoder} refuses frames of {self.size[1]}x{self.size[0]}"
        with _reasons(what, "Give another size or --codec."):
            context.open()
        kept = {name: text for name, text in stream.metadata.items() if not name.lower().startswith(_STALE)}
        pictures.metadata.update({**kept, SIGNED: signature})
        return pictures

    def _add_copy(self, stream: Any) -> Any | None:
        """Adds a copy of a stream of the film; None, with a note, if the format cannot hold it.

        Raises:
            ConfigError: The stream is sound.
        """
        name = stream.name or "unknown"
        if _fits(stream, self._output.format.name):
            copied = self._output.add_stream_from_template(stream)
            copied.disposition = stream.disposition.value
            copied.metadata.update(
                {name: text for name, text in stream.metadata.items() if name.lower() not in ("duration", "encoder")}
            )
            return copied
        if stream.type == "audio":
            raise ConfigError(f"{self._target} cannot hold the film's sound ({name}). Write an .mkv.")
        words = "subtitles" if stream.type == "subtitle" else "an attachment"
        self.notes.append(f"{self._target.suffix} cannot hold {words} ({name})")
        return None

    def write(self, moment: Moment) -> None:
        """Encodes a moment.

        Raises:
            ImageFileError: The file cannot be written.
        """
        frame = self._convert(_lay_over_white(moment.photo) if self._blends else moment.photo)
        frame.pts, frame.time_base = moment.time, self._film.time_base
        self._durations[moment.time] = moment.duration
        for packet in self._pictures.encode(frame):
            self._mux_picture(packet)

    def copy_beginning(self, unfinished: Path, first: Fraction) -> Fraction | None:
        """Copies what an interrupted run has encoded, as far as it is complete.

        Args:
            unfinished: A file that a writer with the same arguments began.
            first: Time of the first frame, in seconds. Some formats shift everything if sound begins before 0.

        Returns:
            The time of the last frame that has been copied, in seconds; None if there is none.

        Raises:
            ImageFileError: The file cannot be read.
        """
        stamps, last = iter(_plan_copy(unfinished, self._pictures.index)), None
        with opened(unfinished) as source:
            stream = source.streams[self._pictures.index]
            repack = _REPACKED.get(stream.name or "")
            unpack = BitStreamFilterContext(repack, stream) if repack else None
            shift: int | None = None
            for packet in source.demux(stream):
                stamp = None if packet.pts is None else next(stamps, None)
                if packet.pts is None or stamp is None:
                    continue
                packet.dts = stamp
                if shift is None:
                    late = packet.pts * packet.time_base - first
                    shift = round(late / packet.time_base) if abs(late) > TOLERANCE else 0
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                last = max(last or 0, packet.pts * packet.time_base)
                for part in unpack.filter(packet) if unpack else [packet]:
                    self._mux_picture(part)
        return last

    def _mux_picture(self, packet: Packet) -> None:
        """Writes an encoded frame, after the sound and subtitles before it."""
        assert packet.pts is not None and packet.dts is not None
        unit = packet.time_base
        duration = self._durations.pop(packet.pts, packet.duration or 0) or max(1, round(1 / (self._film.rate * unit)))
        packet.duration = duration
        if self._last_dts is not None and packet.dts * unit <= self._last_dts:
            packet.dts = int(self._last_dts / unit) + 1  # it follows frames that have been copied
        self._last_dts, time = packet.dts * unit, packet.pts * unit
        self.count += 1
        self.end = max(self.end, time + duration * unit)
        self._copy_until(time)
        packet.stream = self._pictures
        self._mux(packet)

    def _copy_until(self, time: Fraction | None) -> None:
        """Copies sound and subtitles up to a time, in seconds, or to their end."""
        while self._next is not None and (time is None or (self._next.pts or 0) * self._next.time_base <= time):
            if self._next.stream_index in self._streams:
                self._next.stream = self._streams[self._next.stream_index]
                self._mux(self._next)
            self._next = next(self._others, None)

    def _mux(self, packet: Packet) -> None:
        """Writes a packet. Those whose time stamps go back are left out and counted.

        Raises:
            ImageFileError: The file cannot be written.
        """
        try:
            self._output.mux(packet)
        except ValueError:  # FFmpeg's EINVAL
            self.refused += 1
        except (av.FFmpegError, OSError) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> ImageFileError:
        reason = getattr(error, "strerror", None) or str(error)
        return ImageFileError(f"cannot write {self._target} ({reason}); check the folder.")

    def close(self, *, is_complete: bool = True) -> None:
        """Writes what the encoder still holds, the rest of the sound and subtitles, and the end of the file.

        Args:
            is_complete: Whether all moments have been written. If not, sound and subtitles end with the last one.

        Raises:
            ImageFileError: The file cannot be written.
        """
        try:
            for packet in self._pictures.encode(None):
                self._mux_picture(packet)
            self._copy_until(None if is_complete else self.end)
        finally:
            try:
                self._output.close()
            except (av.FFmpegError, OSError) as error:
                raise self._unwritable(error) from error


def read_signature(path: Path) -> str:
    """Returns who made a film, as the metadata of its pictures says; empty if it does not.

    Raises:
        ImageFileError: The file is not a film.

    Example:
        maker = read_signature(Path("clip_x2.mp4"))
    """
    with opened(path) as container:
        stream = container.streams.best("video")
        entries = {} if stream is None else {name.lower(): text for name, text in stream.metadata.items()}
        return entries.get(SIGNED, "")


def _plan_copy(path: Path, index: int) -> list[int]:
    """Returns decoding time stamps for the packets of a stream that hold, from the beginning, every frame up to a time.

    Frames are stored in the order in which they are decoded, and a file that was cut off may lack some that are shown
    before its last ones. Decoding time stamps are computed, because Matroska does not store them.

    Args:
        path: A film.
        index: Number of the stream in it.
    """
    with opened(path) as container:
        shown = [packet.pts for packet in container.demux(container.streams[index]) if packet.pts is not None]
    if len(shown) <= REORDERED:
        return []
    limit = sorted(shown)[-1 - REORDERED]
    shown_later = list(accumulate(reversed(shown), min, initial=shown[-1] + 1))[-2::-1]
    highest = list(accumulate(shown, max))
    ends = (place + 1 for place, top in enumerate(highest) if top <= limit and top < shown_later[place])
    kept = shown[: max(ends, default=0)]
    in_order = sorted(kept)
    rank = {stamp: place for place, stamp in enumerate(in_order)}
    delay = max((place - rank[stamp] for place, stamp in enumerate(kept)), default=0)
    return [in_order[0] - delay + place if place < delay else in_order[place - delay] for place in range(len(kept))]


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
def _reasons(what: str, remedy: str, passing: tuple[type[Exception], ...] | type[Exception] = ()) -> Iterator[None]:
    """Turns an error of FFmpeg into one line: what is the matter, why, and the remedy.

    Args:
        what: What is the matter.
        remedy: What to do.
        passing: Errors that are raised unchanged.

    Raises:
        ConfigError: FFmpeg raised an error.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as lines:
            yield
    except passing:
        raise
    except av.FFmpegError as error:
        said = [" ".join(line[2].split()) for line in lines if line[2].strip()]
        reason = said[-1] if said else str(error.strerror)
        raise ConfigError(f"{what} ({reason.rstrip('.')}). {remedy}") from error
    finally:
        av.logging.set_level(level)


def _describe_left_out(film: Film) -> list[str]:
    return [f"left out: {', '.join(dict.fromkeys(film.left_out))}"] if film.left_out else []


def _describe_padding(size: tuple[int, int], padded: tuple[int, int], encoding: Encoding) -> list[str]:
    if padded == size:
        return []
    sizes = f"{size[1]}x{size[0]} extended to {padded[1]}x{padded[0]}"
    return [f"{sizes}, because {encoding.frame_format} needs even sides"]


def _describe_aspect(film: Film, kind: str, encoding: Encoding) -> list[str]:
    """Returns a note if pixels are not square, and neither the container nor the codec can say so."""
    if film.pixel_aspect == 1 or kind in ("mp4", "mov") or encoding.encoder in ("libx264", "libx265"):
        return []
    return [f"pixels of {film.pixel_aspect.numerator}:{film.pixel_aspect.denominator} shown as squares"]


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
    return photo if photo.alpha is None else Photo(lay_over_white(photo.pixels, photo.alpha))
