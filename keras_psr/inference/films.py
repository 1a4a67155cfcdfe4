"""Applies networks to films: decoding, network and encoding work at the same time."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from keras_psr.films.encoders import Encoding
from keras_psr.films.reading import Film, FilmReader, PacketReader
from keras_psr.films.writing import FilmWriter
from keras_psr.images.photo import Photo

AHEAD = 4
"""Number of frames that are decoded before the network needs them, and of results that wait to be encoded."""

_END = object()

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Outcome:
    """What became of a film.

    Attributes:
        frames: Number of frames in the result.
        seconds: Time up to which it is complete.
        is_complete: Whether everything has been processed.
        notes: What could not be read or kept, in a few words each.
    """

    frames: int
    seconds: Fraction
    is_complete: bool
    notes: tuple[str, ...]


def process_film(
    process: Callable[[Photo], Photo],
    film: Film,
    target: Path,
    encoding: Encoding,
    size: tuple[int, int],
    *,
    start: Fraction = Fraction(0),
    duration: Fraction | None = None,
    signature: str = "",
    resumed: Path | None = None,
    on_frame: Callable[[int], None] = lambda count: None,
) -> Outcome:
    """Processes each frame of a film, and copies everything else.

    Memory does not grow with the film's length. On Ctrl-C, or if `process` or `on_frame` raises KeyboardInterrupt, the
    file is closed, and holds what has been processed so far.

    Args:
        process: A function from a frame to its result, all of one size. Frames of more than 8 bits are uint16.
        film: The film (`reading.read_film`).
        target: The file to write; an existing one is replaced.
        encoding: How to encode (`encoders.choose_encoding`).
        size: Height and width of the results, in pixels.
        start: Where to begin, in seconds.
        duration: How much to process, in seconds; None for the rest.
        signature: Who made the film, for the metadata.
        resumed: A file that an interrupted run with the same arguments wrote, whose frames are copied.
        on_frame: Called after each frame with the number of frames in the result.

    Returns:
        The outcome.

    Raises:
        ConfigError: The format or the encoder refuses something.
        ImageFileError: A file cannot be read.

    Example:
        film = read_film(Path("clip.mp4"))
        size, upscaler = (2 * film.height, 2 * film.width), keras_psr.load("x2-fast")
        encoding = choose_encoding(film, ".mp4")
        process_film(lambda photo: upscale_photo(upscaler, photo), film, Path("big.mp4"), encoding, size)
    """
    part: Any = {"start": start, "duration": duration}
    reader, others = FilmReader(film, **part), PacketReader(film, **part)
    writer, is_complete = FilmWriter(target, film, encoding, size, **part, others=others, signature=signature), False
    try:
        if resumed:
            first = next(iter(FilmReader(film, **part)))
            reader.done = writer.copy_beginning(resumed, first.time * film.time_base)
        copied = writer.count
        with in_background(writer.write) as put:
            for count, moment in enumerate(read_ahead(reader), start=copied + 1):
                put(replace(moment, photo=process(moment.photo)))
                on_frame(count)
        is_complete = True
    except KeyboardInterrupt:
        pass
    finally:
        writer.close(is_complete=is_complete)
    if is_complete:
        reader.note_early_end(others.end)
    refused = f"{writer.refused} packets with wrong time stamps left out"
    notes = [*writer.notes, *reader.damage.describe(), *([refused] if writer.refused else [])]
    return Outcome(writer.count, writer.end, is_complete, tuple(notes))


def read_ahead(things: Iterable[Thing]) -> Iterator[Thing]:
    """Yields the items of an iterable, which a separate thread reads ahead. Its exceptions are raised here."""
    waiting: queue.Queue[Any] = queue.Queue(AHEAD)
    stopped, errors = threading.Event(), list[BaseException]()

    def offer(thing: Any) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(thing, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for thing in things:
                offer(thing)
                if stopped.is_set():
                    return
        except BaseException as error:
            errors.append(error)
        finally:
            offer(_END)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while (thing := waiting.get()) is not _END:
            yield thing
        if errors:
            raise errors[0]
    finally:
        stopped.set()
        thread.join()


@contextmanager
def in_background(function: Callable[[Any], None]) -> Iterator[Callable[[Any], None]]:
    """Provides a function that has a separate thread call `function`, in order, and waits only if the thread lags.

    Exceptions of `function` are raised by the next call, or at the end of the context, which waits for all calls.
    """
    waiting: queue.Queue[Any] = queue.Queue(AHEAD)
    errors = list[BaseException]()

    def work() -> None:
        while (thing := waiting.get()) is not _END:
            try:
                if not errors:
                    function(thing)
            except BaseException as error:
                errors.append(error)

    def put(thing: Any) -> None:
        if errors:
            raise errors[0]
        waiting.put(thing)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield put
    finally:
        waiting.put(_END)
        thread.join()
    if errors:
        raise errors[0]
