import math
import time

import numpy as np
import pytest
from skimage import data

from keras_psr.errors import ConfigError
from keras_psr.images.pixels import (
    crop_to_multiple,
    from_uint16,
    lay_over_white,
    make_low_res,
    resize_bicubic,
    rgb_to_y,
    to_three_channels,
    to_uint8,
    to_uint16,
)


def test_all_16_bit_levels_come_back_from_grey_levels():
    levels = np.arange(65536, dtype=np.uint16)
    grey = from_uint16(levels)
    assert grey.dtype == np.float32 and grey[[0, 257, 65535]].tolist() == [0, 1, 255]
    np.testing.assert_array_equal(to_uint16(grey), levels)


def imresize_weights(size: int, resized: int) -> np.ndarray:
    """The matrix by which MATLAB's imresize multiplies one axis, from the definition of the Keys kernel."""
    stretch = max(1.0, size / resized)
    matrix = np.zeros((resized, size))
    for row in range(resized):
        center = (row + 0.5) * size / resized - 0.5
        for tap in range(math.floor(center - 2 * stretch), math.ceil(center + 2 * stretch) + 1):
            x = abs(center - tap) / stretch
            if x <= 1:
                weight = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                weight = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            else:
                weight = 0.0
            mirrored = tap % (2 * size)
            matrix[row, min(mirrored, 2 * size - 1 - mirrored)] += weight
    return matrix / matrix.sum(axis=1, keepdims=True)


def imresize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """MATLAB's imresize: vertically, then horizontally, with uint8 rounded and clipped after each pass."""
    finish = (lambda x: np.clip(np.round(x), 0, 255)) if image.dtype == np.uint8 else (lambda x: x)
    tall = finish(np.einsum("yi,ij...->yj...", imresize_weights(image.shape[0], height), image.astype(float)))
    return finish(np.einsum("xj,yj...->yx...", imresize_weights(image.shape[1], width), tall))


SIZES = [
    ((40, 56), (10, 14)),
    ((40, 56), (160, 224)),
    ((41, 37), (13, 50)),
    ((3, 2), (12, 8)),
    ((64, 64), (1, 3)),
    ((9, 9), (9, 9)),
]


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(("shape", "resized"), SIZES)
def test_resize_of_uint8_is_imresize_to_one_grey_level(shape, resized, channels):
    image = np.random.default_rng(0).integers(0, 256, shape + channels, dtype=np.uint8)
    ours = resize_bicubic(image, *resized)
    assert ours.dtype == np.uint8 and ours.shape == resized + channels and ours.flags.c_contiguous
    assert np.abs(ours - imresize(image, *resized)).max() <= 1


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(("shape", "resized"), SIZES)
def test_resize_of_float_is_imresize(shape, resized, channels):
    image = np.random.default_rng(0).uniform(-50, 300, shape + channels).astype(np.float32)
    ours = resize_bicubic(image, *resized)
    assert ours.dtype == np.float32 and ours.shape == resized + channels
    np.testing.assert_allclose(ours, imresize(image, *resized), atol=1e-3)


def test_resize_keeps_constant_pictures_and_ramps():
    assert (resize_bicubic(np.full((7, 5, 3), 201, np.uint8), 28, 20) == 201).all()
    ramp = np.tile(np.arange(64, dtype=np.float32), (16, 1))
    halved = resize_bicubic(ramp, 8, 32)
    np.testing.assert_allclose(halved[:, 3:-3], np.tile(np.arange(32) * 2 + 0.5, (8, 1))[:, 3:-3], atol=1e-4)


def test_resize_of_a_training_crop_takes_less_than_a_millisecond():
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        resize_bicubic(crop, 28, 28)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1e-3


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_low_res_of_a_photograph_is_imresize_of_the_cropped_picture(scale):
    photograph = data.astronaut()[:203, :301]
    height, width = 203 // scale, 301 // scale
    expected = imresize(photograph[: height * scale, : width * scale], height, width)
    ours = make_low_res(photograph, scale)
    assert ours.dtype == np.uint8 and ours.shape == (height, width, 3)
    assert np.abs(ours - expected).max() <= 1


def test_low_res_blur_is_a_gaussian_in_high_res_pixels():
    dot = np.zeros((64, 64), np.uint8)
    dot[32, 32] = 255
    y, x = np.mgrid[:64, :64] - 32.0
    blurred = 255 * np.exp(-(x**2 + y**2) / (2 * 1.5**2)) / (2 * np.pi * 1.5**2)
    expected = np.clip(imresize(blurred, 32, 32), 0, 255)
    assert np.abs(make_low_res(dot, 2, blur_sigma=1.5) - expected).max() <= 0.6


def test_low_res_blurs_no_channel_into_another():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    assert (make_low_res(red, 2, blur_sigma=1.0) == [255, 0, 0]).all()


@pytest.mark.parametrize("sigma", [-1.0, math.nan])
def test_low_res_refuses_a_bad_blur(sigma):
    with pytest.raises(ConfigError, match="blur_sigma must be 0 or more"):
        make_low_res(np.zeros((8, 8, 3), np.uint8), 2, sigma)


def test_to_uint8_clips_and_rounds_half_to_even():
    levels = np.array([-7.0, 0.5, 1.5, 2.5, 2.51, 254.5, 255.5, 1e9])
    assert to_uint8(levels).tolist() == [0, 0, 2, 2, 3, 254, 255, 255]
    every = np.arange(256, dtype=np.uint8)
    assert (to_uint8(every) == every).all()


def test_crop_to_multiple_keeps_the_top_left():
    image = np.arange(7 * 9 * 3).reshape(7, 9, 3)
    assert (crop_to_multiple(image, 4) == image[:4, :8]).all()
    assert (crop_to_multiple(image[..., 0], 7) == image[:7, :7, 0]).all()


def test_crop_to_multiple_refuses_smaller_pictures():
    with pytest.raises(ConfigError, match="at least 4x4 pixels .* Received: 3x90"):
        crop_to_multiple(np.zeros((3, 90, 3), np.uint8), 4)


@pytest.mark.parametrize(
    ("rgb", "luma"),
    [
        ((0, 0, 0), 16),
        ((255, 255, 255), 235),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
    ],
)
def test_luma_is_that_of_matlab_rgb2ycbcr_on_doubles(rgb, luma):
    y = rgb_to_y(np.full((2, 3, 3), rgb, np.uint8))
    assert y.dtype == np.float64 and y.shape == (2, 3)
    np.testing.assert_allclose(y, luma, atol=1e-9)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_white_shows_through_as_far_as_a_picture_is_transparent(channels):
    """The blend of a level and white, rounded, for every level and opacity; 257 times as large, in 16 bits too."""
    levels, opacity = np.mgrid[:256, :256]
    expected = np.rint((levels * opacity + 255 * (255 - opacity)) / 255).reshape(256, 256, *len(channels) * (1,))
    pixels = np.broadcast_to(levels.reshape(expected.shape), (256, 256, *channels))
    for dtype, step in ((np.uint8, 1), (np.uint16, 257)):
        blended = lay_over_white((pixels * step).astype(dtype), (opacity * step).astype(dtype))
        assert blended.dtype == np.uint8
        np.testing.assert_array_equal(blended, np.broadcast_to(expected, blended.shape))


def test_grey_gets_three_equal_channels_and_colour_stays():
    grey = np.arange(6, dtype=np.uint16).reshape(2, 3)
    coloured = to_three_channels(grey)
    assert coloured.shape == (2, 3, 3) and coloured.dtype == np.uint16
    assert all((coloured[..., channel] == grey).all() for channel in range(3))
    assert to_three_channels(coloured) is coloured
