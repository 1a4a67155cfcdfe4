"""Films as they are read: every frame, its time, which way is up, and what can be had of damaged files."""

import struct
from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av")

from keras_psr.errors import ImageFileError  # noqa: E402
from keras_psr.films.reading import FilmReader, PacketReader, read_film  # noqa: E402

VARIABLE = [0, 40, 80, 90, 200, 210, 300, 500, 510, 900, 1000, 1300]


def read(path, **part):
    film = read_film(path)
    reader = FilmReader(film, **part)
    return film, list(reader), reader


def read_times(moments, film):
    return [float(moment.time * film.time_base) for moment in moments]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv"])
def test_every_frame_is_read_with_its_time(make_film, pan, name):
    path = make_film(name, pan[:12], VARIABLE, codec="libx264", kind="yuv444p", options={"qp": "0"})
    film, moments, reader = read(path)
    assert (film.height, film.width, film.codec, film.bits, film.chroma) == (48, 64, "h264", 8, (1, 1))
    np.testing.assert_allclose(read_times(moments, film), np.array(VARIABLE) / 1000, atol=1e-9)
    for moment, pixels in zip(moments, pan, strict=False):
        assert np.abs(moment.photo.pixels.astype(int) - pixels).mean() < 1
    assert reader.damage.describe() == []


def turn_by_matrix(pixels, a, b, c, d):
    """A picture turned by a display matrix: where each corner pixel (x, y) goes is (ax + cy, bx + dy)."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    turned = np.zeros((down.max() + 1, across.max() + 1, 3), np.uint8)
    turned[down, across] = pixels
    return turned


@pytest.mark.parametrize(
    "numbers",
    [
        *((0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)),
        *((-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0), (1, 0, 0, 1)),
    ],
)
def test_frames_are_turned_upright(make_film, pan, tmp_path, numbers):
    content = make_film("clip.mp4", pan[:2], codec="libx264", options={"qp": "0"}).read_bytes()
    straight = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (number << 16 for number in numbers)
    at = content.index(straight, content.index(b"tkhd"))
    path = tmp_path / "turned.mp4"
    path.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :])
    film, moments, _ = read(path)
    expected = turn_by_matrix(pan[0], *numbers)
    assert (film.height, film.width) == expected.shape[:2]
    assert np.abs(moments[0].photo.pixels.astype(int) - expected).mean() < 1


def test_a_part_begins_and_ends_where_it_should(make_film, pan):
    path = make_film("clip.mkv", pan, codec="libx264", options={"qp": "0", "g": "5"})
    film, moments, _ = read(path, start=Fraction(1, 4), duration=Fraction(1, 5))
    assert read_times(moments, film) == pytest.approx([0.03, 0.07, 0.11, 0.15, 0.19], abs=1e-9)
    for moment, pixels in zip(moments, pan[7:12], strict=True):
        assert np.abs(moment.photo.pixels.astype(int) - pixels).mean() < 1


def test_a_part_is_found_after_long_without_key_frames(make_film, pan):
    frames = [pan[0]] * 60
    path = make_film("clip.mkv", frames, codec="libx264", options={"qp": "0", "g": "250"})
    film, moments, _ = read(path, start=Fraction(2))
    assert read_times(moments, film) == pytest.approx(np.arange(10) * 0.04, abs=1e-9)


def test_what_was_read_before_is_left_out(make_film, pan):
    path = make_film("clip.mkv", pan)
    film, moments, _ = read(path, done=Fraction(4, 10))
    assert read_times(moments, film) == pytest.approx(np.arange(11, 20) * 0.04)


def test_a_clock_that_jumps_back_goes_on(make_film, pan, tmp_path):
    path = make_film("clip.ts", pan, codec="libx264", kind="yuv420p", options={"g": "1"})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(path.read_bytes() * 2)
    film, moments, _ = read(joined)
    assert len(moments) == 40
    steps = np.diff(read_times(moments, film))
    assert (0.03 < steps).all() and (steps < 0.1).all()


def test_frames_without_times_are_shown_at_the_average_rate(make_film, pan, tmp_path):
    path = make_film("clip.mp4", pan, codec="libx264", kind="yuv420p")
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        unpack = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [bytes(part) for packet in source.demux(stream) for part in unpack.filter(packet)]
    raw = tmp_path / "raw.ts"  # the content tells the format, and not the ending
    raw.write_bytes(b"".join(packets))
    film, moments, reader = read(raw)
    assert len(moments) == 20
    assert np.diff(read_times(moments, film)) == pytest.approx(float(1 / film.rate))
    assert "20 frames without time stamps shown at the average rate" in reader.damage.describe()


def test_interlaced_frames_are_made_whole(pan, tmp_path):
    path = tmp_path / "clip.ts"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(
            "mpeg2video", rate=25, options={"flags": "+ildct+ilme+qscale", "global_quality": "118"}
        )
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(6):
            mixed = pan[2 * number].copy()
            mixed[1::2] = pan[2 * number + 3][1::2]
            graph = av.filter.Graph()
            frame = av.VideoFrame.from_ndarray(mixed).reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            source = graph.add_buffer(width=64, height=48, format=frame.format, time_base=frame.time_base)
            graph.link_nodes(source, graph.add("setfield", "tff"), graph.add("buffersink")).configure()
            graph.push(frame)
            output.mux(stream.encode(graph.pull()))
        output.mux(stream.encode(None))
    film, moments, reader = read(path)
    assert len(moments) == 6 and reader.damage.describe() == ["interlaced frames made whole"]
    # Combs have the largest differences between rows two apart and neighbours; whole frames have small ones.
    pixels = moments[3].photo.pixels.astype(float)
    combs = np.abs(2 * pixels[1:-1] - pixels[:-2] - pixels[2:]).mean()
    whole = pan[6].astype(float)
    assert combs < 1.5 * np.abs(2 * whole[1:-1] - whole[:-2] - whole[2:]).mean()


def test_transparent_vp9_keeps_its_opacity(pan, tmp_path):
    path = tmp_path / "clip.webm"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=25, options={"auto-alt-ref": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuva420p"
        for pixels in pan[:5]:
            alpha = np.where(np.arange(64) < 32, 255, 0).astype(np.uint8) * np.ones((48, 1), np.uint8)
            given = av.VideoFrame.from_ndarray(np.dstack([pixels, alpha]), format="rgba")
            output.mux(stream.encode(given.reformat(format="yuva420p")))
        output.mux(stream.encode(None))
    film, moments, _ = read(path)
    assert film.has_alpha
    alpha = moments[2].photo.alpha
    assert alpha[:, :28].min() > 250 and alpha[:, 36:].max() < 5


def test_a_film_that_was_cut_off_gives_what_there_is(make_film, pan, tmp_path):
    content = make_film("clip.mkv", pan * 3).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(content[: len(content) // 2])
    film, moments, reader = read(path)
    assert 20 < len(moments) < 40
    reader.note_early_end(Fraction(0))
    (note,) = reader.damage.describe()
    assert note.startswith("ends after 1.") and note.endswith("of 2.4 s; the rest is missing")


def test_damaged_places_are_left_out(make_film, pan, tmp_path):
    content = bytearray(make_film("clip.mov", pan, codec="png", kind="rgb24").read_bytes())
    at = [place for place in range(len(content)) if content.startswith(b"\x89PNG\r\n", place)]
    assert len(at) == 20
    for number in (7, 12):
        content[at[number] : at[number] + 8] = bytes(8)
    path = tmp_path / "hurt.mov"
    path.write_bytes(content)
    film, moments, reader = read(path)
    assert [round(time / 0.04) for time in read_times(moments, film)] == [n for n in range(20) if n not in (7, 12)]
    assert reader.damage.describe() == ["2 damaged places left out"]


def test_what_is_no_film_is_told(make_film, tmp_path, pan):
    with pytest.raises(ImageFileError, match=r"no such film: .*nowhere.mp4; check the path"):
        read_film(tmp_path / "nowhere.mp4")
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(ImageFileError, match="text.mp4 cannot be read as a film"):
        read_film(tmp_path / "text.mp4")
    content = make_film("clip.mp4", pan, codec="libx264", kind="yuv420p").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(ImageFileError, match="its index is missing, as in a recording that was cut off"):
        read_film(tmp_path / "cut.mp4")


def test_sound_is_no_film(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        stream.codec_context.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(ImageFileError, match=r"song.mp4 has no moving pictures \(only audio\). Give a film."):
        read_film(path)


def test_a_start_after_the_end_is_told(make_film, pan):
    with pytest.raises(ImageFileError, match="has no frames that can be read after 5 s"):
        read(make_film("clip.mkv", pan), start=Fraction(5))


def test_sound_is_read_as_it_is_stored(make_film, pan):
    path = make_film("clip.mkv", pan, sound=0.8)
    with av.open(str(path)) as source:
        expected = [bytes(packet) for packet in source.demux(audio=0) if packet.size]
    film = read_film(path)
    assert [bytes(packet) for packet in PacketReader(film)] == expected
    part = list(PacketReader(film, Fraction(1, 4), Fraction(1, 4)))
    times = [float(packet.pts * packet.time_base) for packet in part]
    assert 0 <= times[0] < 0.024 and 0.22 < times[-1] < 0.25


def test_brightness_data_of_hdr_is_read(pan, tmp_path):
    screen = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    options = {"x265-params": f"log-level=none:hdr10=1:master-display={screen}:max-cll=1000,400"}
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p10le"
        for pixels in pan[:3]:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels).reformat(format="yuv420p10le")))
        output.mux(stream.encode(None))
    light = read_film(path).light
    assert (light.display, light.levels, light.is_dynamic) == (screen, "1000,400", False)
