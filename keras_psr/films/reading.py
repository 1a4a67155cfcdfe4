"""Films as they are read: what a file holds, its frames as photos, and its sound and subtitles as packets."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import av
import numpy as np
from av.filter import Graph

from keras_psr.errors import ImageFileError
from keras_psr.films.colour import Colour, FrameReader, build_graph, chroma_of, depth_of, find_colour, has_opacity
from keras_psr.films.hdr import Light, find_light
from keras_psr.images.photo import Photo

if TYPE_CHECKING:
    Packet: TypeAlias = av.Packet[Any]
else:
    Packet = av.Packet

JUMP = 10
"""A stream that skips more seconds than this has a new clock, as recordings of television have after a break."""

TOLERANCE = Fraction(6, 10_000)
"""Largest difference, in seconds, of times that are meant to be equal: Matroska rounds to milliseconds."""

_TS_DISCONT = 0x0200
"""FFmpeg's AVFMT_TS_DISCONT."""

DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True)
class Film:
    """What a film's file says of it.

    Attributes:
        path: The file.
        index: Number of the stream of pictures.
        height: Height of the upright frames, in pixels.
        width: Width of the upright frames, in pixels.
        turn: Whether rows and columns are swapped, and then columns and rows reversed, to turn frames upright.
        pixel_aspect: Width of an upright frame's pixels in terms of their height.
        rate: Average number of frames per second.
        time_base: Unit of the time stamps of frames, in seconds.
        origin: Time of the beginning, in seconds; not 0 for formats whose clocks start anywhere.
        seconds: Length, if it is known.
        frames: Approximate number of frames, if it is known.
        colour: Colours of the frames.
        bits: Bits per channel.
        chroma: Pixels that share a chroma value: horizontally and vertically; (2, 2) is 4:2:0.
        has_alpha: Whether there is transparency.
        codec: FFmpeg's name of the codec.
        is_lossy: Whether the codec leaves artefacts; h264 is taken to do so, although it can be free of losses.
        light: Brightness data of HDR.
        left_out: Streams that are neither pictures nor copied, in words.
    """

    path: Path
    index: int
    height: int
    width: int
    turn: tuple[bool, bool, bool]
    pixel_aspect: Fraction
    rate: Fraction
    time_base: Fraction
    origin: Fraction
    seconds: Fraction | None
    frames: int | None
    colour: Colour
    bits: int
    chroma: tuple[int, int]
    has_alpha: bool
    codec: str
    is_lossy: bool
    light: Light
    left_out: tuple[str, ...]


@dataclass
class Moment:
    """A frame of a film.

    Attributes:
        photo: The upright frame.
        time: Its time stamp in units of the film's time base, counted from where reading began.
        duration: How long it is shown, in the same units; 0 if that is unknown.
    """

    photo: Photo
    time: int
    duration: int


def read_film(path: Path) -> Film:
    """Reads what a film's file says of it, and decodes its first frame.

    Args:
        path: The file.

    Returns:
        The description.

    Raises:
        ImageFileError: The file is missing, not a film, damaged beyond use, or has no pictures.

    Example:
        film = read_film(Path("clip.mp4"))
    """
    with opened(path) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or is_cover(stream):
            kinds = sorted({stream.type for stream in container.streams if stream.type != "video"})
            has = f"only {' and '.join(kinds)}" if kinds else "nothing that can be read"
            raise ImageFileError(f"{path} has no moving pictures ({has}). Give a film.")
        stream.thread_type = "AUTO"
        frame = next(_decode(container, stream, Damage()), None)
        if frame is None:
            raise ImageFileError(f"{path} cannot be read (none of its frames can be decoded); replace or remove it.")
        try:
            return _describe(path, container, stream, frame)
        except ImageFileError as error:
            raise ImageFileError(f"{path} cannot be read: {error}") from None


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Opens a film inside the context.

    Raises:
        ImageFileError: The file is missing or not a film.
    """
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")  # a name may begin like an address
    except FileNotFoundError:
        raise ImageFileError(f"no such film: {path}; check the path.") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "its index is missing, as in a recording that was cut off" if _lacks_index(path) else reason
        raise ImageFileError(f"{path} cannot be read as a film ({hint}); replace or remove it.") from error
    with container:
        yield container


def _lacks_index(path: Path) -> bool:
    """Returns whether a file begins like MP4 or QuickTime. If FFmpeg cannot open such a file, the index is missing."""
    try:
        with path.open("rb") as file:
            return file.read(12)[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")
    except OSError:
        return False


def has_jumps(container: av.container.InputContainer) -> bool:
    """Returns whether clocks start anywhere and may jump in a format, as in MPEG-TS."""
    return bool(int(container.format.flags) & _TS_DISCONT)


def is_cover(stream: av.VideoStream) -> bool:
    """Returns whether a stream is a still picture such as the cover of an album."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _describe(path: Path, container: av.container.InputContainer, stream: av.VideoStream, frame: av.VideoFrame) -> Film:
    context, turn = stream.codec_context, _find_turn(frame)
    height, width = (frame.width, frame.height) if turn[0] else (frame.height, frame.width)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
    assert stream.time_base
    seconds = None if stream.duration is None else stream.duration * stream.time_base
    if seconds is None and container.duration:
        seconds = Fraction(container.duration, av.time_base)
    starts_anywhere = has_jumps(container)
    frame_format = frame.format
    return Film(
        path,
        stream.index,
        height,
        width,
        turn,
        1 / aspect if turn[0] else aspect,
        rate,
        stream.time_base,
        Fraction(container.start_time or 0, av.time_base) if starts_anywhere else Fraction(0),
        seconds,
        stream.frames or (None if seconds is None else round(seconds * rate)),
        find_colour(frame, int(context.color_primaries), int(context.color_trc)),
        depth_of(frame_format),
        chroma_of(frame_format),
        has_opacity(frame_format),
        context.codec.canonical_name,
        context.codec.lossy,
        find_light(frame),
        tuple(filter(None, (_name_left_out(other) for other in container.streams if other is not stream))),
    )


def is_copied(stream: Any) -> bool:
    """Returns whether a stream is copied as it is, if the format of the result can hold it."""
    return stream.type in ("audio", "subtitle", "attachment")


def _name_left_out(stream: Any) -> str:
    if is_copied(stream) or stream.type == "data" and stream.name == "bin_data":  # the titles of chapters in MP4
        return ""
    if stream.type == "video":
        return "its cover picture" if is_cover(stream) else "a second stream of pictures"
    return "a stream of data"


def _find_turn(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Returns how to turn a frame upright: `Film.turn`."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(matrix, "<i4")[:5]
    swaps = abs(int(b)) > abs(int(a))
    return swaps, bool((c if swaps else a) < 0), bool((b if swaps else d) < 0)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


@dataclass
class Damage:
    """What is wrong with a film, counted while it is read."""

    packets: int = 0
    frames: int = 0
    stamps: int = 0
    untimed: int = 0
    error: str = ""
    is_interlaced: bool = False

    def describe(self) -> list[str]:
        """Returns notes for the user."""
        return [
            *([f"{_count(self.packets, 'damaged place')} left out"] if self.packets else []),
            *([f"{_count(self.frames, 'frame')} shown with damage"] if self.frames else []),
            *([f"{_count(self.stamps, 'time stamp')} not in order, and corrected"] if self.stamps else []),
            *(
                [f"{_count(self.untimed, 'frame')} without time stamps shown at the average rate"]
                if self.untimed
                else []
            ),
            *(["interlaced frames made whole"] if self.is_interlaced else []),
            *([self.error] if self.error else []),
        ]


def _decode(container: av.container.InputContainer, stream: av.VideoStream, damage: Damage) -> Iterator[av.VideoFrame]:
    """Yields the frames of a stream. What is damaged is counted and left out."""
    clocks, decoder = _Clocks(container, stream), _find_decoder(stream)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            clocks.correct(packet)
            yield from decoder.decode(packet)
        except (StopIteration, EOFError):
            return
        except av.error.InvalidDataError:
            damage.packets += 1
        except (av.FFmpegError, OSError) as error:
            damage.error = f"reading ended with an error ({getattr(error, 'strerror', None) or error})"
            yield from _empty(decoder)
            return


def _find_decoder(stream: av.VideoStream) -> Any:
    """Returns the decoder of a stream: libvpx for transparent VP8 and VP9, because FFmpeg's own leave opacity out."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.codec.canonical_name)
    if name and {key.lower(): text for key, text in stream.metadata.items()}.get("alpha_mode") == "1":
        return av.CodecContext.create(name, "r")
    return stream.codec_context


def _empty(decoder: Any) -> Iterator[av.VideoFrame]:
    """Yields the frames that a decoder still holds."""
    with suppress(av.FFmpegError, EOFError):
        yield from decoder.decode(None)


def _deinterlace(frames: Iterable[av.VideoFrame], damage: Damage) -> Iterator[av.VideoFrame]:
    """Yields the frames. From the first interlaced one on, each is made whole."""
    graph: Graph | None = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            damage.is_interlaced, graph = True, build_graph(frame, ("bwdif", "mode=send_frame:deint=interlaced"))
        if graph is None:
            yield frame
        else:
            graph.push(frame)
            yield from _pull_all(graph)
    if graph is not None:
        graph.push(None)
        yield from _pull_all(graph)


def _pull_all(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        yield frame


class _Clocks:
    """Makes the time stamps of streams continuous, in formats whose clocks may jump."""

    def __init__(self, container: av.container.InputContainer, pictures: av.VideoStream) -> None:
        """Creates clocks that have not jumped yet; subtitles, which have gaps, follow the clock of the pictures."""
        self._jumps, self._pictures = has_jumps(container), pictures.index
        self._shifts: dict[int, Fraction] = {}
        self._seen: dict[int, tuple[Fraction, Fraction]] = {}

    def correct(self, packet: Packet) -> None:
        """Shifts a packet's time stamps by the jumps of its clock so far."""
        if not self._jumps or packet.dts is None:
            return
        index = self._pictures if packet.stream.type == "subtitle" else packet.stream_index
        if index == packet.stream_index:
            self._notice_jump(index, packet.dts * packet.time_base, (packet.duration or 0) * packet.time_base)
        shift = round(self._shifts.get(index, Fraction(0)) / packet.time_base)
        packet.dts += shift
        packet.pts = None if packet.pts is None else packet.pts + shift

    def _notice_jump(self, index: int, time: Fraction, duration: Fraction) -> None:
        shifted = time + self._shifts.get(index, Fraction(0))
        last, step = self._seen.get(index, (shifted, Fraction(0)))
        if last <= shifted <= last + step + JUMP:
            step = duration or shifted - last
        else:
            self._shifts[index] = last + step - time
            shifted = last + step
        self._seen[index] = shifted, step


@dataclass
class FilmReader:
    """Reads the frames of a film, or of a part of it.

    Attributes:
        film: The film.
        start: Where to begin, in seconds from the beginning of the film.
        duration: How much to read, in seconds; None for everything.
        done: Time, in seconds after `start`, up to which frames have been read before; None for none.
        damage: What was wrong.
        count: Number of moments so far.
        end: End of the last frame so far, in seconds after `start`.
    """

    film: Film
    start: Fraction = Fraction(0)
    duration: Fraction | None = None
    done: Fraction | None = None
    damage: Damage = field(default_factory=Damage)
    count: int = 0
    end: Fraction = Fraction(0)
    _last: int | None = None

    def __iter__(self) -> Iterator[Moment]:
        """Yields the moments, with time stamps counted from `start`.

        Raises:
            ImageFileError: The file can no longer be opened, or holds no frame after `start`.
        """
        film = self.film
        with self._opened_near() as (container, stream):
            height, width = (film.width, film.height) if film.turn[0] else (film.height, film.width)
            convert = FrameReader(height, width, film.codec)
            for frame in _deinterlace(_decode(container, stream, self.damage), self.damage):
                time = self._find_time(frame)
                seconds = time * film.time_base
                if self.duration is not None and seconds >= self.duration - TOLERANCE:
                    break
                if self.done is not None and seconds <= self.done + TOLERANCE or self.start and seconds < -TOLERANCE:
                    continue
                self.damage.frames += frame.is_corrupt
                self.count += 1
                self.end = (time + frame.duration) * film.time_base
                yield Moment(turn_photo(convert(frame), film.turn), time, frame.duration)
        if not self.count and self.done is None:
            where = f" after {float(self.start):g} s" if self.start else ""
            raise ImageFileError(f"{film.path} has no frames that can be read{where}.")

    @contextmanager
    def _opened_near(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        """Opens the film a little before the first frame that is needed, or at its beginning."""
        for around in (Fraction(1), Fraction(15), None):
            with opened(self.film.path) as container:
                stream = container.streams[self.film.index]
                assert isinstance(stream, av.VideoStream)
                stream.thread_type = "AUTO"
                if around is None or self._seek(container, stream, around):
                    yield container, stream
                    return

    def _seek(self, container: av.container.InputContainer, stream: av.VideoStream, around: Fraction) -> bool:
        """Goes to a place before the first frame that is needed. Returns whether frames can be decoded from there.

        Some formats lead to places from which the decoder cannot begin, so the first frame found there is looked at.
        Where clocks may jump, times do not tell places.
        """
        needed = self.start + (self.done or 0)
        place = int((needed - around) / self.film.time_base)
        if place <= 0:
            return True
        if has_jumps(container):
            return False
        try:
            container.seek(place, stream=stream)
            frame = next(_decode(container, stream, Damage()), None)
            container.seek(place, stream=stream)
        except av.FFmpegError:
            return False
        return frame is not None and frame.pts is not None and frame.pts * self.film.time_base <= needed

    def _find_time(self, frame: av.VideoFrame) -> int:
        """Returns a frame's time stamp, counted from `start`. It is later than that of the frame before."""
        unit, last = self.film.time_base, self._last
        if frame.pts is None:
            time = 0 if last is None else last + max(1, round(1 / (self.film.rate * unit)))
        else:
            time = round((frame.pts * (frame.time_base or unit) - self.film.origin - self.start) / unit)
        self.damage.untimed += frame.pts is None
        self.damage.stamps += frame.pts is not None and last is not None and time <= last
        self._last = time if last is None else max(time, last + 1)
        return self._last

    def note_early_end(self, end: Fraction) -> None:
        """Notes in `damage` if the film is shorter than its header says.

        Args:
            end: Where the last of its streams ends, in seconds after `start`.
        """
        seconds = self.film.seconds
        if self.duration is None and seconds is not None and not self.damage.error:
            end = self.start + max(self.end, end)
            if seconds - end > max(Fraction(1, 4), seconds / 50):
                self.damage.error = f"ends after {float(end):.1f} of {float(seconds):.1f} s; the rest is missing"


@dataclass
class PacketReader:
    """Reads the sound and the subtitles of a film, or of a part of it, as they are stored.

    Attributes:
        film: The film.
        start: Where to begin, in seconds from the beginning of the film.
        duration: How much to read, in seconds; None for everything.
        end: End of the last packet so far, in seconds after `start`.
    """

    film: Film
    start: Fraction = Fraction(0)
    duration: Fraction | None = None
    end: Fraction = Fraction(0)

    def __iter__(self) -> Iterator[Packet]:
        """Yields the packets in the order of the file, with time stamps counted from `start`.

        Raises:
            ImageFileError: The file can no longer be opened.
        """
        with opened(self.film.path) as container, suppress(av.FFmpegError):  # the reader of frames reports errors
            pictures = container.streams[self.film.index]
            assert isinstance(pictures, av.VideoStream)
            others = [other for other in container.streams if is_copied(other) and other.type != "attachment"]
            clocks = _Clocks(container, pictures)
            for packet in container.demux(pictures, *others) if others else ():
                clocks.correct(packet)
                if packet.stream_index != pictures.index and packet.size and self._shift(packet):
                    yield packet

    def _shift(self, packet: Packet) -> bool:
        """Makes the time stamps of a packet count from `start`. Returns whether the packet is wanted."""
        packet.pts = packet.dts if packet.pts is None else packet.pts
        if packet.pts is None:
            return False
        shift = round((self.film.origin + self.start) / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, (packet.pts if packet.dts is None else packet.dts) - shift
        begin, end = (stamp * packet.time_base for stamp in (packet.pts, packet.pts + (packet.duration or 0)))
        if self.start and packet.stream.type == "subtitle" and begin < 0 < end:  # shown when the part begins
            packet.pts, packet.dts, packet.duration, begin = 0, 0, int(end / packet.time_base), Fraction(0)
        if self.start and begin < -TOLERANCE or self.duration is not None and begin >= self.duration - TOLERANCE:
            return False
        self.end = max(self.end, end)
        return True


def turn_photo(photo: Photo, turn: tuple[bool, bool, bool]) -> Photo:
    """Returns a photo turned as `Film.turn` says."""
    if turn == (False, False, False):
        return photo
    swaps, reverses_columns, reverses_rows = turn

    def turned(levels: np.ndarray) -> np.ndarray:
        levels = levels.swapaxes(0, 1) if swaps else levels
        return np.ascontiguousarray(levels[:: -1 if reverses_rows else 1, :: -1 if reverses_columns else 1])

    return replace(photo, pixels=turned(photo.pixels), alpha=None if photo.alpha is None else turned(photo.alpha))
