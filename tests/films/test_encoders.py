"""How films are encoded: what an encoder can hold of a film is kept, and the rest is told."""

from fractions import Fraction
from pathlib import Path

import pytest

pytest.importorskip("av")

from keras_psr.errors import ConfigError  # noqa: E402
from keras_psr.films.colour import BT709, RGB, Colour  # noqa: E402
from keras_psr.films.encoders import choose_encoding  # noqa: E402
from keras_psr.films.hdr import Light  # noqa: E402
from keras_psr.films.reading import Film  # noqa: E402


def describe(bits=8, chroma=(2, 2), has_alpha=False, matrix=BT709, light=None):
    return Film(
        *(Path("clip.mp4"), 0, 48, 64, (False, False, False), Fraction(1), Fraction(25), Fraction(1, 25), Fraction(0)),
        *(Fraction(1), 25, Colour(matrix, False), bits, chroma, has_alpha, "h264", True, light or Light(), ()),
    )


@pytest.mark.parametrize(
    ("film", "ending", "codec", "encoder", "kind"),
    [
        (describe(), ".mp4", None, "libx264", "yuv420p"),
        (describe(), ".webm", None, "libvpx-vp9", "yuv420p"),
        (describe(bits=10), ".mp4", None, "libx265", "yuv420p10le"),
        (describe(bits=10), ".webm", None, "libsvtav1", "yuv420p10le"),
        (describe(bits=10), ".mkv", "h264", "libx264", "yuv420p10le"),
        (describe(bits=12), ".mkv", "hevc", "libx265", "yuv420p12le"),
        (describe(chroma=(1, 1)), ".mp4", None, "libx264", "yuv444p"),
        (describe(chroma=(2, 1)), ".mkv", "ffv1", "ffv1", "yuv422p"),
        (describe(chroma=(1, 1), matrix=RGB), ".mp4", None, "libx264", "yuv420p"),
        (describe(bits=10, chroma=(2, 1)), ".mov", "prores", "prores_ks", "yuv422p10le"),
        (describe(has_alpha=True), ".webm", None, "libvpx-vp9", "yuva420p"),
        (describe(has_alpha=True), ".mov", None, "prores_ks", "yuva444p10le"),
        (describe(), ".mkv", "mpeg4", "mpeg4", "yuv420p"),
        (describe(), ".mp4", "H265", "libx265", "yuv420p"),
    ],
)
def test_the_pixel_format_is_the_nearest_to_the_films(film, ending, codec, encoder, kind):
    encoding = choose_encoding(film, ending, codec)
    assert (encoding.encoder, encoding.frame_format, encoding.notes) == (encoder, kind, ())


@pytest.mark.parametrize(
    ("film", "codec", "notes"),
    [
        (describe(bits=10), "mpeg4", ("10 bits rounded to 8 for mpeg4",)),
        (describe(bits=12), None, ("12 bits rounded to 10 for hevc",)),
        (describe(has_alpha=True), "h264", ("transparency blended with white for h264",)),
        (describe(bits=10, light=Light("G(1,2)", "1,2")), "h264", ("HDR's brightness data left out for h264",)),
        (describe(bits=10, light=Light(is_dynamic=True)), None, ("dynamic HDR data left out",)),
    ],
)
def test_what_is_lost_is_told(film, codec, notes):
    assert choose_encoding(film, ".mp4", codec).notes == notes


def test_hdr_keeps_its_brightness_data():
    options = choose_encoding(describe(bits=10, light=Light("G(1,2)", "3,4")), ".mp4").options
    assert options["x265-params"].endswith(":hdr10=1:master-display=G(1,2):max-cll=3,4")


def test_quality_is_set():
    assert choose_encoding(describe(), ".mp4").options["crf"] == "18"
    assert choose_encoding(describe(), ".mp4", crf=30).options["crf"] == "30"
    assert choose_encoding(describe(), ".webm", crf=0).options["crf"] == "0"


@pytest.mark.parametrize(
    ("codec", "crf", "message"),
    [
        ("h266", None, "--codec h266 is not a video encoder. Did you mean h265"),
        ("nonsense", None, "--codec nonsense is not a video encoder. Give one of h264"),
        ("aac", None, "--codec aac is not a video encoder"),
        ("mpeg4", 20, "--crf does not go with --codec mpeg4"),
    ],
)
def test_what_cannot_be_used_is_told(codec, crf, message):
    with pytest.raises(ConfigError, match=message):
        choose_encoding(describe(), ".mp4", codec, crf)


def test_subsampled_chroma_needs_even_sides():
    assert choose_encoding(describe(), ".mp4").alignment == (2, 2)
    assert choose_encoding(describe(chroma=(2, 1)), ".mkv", "ffv1").alignment == (1, 2)
    assert choose_encoding(describe(chroma=(1, 1)), ".mp4").alignment == (1, 1)
    assert choose_encoding(describe(), ".mov", "qtrle").alignment == (1, 1)
