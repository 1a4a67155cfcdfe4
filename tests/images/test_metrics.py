import math

import numpy as np
import pytest
from scipy.signal import convolve2d
from skimage import data

from keras_psr.data.degradation import compress_jpeg
from keras_psr.errors import ConfigError
from keras_psr.images.metrics import (
    block_ratio,
    chroma_noise,
    color_block_ratio,
    lattice_ratio,
    mean_scores,
    psnr_rgb,
    psnr_y,
    ssim_y,
)
from keras_psr.images.pixels import crop_to_multiple, make_low_res, resize_bicubic, rgb_to_y, to_uint8


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_psnr_of_hand_made_errors():
    reference = np.full((10, 12, 3), 100, np.uint8)
    image = reference.copy()
    image[..., 1] += 6
    assert psnr_rgb(image, reference, 0) == pytest.approx(10 * math.log10(255**2 / 12))
    # Only green differs: 6 grey levels are 6 * 128.553 / 255 of luma.
    assert psnr_y(image, reference, 0) == pytest.approx(20 * math.log10(255 / (6 * 128.553 / 255)))


@pytest.mark.parametrize("psnr", [psnr_y, psnr_rgb])
def test_psnr_of_equal_pictures_is_infinite(psnr):
    assert psnr(noise(8, 8), noise(8, 8), 2) == math.inf


@pytest.mark.parametrize("score", [psnr_y, psnr_rgb, ssim_y])
def test_the_border_is_not_scored(score):
    reference = noise(24, 30)
    image = to_uint8(reference * 0.9)
    damaged = image.copy()
    damaged[:4], damaged[-4:], damaged[:, :4], damaged[:, -4:] = 0, 0, 0, 0
    assert score(damaged, reference, 4) == score(image[4:-4, 4:-4], reference[4:-4, 4:-4], 0)
    assert score(damaged, reference, 3) < score(damaged, reference, 4)


def wang_ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """`ssim_index.m` of Wang et al. 2004, with fspecial('gaussian', 11, 1.5) and filter2(..., 'valid')."""
    y, x = np.mgrid[-5:6, -5:6]
    window = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    a, b = rgb_to_y(image), rgb_to_y(reference)

    def mean(values: np.ndarray) -> np.ndarray:
        return convolve2d(values, window, mode="valid")

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    means = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (means * (2 * cov + c2) / (var_a + var_b + c2)).mean()


@pytest.mark.parametrize(("height", "width"), [(40, 56), (11, 11), (12, 90)])
def test_ssim_is_that_of_wang(height, width):
    reference = data.astronaut()[60 : 60 + height, 180 : 180 + width]
    image = to_uint8(reference * 0.8 + noise(height, width) * 0.2)
    assert ssim_y(image, reference, 0) == pytest.approx(wang_ssim(image, reference), abs=1e-9)


def test_ssim_of_flat_pictures_compares_their_means():
    dark, light = np.full((16, 16, 3), 0, np.uint8), np.full((16, 16, 3), 255, np.uint8)
    c1 = 2.55**2
    assert ssim_y(dark, light, 0) == pytest.approx((2 * 16 * 235 + c1) / (16**2 + 235**2 + c1))
    assert ssim_y(noise(16, 16), noise(16, 16), 2) == pytest.approx(1)


@pytest.mark.parametrize("score", [psnr_y, psnr_rgb, ssim_y])
def test_scores_refuse_what_they_cannot_compare(score):
    with pytest.raises(ConfigError, match=r"same shape\. Received: \(16, 16, 3\) and \(16, 17, 3\)"):
        score(noise(16, 16), noise(16, 17), 0)
    with pytest.raises(ConfigError, match="reference must be uint8 RGB .* Received: float64"):
        score(noise(16, 16), noise(16, 16) / 1.0, 0)
    with pytest.raises(ConfigError, match="image must be uint8 RGB .* shape \\(16, 16\\)"):
        score(noise(16, 16)[..., 0], noise(16, 16), 0)
    with pytest.raises(ConfigError, match=r"pixels inside a border of 8\. Received: 16x40"):
        score(noise(16, 40), noise(16, 40), 8)


def test_ssim_needs_one_window():
    with pytest.raises(ConfigError, match=r"at least 11x11 pixels inside a border of 3\. Received: 16x40"):
        ssim_y(noise(16, 40), noise(16, 40), 3)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_lattice_ratio_of_noise_is_about_one(scale):
    # Each bin of noise is exponentially distributed, with a median of ln 2 times its mean.
    ratios = [lattice_ratio(noise(256, 272, seed), scale) for seed in range(12)]
    assert 0.8 < np.mean(ratios) < 1.2


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_lattice_ratio_grows_with_the_square_of_an_added_grid(scale):
    picture = 64 + 0.5 * data.astronaut().astype(float)
    grid = np.zeros((512, 512, 1))
    grid[::scale, ::scale] = 1
    clean, weak, strong = (lattice_ratio(to_uint8(picture + a * scale * grid), scale) for a in (0, 3, 12))
    assert clean < 4
    assert weak > 50 * clean
    assert strong / weak == pytest.approx(16, rel=0.2)


def test_chroma_noise_of_white_noise_is_its_variance_times_the_share_of_frequencies():
    # Outside a circle of a quarter cycle lies 1 - pi / 16 / (1 cycle squared) of the spectrum. Noise in blue alone, of
    # variance v, has v / 4 in Cb, and .081312^2 v in Cr.
    image = np.full((256, 240, 3), 100, np.uint8)
    image[..., 2] = np.random.default_rng(0).integers(50, 151, image.shape[:2])
    expected = image[..., 2].var() * (0.25 + 0.081312**2) * (1 - math.pi / 16)
    assert chroma_noise(image) == pytest.approx(expected, rel=0.02)
    assert chroma_noise(image[..., [2, 2, 2]]) == pytest.approx(0, abs=1e-3)


def test_chroma_noise_begins_at_a_quarter_cycle():
    columns = np.arange(256)
    for frequency, is_fine in ((0.1, False), (0.23, False), (0.27, True), (0.4, True)):
        wave = np.zeros((64, 256, 3), np.uint8)
        wave[...] = to_uint8(100 + 20 * np.sin(2 * np.pi * frequency * columns))[None, :, None]
        wave[..., 1] = 100
        # A wave of amplitude a has the variance a^2 / 2; here R and B carry it.
        cb, cr = 0.5 - 0.168736, 0.5 - 0.081312
        expected = (cb**2 + cr**2) * 20**2 / 2 if is_fine else 0
        assert chroma_noise(wave) == pytest.approx(expected, rel=0.03, abs=0.1)


def test_chroma_noise_refuses_what_it_cannot_measure():
    with pytest.raises(ConfigError, match="at least 8 pixels on each side. Received: 90x7"):
        chroma_noise(noise(7, 90))
    with pytest.raises(ConfigError, match="uint8 RGB"):
        chroma_noise(noise(64, 64)[..., 0])


def test_lattice_ratio_of_a_known_spectrum():
    # A grid of amplitude a on noise of deviation d: at every lattice frequency the power of the grid is
    # (a / s^2 * sum(w))^2 in the middle bin, a quarter of it in the four next to it and a sixteenth in the
    # corners (spectrum of the Hann window), 2.25 times the middle in all; noise has d^2 * sum(w^2) in each.
    scale, amplitude, deviation = 4, 20.0, 5.0
    size = 256
    rng = np.random.default_rng(0)
    grey = 128 + rng.normal(0, deviation, (size, size))
    grey[::scale, ::scale] += amplitude
    hann = np.hanning(size)
    luma_gain = 219 / 255
    peak = (luma_gain * amplitude / scale**2 * hann.sum() ** 2) ** 2 * 2.25 / 9
    floor = luma_gain**2 * deviation**2 * (hann**2).sum() ** 2
    picture = np.repeat(to_uint8(grey)[..., None], 3, axis=2)
    assert lattice_ratio(picture, scale) == pytest.approx(1 + peak / floor, rel=0.1)


def test_lattice_ratio_is_undefined_for_small_and_flat_pictures():
    assert math.isnan(lattice_ratio(noise(55, 300), 4))
    assert not math.isnan(lattice_ratio(noise(56, 300), 4))
    assert math.isnan(lattice_ratio(np.full((64, 64, 3), 77, np.uint8), 2))


def test_lattice_ratio_refuses_bad_arguments():
    with pytest.raises(ConfigError, match="scale must be 2 or more"):
        lattice_ratio(noise(64, 64), 1)
    with pytest.raises(ConfigError, match="image must be uint8 RGB"):
        lattice_ratio(noise(64, 64)[..., 0], 2)


@pytest.mark.parametrize("scale", [2, 4])
def test_photographs_and_their_bicubic_have_no_grid(scale):
    original = crop_to_multiple(data.astronaut(), 2 * scale)
    bicubic = resize_bicubic(make_low_res(original, scale), *original.shape[:2])
    assert 0.2 < lattice_ratio(original, scale) < 4
    assert 0.2 < lattice_ratio(bicubic, scale) < 4


RATIOS = {block_ratio: 8, color_block_ratio: 16}
"""Each with the side of its blocks in the JPEG."""


def add_blocks(side, period, seed, step=2.0):
    """Grey noise with blocks whose levels are independent, so that the jumps between them have either sign."""
    rng = np.random.default_rng(seed)
    number = -(-side // period)
    levels = rng.normal(0, step, (number, number, 3)).repeat(period, axis=0).repeat(period, axis=1)
    return to_uint8(128 + levels[:side, :side] + rng.normal(0, 0.7, (side, side, 3)))


@pytest.mark.parametrize("ratio", RATIOS, ids=["luma", "colour"])
def test_block_ratio_of_noise_is_about_one(ratio):
    ratios = [ratio(to_uint8(118 + noise(400, 416, seed) / 20), 2) for seed in range(12)]
    assert 0.7 < np.mean(ratios) < 1.3


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize(("ratio", "block"), RATIOS.items(), ids=["luma", "colour"])
def test_blocks_raise_the_ratio_of_their_own_period(ratio, block, scale):
    side = 9 * block * scale
    assert np.mean([ratio(add_blocks(side, block * scale, seed), scale) for seed in range(4)]) > 5
    assert np.mean([ratio(add_blocks(side, 5 * block * scale // 7, seed), scale) for seed in range(4)]) < 2


def test_the_spectrum_of_the_picture_itself_has_no_peaks_of_blocks():
    """The jumps have either sign, which is why blocks need a ratio of their own."""
    pictures = [add_blocks(480, 32, seed) for seed in range(4)]
    assert np.mean([lattice_ratio(picture, 32) for picture in pictures]) < 2
    assert np.mean([block_ratio(picture, 4) for picture in pictures]) > 5


def test_block_ratio_does_not_depend_on_where_blocks_begin():
    picture = add_blocks(420, 16, 0)
    for top, left in ((3, 0), (0, 7), (11, 5)):
        moved = picture[top : 400 + top, left : 400 + left]
        assert block_ratio(moved, 2) == pytest.approx(block_ratio(picture[:400, :400], 2), rel=0.4)


@pytest.mark.parametrize("scale", [1, 2])
def test_blocks_of_a_real_jpeg_grow_as_its_quality_falls(scale):
    low_res = make_low_res(data.astronaut(), 2)
    ratios = {}
    for quality in (95, 75, 40):
        compressed = compress_jpeg(low_res, quality)
        height, width = (scale * side for side in compressed.shape[:2])
        enlarged = resize_bicubic(compressed, height, width)
        ratios[quality] = np.array([block_ratio(enlarged, scale), color_block_ratio(enlarged, scale)])
    assert (ratios[40] > ratios[75]).all() and (ratios[75] > ratios[95]).all() and (ratios[40] > 3).all()
    clean = resize_bicubic(low_res, height, width)
    assert block_ratio(clean, scale) < 1.5 and color_block_ratio(clean, scale) < 1.5


def test_block_ratio_is_undefined_for_small_flat_and_grey_pictures():
    assert math.isnan(block_ratio(noise(96, 96), 2)) and not math.isnan(block_ratio(noise(97, 50), 2))
    assert math.isnan(color_block_ratio(noise(192, 192), 2)) and not math.isnan(color_block_ratio(noise(30, 193), 2))
    flat = np.full((200, 200, 3), 77, np.uint8)
    assert math.isnan(block_ratio(flat, 1)) and math.isnan(color_block_ratio(flat, 1))
    grey = noise(200, 200)[..., :1].repeat(3, axis=2)
    assert math.isnan(color_block_ratio(grey, 1)) and not math.isnan(block_ratio(grey, 1))


@pytest.mark.parametrize("ratio", RATIOS, ids=["luma", "colour"])
def test_block_ratio_refuses_bad_arguments(ratio):
    with pytest.raises(ConfigError, match=r"scale must be 1 or more\. Received: 0"):
        ratio(noise(64, 64), 0)
    with pytest.raises(ConfigError, match="image must be uint8 RGB"):
        ratio(noise(64, 64)[..., 0], 2)


def test_mean_scores_take_the_median_of_ratios_that_are_defined():
    pictures = [{"psnr_y": psnr, "block_ratio": ratio} for psnr, ratio in ((20, 1.0), (30, math.nan), (40, 9.0))]
    assert mean_scores(pictures) == {"psnr_y": 30, "block_ratio": 5}
    assert math.isnan(mean_scores(pictures[1:2])["block_ratio"])
