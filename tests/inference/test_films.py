"""Networks at work on films: every frame, its time, sound and subtitles; interruptions; and threads that overlap."""

import itertools
import shutil
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

from keras_psr.errors import ConfigError, ImageFileError  # noqa: E402
from keras_psr.films.encoders import choose_encoding  # noqa: E402
from keras_psr.films.reading import FilmReader, read_film  # noqa: E402
from keras_psr.films.writing import FilmWriter, read_signature  # noqa: E402
from keras_psr.images.photo import Photo  # noqa: E402
from keras_psr.inference.films import AHEAD, in_background, process_film, read_ahead  # noqa: E402

VARIABLE = [0, 40, 80, 90, 200, 210, 300, 500, 510, 900, 1000, 1300]


def double(photo):
    """Stands for a network of scale 2."""
    return replace(photo, pixels=photo.pixels.repeat(2, axis=0).repeat(2, axis=1))


def enlarge(path, target, *, codec=None, crf=None, process=double, **options):
    film = read_film(path)
    encoding = choose_encoding(film, target.suffix, codec, crf)
    return process_film(process, film, target, encoding, (2 * film.height, 2 * film.width), **options)


def read(path):
    film = read_film(path)
    moments = list(FilmReader(film))
    return film, [moment.photo.pixels for moment in moments], [moment.time * film.time_base for moment in moments]


def read_packets(path, kind):
    with av.open(str(path)) as source:
        packets = [packet for packet in source.demux() if packet.size and packet.stream.type == kind]
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv", "clip.webm"])
def test_every_frame_keeps_its_time_and_the_sound_is_copied(make_film, pan, tmp_path, name):
    codec, kind = ("libvpx-vp9", "yuv420p") if name == "clip.webm" else ("libx264", "yuv444p")
    path = make_film(name, pan[:12], VARIABLE, codec=codec, kind=kind, options={"qp": "0", "crf": "4"}, sound=1.4)
    outcome = enlarge(path, tmp_path / name, crf=4)
    assert (outcome.frames, outcome.is_complete, outcome.notes) == (12, True, ())
    film, frames, times = read(tmp_path / name)
    given, _, expected = read(path)
    assert times == expected
    assert (film.height, film.width, film.colour) == (96, 128, given.colour)
    for pixels, photograph in zip(frames, pan, strict=False):
        assert np.abs(pixels[::2, ::2].astype(int) - photograph).mean() < 6
    assert read_packets(tmp_path / name, "audio") == read_packets(path, "audio")
    assert len(read_packets(path, "audio")) > 60


def test_ten_bits_stay_ten_bits(make_film, tmp_path):
    ramp = np.arange(300, 364).astype(np.uint16) * np.ones((48, 1), np.uint16)
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    for plane, levels in zip(frame.planes, (ramp, 512, 512), strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = levels
        plane.update(rows.tobytes())
    path = make_film("clip.mkv", [frame, frame, frame], kind="yuv420p10le")
    seen = []
    target = tmp_path / "big.mkv"
    outcome = enlarge(path, target, codec="ffv1", process=lambda photo: seen.append(photo) or double(photo))
    assert outcome.notes == () and seen[0].pixels.dtype == np.uint16
    assert np.abs(seen[0].pixels - (ramp[..., None] - 64.0) / 876 * 65535).max() <= 1
    film, frames, _ = read(target)
    assert film.bits == 10
    np.testing.assert_array_equal(frames[0][::2, ::2], seen[0].pixels)
    assert choose_encoding(film, ".mp4").frame_format == "yuv420p10le"


@pytest.mark.parametrize("colour", [(1, 1, 1, 1), (6, 1, 6, 6), (5, 2, 5, 1), (9, 1, 9, 16), (1, 2, 12, 13)])
@pytest.mark.parametrize("codec", ["h264", "hevc", "prores"])
def test_colours_keep_their_meaning(make_film, tmp_path, colour, codec):
    bar = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [230, 230, 230]], np.uint8).repeat(16, axis=0)
    path = make_film("clip.mkv", [np.stack([bar] * 48)] * 3, colour=colour)
    enlarge(path, tmp_path / "big.mov", codec=codec, crf=None if codec == "prores" else 4)
    film, frames, _ = read(tmp_path / "big.mov")
    received = film.colour
    assert (received.matrix, received.primaries, received.transfer) == (colour[0], colour[2], colour[3])
    levels = frames[0].astype(float) / (257 if film.bits > 8 else 1)
    for number, rgb in enumerate(bar[::16]):
        assert np.abs(levels[48, 32 * number + 16] - rgb).max() <= 4
    if codec != "prores":  # which has limited range only
        assert received.is_full == (colour[1] == 2)


def test_titles_languages_and_chapters_are_copied(make_film, pan, tmp_path):
    source = make_film("clip.mkv", pan, codec="libx264", kind="yuv420p", sound=0.8)
    path = tmp_path / "named.mkv"
    with av.open(str(source)) as plain, av.open(str(path), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in plain.streams}
        streams[1].metadata["language"] = "deu"
        streams[1].disposition = 0x40  # forced
        output.metadata["title"] = "Holiday"
        chapter = {"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}
        output.set_chapters([chapter, {**chapter, "id": 2, "start": 400, "end": 800, "metadata": {"title": "Two"}}])
        for packet in plain.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    enlarge(path, tmp_path / "big.mkv", signature="keras-psr x2 #1234")
    with av.open(str(tmp_path / "big.mkv")) as result:
        assert result.metadata["title"] == "Holiday"
        assert [chapter["metadata"]["title"] for chapter in result.chapters()] == ["One", "Two"]
        assert result.streams[1].metadata["language"] == "deu" and result.streams[1].disposition == 0x40
    assert read_signature(tmp_path / "big.mkv") == "keras-psr x2 #1234"
    enlarge(path, tmp_path / "part.mkv", start=Fraction(1, 2))
    with av.open(str(tmp_path / "part.mkv")) as result:
        (chapter,) = result.chapters()
        assert chapter["metadata"]["title"] == "Two"
        assert [chapter[side] * chapter["time_base"] for side in ("start", "end")] == [0, Fraction(3, 10)]


def test_odd_sides_are_extended(make_film, tmp_path):
    pixels = np.full((48, 64, 3), 120, np.uint8)
    path = make_film("clip.mkv", [pixels] * 2, codec="libx264", kind="yuv420p")
    film = read_film(path)
    encoding = choose_encoding(film, ".mkv")
    crop = Photo(np.full((35, 51, 3), 120, np.uint8))
    outcome = process_film(lambda photo: crop, film, tmp_path / "odd.mkv", encoding, (35, 51))
    assert outcome.notes == ("51x35 extended to 52x36, because yuv420p needs even sides",)
    assert read(tmp_path / "odd.mkv")[1][0].shape == (36, 52, 3)


@pytest.mark.parametrize("sides", [(48, 17000), (17000, 48)])
def test_a_size_that_the_encoder_refuses_is_told(make_film, pan, tmp_path, sides):
    film = read_film(make_film("clip.mkv", pan[:2]))
    with pytest.raises(
        ConfigError, match=rf"libx264 refuses frames of {sides[1]}x{sides[0]} \(.*\). Give another size"
    ):
        FilmWriter(tmp_path / "x.mkv", film, choose_encoding(film, ".mkv", "h264"), sides, in_memory=True)


def test_a_format_that_cannot_hold_the_codec_or_the_sound_is_told(make_film, pan, tmp_path):
    film = read_film(make_film("clip.mkv", pan[:2], sound=0.1))
    with pytest.raises(ConfigError, match=".webm cannot hold libx264. Give another ending or --codec"):
        FilmWriter(tmp_path / "x.webm", film, choose_encoding(film, ".webm", "h264"), (96, 128), in_memory=True)
    with pytest.raises(ConfigError, match=r"x.webm cannot hold the film's sound \(aac\). Write an .mkv."):
        FilmWriter(tmp_path / "x.webm", film, choose_encoding(film, ".webm"), (96, 128), in_memory=True)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "ffv1", "prores"])
def test_an_interrupted_film_can_be_played_and_continued(make_film, pan, tmp_path, name, codec):
    if name == "clip.mp4" and codec in ("ffv1", "prores"):
        pytest.skip("MP4 does not hold it")
    path = make_film(name, pan * 3, codec="libx264", kind="yuv420p", options={"g": "15"}, sound=2.4)

    def stop(count):
        if count == 40:
            raise KeyboardInterrupt

    unfinished, finished, whole = (tmp_path / f"{part}{path.suffix}" for part in ("unfinished", "finished", "whole"))
    outcome = enlarge(path, unfinished, codec=codec, on_frame=stop)
    assert (outcome.frames, outcome.is_complete) == (40, False)
    _, frames, times = read(unfinished)
    assert len(frames) == 40
    assert float(outcome.seconds) == pytest.approx(1.6, abs=0.05)
    counts = []
    outcome = enlarge(path, finished, codec=codec, resumed=unfinished, on_frame=counts.append)
    assert outcome.frames == 60 and outcome.is_complete
    assert 36 <= counts[0] <= 41 and counts == list(range(counts[0], 61))
    enlarge(path, whole, codec=codec)
    _, received, received_times = read(finished)
    _, expected, expected_times = read(whole)
    assert received_times == expected_times
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(received, expected, strict=True)) < 4
    assert read_packets(finished, "audio") == read_packets(whole, "audio")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv"])
def test_what_a_killed_run_leaves_can_be_played_and_continued(make_film, tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
    path = make_film(name, list(noise) * 8, codec="libx264", kind="yuv420p", options={"preset": "ultrafast"})
    growing, killed = tmp_path / f"growing{path.suffix}", tmp_path / f"killed{path.suffix}"

    def copy(count):
        if count == 315:
            shutil.copy(growing, killed)

    enlarge(path, growing, on_frame=copy)
    assert 0 < len(read(killed)[1]) < 315
    outcome = enlarge(path, tmp_path / f"finished{path.suffix}", resumed=killed)
    assert outcome.frames == 320
    assert read(tmp_path / f"finished{path.suffix}")[2] == read(growing)[2]


def test_sound_before_the_beginning_shifts_everything_alike_when_continued(make_film, pan, tmp_path):
    path = make_film("clip.mp4", pan * 2, codec="libx264", kind="yuv420p", sound=1.6)
    assert read_packets(path, "audio")[0][0] < 0  # what the encoder of the sound needs to begin

    def stop(count):
        if count == 25:
            raise KeyboardInterrupt

    enlarge(path, tmp_path / "part.mkv", on_frame=stop)
    enlarge(path, tmp_path / "rest.mkv", resumed=tmp_path / "part.mkv")
    enlarge(path, tmp_path / "whole.mkv")
    assert read(tmp_path / "rest.mkv")[2] == read(tmp_path / "whole.mkv")[2]
    assert read_packets(tmp_path / "rest.mkv", "audio") == read_packets(tmp_path / "whole.mkv", "audio")


def test_an_error_of_the_network_closes_the_film(make_film, pan, tmp_path):
    path = make_film("clip.mkv", pan)
    calls = itertools.count(1)

    def fail(photo):
        if next(calls) == 9:
            raise ValueError("broken")
        return double(photo)

    with pytest.raises(ValueError, match="broken"):
        enlarge(path, tmp_path / "big.mkv", process=fail)
    assert len(read(tmp_path / "big.mkv")[1]) == 8


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("name", ["big.mkv", "big.mp4"])
def test_a_full_disk_is_told(make_film, pan, tmp_path, name):
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(ImageFileError, match=rf"cannot write .*{name} \(No space left on device\); check the folder"):
        enlarge(make_film("clip.mkv", pan, codec="libx264", kind="yuv420p"), tmp_path / name)


def test_a_folder_that_is_not_there_is_told(make_film, pan, tmp_path):
    with pytest.raises(ImageFileError, match=r"cannot write .*big.mkv \(No such file or directory\); check the folder"):
        enlarge(make_film("clip.mkv", pan), tmp_path / "nowhere" / "big.mkv")


def test_reading_ahead_is_bounded_and_raises_errors():
    produced, threads = [], set(threading.enumerate())

    def count():
        for number in itertools.count():
            produced.append(number)
            yield number

    numbers = read_ahead(count())
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.3)
    assert len(produced) <= 3 + AHEAD + 1  # and one that waits for room
    numbers.close()
    assert set(threading.enumerate()) <= threads

    def fail():
        yield 1
        raise OSError("no disk")

    numbers = read_ahead(fail())
    assert next(numbers) == 1
    with pytest.raises(OSError, match="no disk"):
        next(numbers)


def test_errors_in_the_background_are_raised_in_front():
    def fail(thing):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), in_background(fail) as put:
        for number in range(1000):
            put(number)
            time.sleep(0.001)


def test_decoding_network_and_encoding_overlap():
    def slowly(things):
        for thing in things:
            time.sleep(0.02)
            yield thing

    begin, received = time.perf_counter(), []
    with in_background(lambda thing: time.sleep(0.02) or received.append(thing)) as put:
        for thing in read_ahead(slowly(range(30))):
            time.sleep(0.02)
            put(thing)
    assert received == list(range(30))
    assert time.perf_counter() - begin < 2 * 30 * 0.02  # one after the other would be 3 times
