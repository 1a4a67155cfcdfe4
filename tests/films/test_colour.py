"""Colours of films: known colours in, known colours out, whatever matrix, range, depth and chroma sampling."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

av = pytest.importorskip("av")

from keras_psr.errors import ImageFileError  # noqa: E402
from keras_psr.films.colour import LUMA, RGB, Colour, FrameReader, FrameWriter, find_colour  # noqa: E402
from keras_psr.images.photo import Photo  # noqa: E402

HEIGHT, WIDTH = 48, 64
COLOURS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5], [0.9, 0.4, 0.2]])
KINDS = list(product((8, 10, 12), (1, 6, 9), (False, True)))


def encode_by_definition(rgb, matrix, is_full, bits):
    """Luma and chroma of RGB in [0, 1], as numbers of a film (ITU-T H.273, equations 11 to 37)."""
    red_weight, blue_weight = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    red, green, blue = rgb
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    chroma = np.array([(blue - luma) / (2 - 2 * blue_weight), (red - luma) / (2 - 2 * red_weight)])
    step, top = 2 ** (bits - 8), 2**bits - 1
    if is_full:
        return np.rint([luma * top, *np.minimum(chroma * top + 128 * step, top)])
    return np.rint([(16 + 219 * luma) * step, *(128 + 224 * chroma) * step])


def decode_by_definition(yuv, matrix, is_full, bits):
    """RGB in [0, 1] of a film's numbers."""
    red_weight, blue_weight = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    step, top = 2 ** (bits - 8), 2**bits - 1
    if is_full:
        luma, blue, red = yuv[0] / top, (yuv[1] - 128 * step) / top, (yuv[2] - 128 * step) / top
    else:
        luma, blue, red = (yuv[0] / step - 16) / 219, (yuv[1] / step - 128) / 224, (yuv[2] / step - 128) / 224
    rgb = [luma + (2 - 2 * red_weight) * red, 0.0, luma + (2 - 2 * blue_weight) * blue]
    rgb[1] = (luma - red_weight * rgb[0] - blue_weight * rgb[2]) / (1 - red_weight - blue_weight)
    return np.clip(rgb, 0, 1)


def name_format(bits, sampling="420"):
    return f"yuv{sampling}p" + ("" if bits == 8 else f"{bits}le")


def make_frame(yuv, bits, matrix, is_full):
    """A frame of one colour, or of an array of chroma for each column."""
    frame, dtype = av.VideoFrame(WIDTH, HEIGHT, name_format(bits)), np.uint8 if bits == 8 else np.uint16
    for plane, levels in zip(frame.planes, yuv, strict=True):
        rows = np.zeros((plane.height, plane.line_size // np.dtype(dtype).itemsize), dtype)
        rows[:, : plane.width] = levels
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return frame


def read_planes(frame, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    return [np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]


@pytest.mark.parametrize(("bits", "matrix", "is_full"), KINDS)
def test_known_colours_are_read(bits, matrix, is_full):
    for rgb in COLOURS:
        yuv = encode_by_definition(rgb, matrix, is_full, bits)
        photo = FrameReader(HEIGHT, WIDTH, "h264")(make_frame(yuv, bits, matrix, is_full))
        top = 255 if bits == 8 else 65535
        assert photo.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
        expected = decode_by_definition(yuv, matrix, is_full, bits) * top
        # 8 bits are rounded once; in 16 bits a level of the film is 16 or 64 levels, of which a few may be lost.
        assert np.abs(photo.pixels - expected).max() <= (0.52 if bits == 8 else 3)


@pytest.mark.parametrize(("bits", "matrix", "is_full"), KINDS)
def test_known_colours_are_written(bits, matrix, is_full):
    writer = FrameWriter(Colour(matrix, is_full), name_format(bits), HEIGHT, WIDTH)
    for rgb in COLOURS:
        top = 255 if bits == 8 else 65535
        pixels = np.broadcast_to(np.rint(rgb * top).astype(np.uint8 if bits == 8 else np.uint16), (HEIGHT, WIDTH, 3))
        frame = writer(Photo(pixels))
        expected = encode_by_definition(np.rint(rgb * top) / top, matrix, is_full, bits)
        received = [plane[HEIGHT // 4, WIDTH // 4] for plane in read_planes(frame, bits)]
        assert np.abs(received - expected).max() <= (1 if bits == 8 and is_full else 0)
        assert (frame.colorspace, frame.color_range) == (matrix, 2 if is_full else 1)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize(("codec", "shift"), [("h264", 0.0), ("mjpeg", 0.5)])
def test_chroma_lies_above_every_second_pixel_or_between_two(bits, codec, shift):
    step = 2 ** (bits - 8)
    ramp = (60 + 2 * np.arange(WIDTH // 2)) * step
    frame = make_frame([np.full(WIDTH, 126 * step), ramp, np.full(WIDTH // 2, 128 * step)], bits, 1, False)
    pixels = FrameReader(HEIGHT, WIDTH, codec)(frame).pixels.astype(float)
    blue = (pixels[20, :, 2] - pixels[20, :, 0]) / np.iinfo(np.uint8 if bits == 8 else np.uint16).max / 1.8556
    received = blue * 224 + 128
    expected = 60 + 2 * (np.arange(WIDTH) - shift) / 2
    middle = slice(8, -8)
    assert np.abs(np.mean((received - expected)[middle])) < 0.1


@pytest.mark.parametrize("bits", [8, 10])
def test_chroma_is_written_above_every_second_pixel(bits):
    chroma = np.linspace(-0.12, 0.12, WIDTH)
    blue, green = 0.5 + 1.8556 * chroma, 0.5 - 0.0722 * 1.8556 * chroma / 0.7152
    rgb = np.stack([np.full(WIDTH, 0.5), green, blue], axis=-1)
    levels = np.rint(rgb * 255).astype(np.uint8) if bits == 8 else np.rint(rgb * 65535).astype(np.uint16)
    frame = FrameWriter(Colour(1, False), name_format(bits), HEIGHT, WIDTH)(Photo(np.stack([levels] * HEIGHT)))
    received = (read_planes(frame, bits)[1][10] / 2 ** (bits - 8) - 128) / 224
    middle = slice(4, -4)
    assert np.abs(np.mean((received - chroma[::2])[middle])) < 0.0005  # half a pixel would be 0.0019


@pytest.mark.parametrize("bits", [8, 10])
def test_a_photograph_comes_back(bits):
    import skimage.data

    photograph = skimage.data.coffee()[100:148, 200:264]
    pixels = photograph if bits == 8 else photograph.astype(np.uint16) * 257
    colour = Colour(1, False)
    frame = FrameWriter(colour, name_format(bits, "444"), HEIGHT, WIDTH)(Photo(pixels))
    back = FrameReader(HEIGHT, WIDTH, "h264")(frame).pixels
    # A level of 8 bits holds 255/219 grey levels of luma, and 1.8556 * 255/224 of blue.
    assert np.abs(back.astype(float) - pixels).max() <= (3 if bits == 8 else 3 * 64)


def test_opacity_comes_back():
    alpha = np.linspace(0, 255, WIDTH).astype(np.uint8) * np.ones((HEIGHT, 1), np.uint8)
    photo = Photo(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), alpha)
    for kind in ("yuva420p", "rgba"):
        colour = Colour(1, False).written_by("ffv1", kind)
        back = FrameReader(HEIGHT, WIDTH, "vp9")(FrameWriter(colour, kind, HEIGHT, WIDTH)(photo))
        assert back.alpha is not None and np.abs(back.pixels.astype(int) - 90).max() <= 1
        assert np.abs(back.alpha.astype(int) - alpha).max() <= 1
        np.testing.assert_array_equal(back.alpha[:, [0, -1]], alpha[:, [0, -1]])


def test_what_is_missing_for_even_sides_repeats_the_last_row_and_column():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    back = FrameReader(6, 8, "x")(FrameWriter(Colour(RGB, True), "rgb24", 6, 8)(Photo(pixels))).pixels
    np.testing.assert_array_equal(back[:5, :7], pixels)
    np.testing.assert_array_equal(back[5, :7], pixels[4])
    np.testing.assert_array_equal(back[:5, 7], pixels[:, 6])


@pytest.mark.parametrize(("height", "width", "matrix"), [(576, 720, 6), (720, 960, 1), (480, 1280, 1), (48, 64, 6)])
def test_a_film_without_a_matrix_gets_that_which_players_assume(height, width, matrix):
    assert find_colour(av.VideoFrame(width, height, "yuv420p")) == Colour(matrix, False)


def test_some_formats_are_full_range_by_name():
    for name, is_full in (("yuvj420p", True), ("yuv420p", False), ("gray", True), ("gbrp", True)):
        assert find_colour(av.VideoFrame(WIDTH, HEIGHT, name)).is_full == is_full


def test_rgb_becomes_bt709_and_back():
    colour = find_colour(av.VideoFrame(WIDTH, HEIGHT, "gbrp"), 9, 16)
    assert colour.matrix == RGB
    assert colour.written_by("libx264", "yuv420p") == Colour(1, False, 9, 16)
    assert Colour(9, False, 9, 16).written_by("qtrle", "rgb24") == Colour(RGB, True, 9, 16)


def test_full_range_is_kept_by_encoders_that_can_tell():
    colour = Colour(1, True, 1, 1)
    assert colour.written_by("libx264", "yuv420p") == colour
    assert colour.written_by("prores_ks", "yuv422p10le") == Colour(1, False, 1, 1)


def test_a_matrix_that_is_not_a_matrix_is_refused():
    frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p10le")
    frame.colorspace = 14  # ICtCp, which needs the transfer function
    with pytest.raises(ImageFileError, match="matrix 14 .* Convert the film to BT.709"):
        find_colour(frame)
    assert 14 not in LUMA


def test_frames_of_another_size_are_resized():
    reader = FrameReader(HEIGHT, WIDTH, "h264")
    for size in ((WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT), (WIDTH, HEIGHT)):
        frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 200, np.uint8)).reformat(format="yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        pixels = reader(frame).pixels
        assert pixels.shape == (HEIGHT, WIDTH, 3) and np.abs(pixels.astype(int) - 200).max() <= 2
