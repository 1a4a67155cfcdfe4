"""`keras-psr upscale` and `stylize` with films and animations: what is written where, and what is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_psr.cli.film_options import Time
from keras_psr.cli.main import main
from keras_psr.films import formats
from keras_psr.films.formats import CONTAINERS, LISTED_SUFFIXES, choose_ending, is_film
from keras_psr.images.animation import read_animation
from keras_psr.images.compression import read_compression

LINE = "Computing on the CPU"


@pytest.fixture
def upscale(runner, tmp_path, monkeypatch):
    """Runs `keras-psr upscale` with the shipped x2-fast, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: runner.invoke(main, ["upscale", "-m", "x2-fast", "--device", "cpu", *map(str, args)])


@pytest.fixture
def clip(make_film, pan, tmp_path):
    """A copy of a film of 20 frames of 48x64 pixels with sound, in the current folder."""
    path = make_film("clip.mp4", pan, codec="libx264", kind="yuv420p", sound=0.8)
    return Path(shutil.copy(path, tmp_path / "clip.mp4"))


@pytest.fixture
def animation(pan, tmp_path):
    """A GIF of 5 frames of 24x32 pixels in the current folder."""
    images = [Image.fromarray(pixels[:24, :32]).quantize(64) for pixels in pan[:5]]
    path = tmp_path / "clip.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[100, 40, 30, 50, 200], loop=0)
    return path


def read(path):
    from keras_psr.films.reading import FilmReader, read_film

    film = read_film(Path(path))
    return film, [moment.photo.pixels for moment in FilmReader(film)]


def test_a_film_lands_beside_its_original(upscale, clip):
    import keras_psr

    result = upscale("clip.mp4")
    assert result.exit_code == 0, result.stderr
    assert (result.stdout, result.stderr) == ("", "clip.mp4 -> clip_x2.mp4 (128x96, 20 frames)\n")
    film, frames = read("clip_x2.mp4")
    assert (film.height, film.width, len(frames)) == (96, 128, 20)
    network = keras_psr.load("x2-fast", device="cpu")
    for pixels, original in zip(frames[::6], read(clip)[1][::6], strict=True):
        assert np.abs(pixels.astype(int) - network(original)).mean() < 4
    assert sorted(os.listdir()) == ["clip.mp4", "clip_x2.mp4"]


def test_a_film_is_painted(runner, clip, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(
        main, ["stylize", "clip.mp4", "-m", "great-wave_int8", "--device", "cpu", "--duration", "0.1"]
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "clip.mp4 -> clip_great-wave_int8.mp4 (64x48, 3 frames)\n"


def test_a_batch_holds_pictures_animations_and_films(upscale, clip, animation, pan, tmp_path):
    Image.fromarray(pan[0][:10, :12]).save("still.png")
    result = upscale(".", "-o", "out", "--json", "report.json")
    assert result.exit_code == 0, result.stderr
    assert sorted(os.listdir("out")) == ["clip_x2.gif", "clip_x2.mp4", "still_x2.png"]
    rows = json.loads(Path("report.json").read_text())["pictures"]
    assert [(row["output"], row["frames"], row["width"]) for row in rows] == [
        (str(Path("out") / "clip_x2.gif"), 5, 64),
        (str(Path("out") / "clip_x2.mp4"), 20, 128),
        (str(Path("out") / "still_x2.png"), None, 24),
    ]
    result = upscale("out")
    assert result.exit_code == 1
    assert "Nothing to upscale. Left out: 3 results of keras-psr" in result.stderr


def test_results_are_known_by_what_they_say_and_not_by_their_names(upscale, clip, animation):
    assert upscale("clip.mp4", "-o", "big.mp4").exit_code == 0
    assert upscale("clip.gif", "-o", "big.gif").exit_code == 0
    for path in (clip, animation):
        path.unlink()
    result = upscale(".")
    assert "Left out: 2 results of keras-psr" in result.stderr
    assert upscale("big.gif", "--dry-run").exit_code == 0


@pytest.mark.parametrize("ending", ["mkv", "mov", "webm"])
def test_the_format_is_chosen(upscale, make_film, pan, tmp_path, ending):
    shutil.copy(make_film("mute.mp4", pan[:4], codec="libx264", kind="yuv420p"), tmp_path)
    result = upscale("mute.mp4", "--format", ending)
    assert result.exit_code == 0, result.stderr
    film, frames = read(f"mute_x2.{ending}")
    assert film.codec == ("vp9" if ending == "webm" else "h264") and len(frames) == 4


def test_codec_and_quality_are_chosen(upscale, clip):
    sizes = []
    for crf in (10, 40):
        result = upscale("clip.mp4", "--codec", "hevc", "--crf", crf, "--overwrite")
        assert result.exit_code == 0, result.stderr
        assert read("clip_x2.mp4")[0].codec == "hevc"
        sizes.append(Path("clip_x2.mp4").stat().st_size)
    assert sizes[0] > sizes[1] + 5000  # the sound takes as much in both


def test_a_part_is_processed(upscale, clip):
    result = upscale("clip.mp4", "--start", "0:00.2", "--duration", ".2")
    assert result.stderr == "clip.mp4 -> clip_x2.mp4 (128x96, 5 frames)\n"


def test_odd_sides_are_told(upscale, clip):
    result = upscale("clip.mp4", "--width", 99, "--duration", "0.1")
    assert "(100x74, 3 frames; 99x74 extended to 100x74, because yuv420p needs even sides)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--codec", "h266"), "clip.mp4: --codec h266 is not a video encoder. Did you mean h265?"),
        (("--codec", "mpeg4", "--crf", "20"), "clip.mp4: --crf does not go with --codec mpeg4"),
        (("--start", "90"), "Error: clip.mp4: --start 90 is after its end, 0.8 s."),
        (("-o", "-"), "clip.mp4: a film cannot go to stdout. Give -o FILE."),
        (("-o", "big.png"), "clip.mp4: cannot write the film big.png: expected an ending of .mp4"),
        (("-o", "big.webm"), "clip.mp4: big.webm cannot hold the film's sound (aac). Write an .mkv."),
        (("--max-pixels", "0.001"), "clip.mp4 would become 128x96, 0.0 megapixels."),
        (
            ("--codec", "vp9", "-f", "mov"),
            ".mov cannot hold libvpx-vp9 (vp9 only supported in MP4). Give another ending or --codec.",
        ),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_computed(upscale, clip, arguments, message):
    result = upscale("clip.mp4", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert os.listdir() == ["clip.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "mp4"), "--format mp4 is for films. There are none."),
        (("--format", "gif"), "--format gif is for animations. There are none."),
        (("--codec", "hevc"), "--codec is for films. There are none."),
        (("--crf", "0"), "--crf is for films. There are none."),
        (("--resume",), "--resume is for films. There are none."),
        (("--start", "0"), "--start is for animations and films. There are none."),
        (("--duration", "1"), "--duration is for animations and films. There are none."),
    ],
)
def test_an_option_without_a_purpose_is_told(upscale, pan, arguments, message):
    Image.fromarray(pan[0]).save("still.png")
    result = upscale("still.png", *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_a_format_of_pictures_is_not_for_films(upscale, clip):
    result = upscale("clip.mp4", "--format", "jpg")
    assert result.exit_code == 2
    assert "--format jpg is for pictures and animations. There are none." in result.stderr


@pytest.mark.parametrize("name", ["big.gif", "big.mp4"])
def test_a_picture_is_not_written_as_an_animation_or_film(upscale, pan, name):
    Image.fromarray(pan[0]).save("still.png")
    result = upscale("still.png", "-o", name)
    assert result.exit_code == 1
    assert f"still.png: cannot write {name}: expected an ending of .bmp, .jfif" in result.stderr


def test_without_pyav_a_line_says_what_to_install(upscale, clip, pan, monkeypatch):
    monkeypatch.setattr(formats, "is_installed", lambda module: False)
    result = upscale("clip.mp4")
    assert result.exit_code == 1
    assert result.stderr == ("Error: clip.mp4 is a film. To read it: pip install 'keras-psr[video]', or just av.\n")
    Image.fromarray(pan[0][:10, :12]).save("still.png")
    result = upscale(".")
    assert result.exit_code == 0 and result.stderr.startswith("Left out: 1 .mp4.\n")


def test_a_name_may_look_like_an_address(upscale, clip):
    clip.rename("12:30.mp4")
    result = upscale("12:30.mp4", "--duration", "0.1")
    assert (result.exit_code, result.stderr) == (0, "12:30.mp4 -> 12:30_x2.mp4 (128x96, 3 frames)\n")


def test_what_is_no_film_is_told(upscale, tmp_path):
    Path("text.mp4").write_text("no film")
    result = upscale("text.mp4")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: text.mp4 cannot be read as a film") and result.stderr.count("\n") == 1


def test_an_unfinished_film_is_neither_replaced_nor_taken_for_an_input(upscale, clip):
    shutil.copy(clip, "clip_x2.unfinished.mp4")
    result = upscale("clip.mp4")
    assert result.exit_code == 1
    assert (
        "clip_x2.unfinished.mp4 is there. Go on with it by --resume, or begin again with --overwrite." in result.stderr
    )
    result = upscale("clip.mp4", "--resume")
    assert result.exit_code == 1
    assert "clip_x2.unfinished.mp4 was made with another film, model or option." in result.stderr
    result = upscale(".", "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert sorted(os.listdir()) == ["clip.mp4", "clip_x2.mp4"]


def start(arguments, folder):
    def heed_signals():  # shells start background jobs with SIGINT ignored, and children inherit that
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, "-m", "keras_psr", "upscale", "-m", "x2-fast", "--device", "cpu", *arguments]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, preexec_fn=heed_signals, text=True)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_film_can_be_played_and_continued(make_film, upscale, tmp_path, signum):
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    shutil.copy(make_film("long.mkv", list(noise), codec="libx264", kind="yuv420p"), tmp_path)
    unfinished = tmp_path / "long_x2.unfinished.mkv"
    # Every frame of ffv1 is a key frame, so the file grows with each.
    process = start(["long.mkv", "--codec", "ffv1", "--json", "report.json"], tmp_path)
    while process.poll() is None and not (unfinished.is_file() and unfinished.stat().st_size > 100_000):
        time.sleep(0.05)
    process.send_signal(signum)
    lines = process.communicate()[1].splitlines()
    assert process.returncode == (130 if signum == signal.SIGINT else 143)
    count = len(read(unfinished)[1])
    assert 0 < count < 60
    assert lines[:-2] == ["Finishing the film. Press Ctrl-C again to abandon it."]
    assert lines[-2].startswith(f"long_x2.unfinished.mkv holds {count} of about 60 frames, up to 0:")
    assert lines[-2].endswith(" --resume goes on.")
    (row,) = json.loads((tmp_path / "report.json").read_text())["pictures"]
    assert (row["status"], row["output"], row["frames"]) == ("interrupted", unfinished.name, count)
    result = upscale("long.mkv", "--codec", "ffv1", "--resume")
    assert result.exit_code == 0, result.stderr
    assert len(read("long_x2.mkv")[1]) == 60
    assert sorted(os.listdir()) == ["long.mkv", "long_x2.mkv", "report.json"]


def test_an_animation_keeps_its_timing(upscale, animation):
    result = upscale("clip.gif")
    assert result.exit_code == 0, result.stderr
    note = "256 colours for each frame, because it is a GIF"
    assert result.stderr == f"clip.gif -> clip_x2.gif (64x48, 5 frames; {note})\n"
    received = read_animation(Path("clip_x2.gif"))
    assert (received.durations, received.plays) == ((100, 40, 30, 50, 200), 0)
    assert (received.height, received.width) == (48, 64)


def test_an_animation_changes_its_format(upscale, animation):
    import keras_psr
    from keras_psr.images.animation import read_frames

    network = keras_psr.load("x2-fast", device="cpu")
    expected = [network(photo.pixels) for photo in read_frames(read_animation(animation))]
    for ending in ("png", "webp"):
        assert upscale("clip.gif", "--format", ending).exit_code == 0
        received = read_animation(Path(f"clip_x2.{ending}"))
        assert (received.durations, received.plays) == ((100, 40, 30, 50, 200), 0)
        for photo, pixels in zip(read_frames(received), expected, strict=True):
            np.testing.assert_array_equal(photo.pixels, pixels)


@pytest.mark.parametrize("is_lossy", [False, True])
def test_an_animated_webp_is_written_with_losses_if_it_has_some(upscale, pan, is_lossy):
    images = [Image.fromarray(pixels[:24, :32]) for pixels in pan[:2]]
    images[0].save("clip.webp", save_all=True, append_images=images[1:], lossless=not is_lossy)
    assert upscale("clip.webp").exit_code == 0
    assert read_compression("clip_x2.webp").has_artefacts == is_lossy


def test_a_part_of_an_animation_is_processed(upscale, animation):
    assert upscale("clip.gif", "--start", "0.1", "--duration", "0.1").exit_code == 0
    assert read_animation(Path("clip_x2.gif")).durations == (40, 30, 50)


def test_a_format_without_frames_gets_the_first(upscale, animation):
    result = upscale("clip.gif", "--format", "jpg")
    assert result.stderr == "clip.gif -> clip_x2.jpg (64x48; first of 5 frames)\n"


def test_an_animation_goes_through_stdin_and_stdout(upscale, runner, animation):
    result = runner.invoke(main, ["upscale", "-m", "x2-fast", "--device", "cpu", "-"], input=animation.read_bytes())
    assert result.exit_code == 0, result.stderr
    Path("out.gif").write_bytes(result.stdout_bytes)
    assert read_animation(Path("out.gif")).durations == (100, 40, 30, 50, 200)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1:30", 90), ("0:01:30.5", 90.5), (".25", 0.25)])
def test_times_are_read(text, seconds):
    assert Time().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3", "1:2:3:4", "1/0", "1:-5"])
def test_other_times_are_refused(upscale, text):
    result = upscale("clip.mp4", f"--start={text}")
    assert result.exit_code == 2 and "is not a time; expected seconds, or h:mm:ss" in result.stderr


def test_endings_of_films():
    assert is_film(Path("CLIP.MP4")) and not is_film(Path("photo.png"))
    assert choose_ending(Path("clip.MOV")) == ".mov" and choose_ending(Path("clip.avi")) == ".mkv"
    assert set(CONTAINERS) <= set(LISTED_SUFFIXES)
    assert is_film(Path("recording.ts")) and ".ts" not in LISTED_SUFFIXES  # in folders, it is mostly TypeScript
