import numpy as np
import pytest
from scipy import ndimage
from skimage import data

import keras_psr.data.degradation
from keras_psr.data.degradation import (
    BLUR_SIGMA,
    MAX_BLUR_REACH,
    NOISE_SIGMA,
    ROUND_BLUR_PROBABILITY,
    SHOT_NOISE,
    degrade,
)
from keras_psr.images.pixels import make_low_res


def draw(seed):
    return np.random.default_rng(seed)


def grey(level, side=64):
    return np.full((side, side, 3), level, np.float32)


@pytest.fixture
def photograph():
    return data.astronaut()[:128, 160:352]


@pytest.fixture
def only(monkeypatch):
    """Leaves one step beside the reduction, and lets it always happen."""

    def keep(step):
        monkeypatch.setattr(keras_psr.data.degradation, "STEP_PROBABILITY", 1)
        for other in {"_blur", "_make_noise", "_compress"} - {step}:
            neutral = (lambda image, *_: np.zeros_like(image)) if other == "_make_noise" else (lambda image, *_: image)
            monkeypatch.setattr(keras_psr.data.degradation, other, neutral)

    return keep


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_size_and_type_are_those_of_make_low_res(scale, photograph):
    image = photograph[:101, :93]
    for seed in range(8):
        result = degrade(image, scale, draw(seed))
        assert result.shape == make_low_res(image, scale).shape == (101 // scale, 93 // scale, 3)
        assert result.dtype == np.uint8


def test_the_generator_decides_everything(photograph):
    results = [degrade(photograph, 4, draw(seed)).tobytes() for seed in range(20)]
    assert results == [degrade(photograph, 4, draw(seed)).tobytes() for seed in range(20)]
    assert len(set(results)) == 20
    before = photograph.copy()
    degrade(photograph, 4, draw(0))
    np.testing.assert_array_equal(photograph, before)


def test_without_its_steps_it_is_make_low_res(photograph, monkeypatch):
    monkeypatch.setattr(keras_psr.data.degradation, "STEP_PROBABILITY", 0)
    difference = degrade(photograph, 4, draw(0)).astype(int) - make_low_res(photograph, 4)
    assert np.abs(difference).max() <= 1  # bytes are rounded once more between rows and columns


def test_some_pictures_pass_with_one_step_or_none(photograph):
    clean = make_low_res(photograph, 4).astype(float)
    errors = [np.abs(degrade(photograph, 4, draw(seed)) - clean).mean() for seed in range(200)]
    assert min(errors) < 0.5 and 1 < np.median(errors) < 6 and max(errors) < 15


def test_the_mean_level_is_kept(photograph):
    clean = make_low_res(photograph, 4).mean(axis=(0, 1))
    means = np.mean([degrade(photograph, 4, draw(seed)).mean(axis=(0, 1)) for seed in range(60)], axis=0)
    np.testing.assert_allclose(means, clean, atol=0.5)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("place", [(30, 30), (33, 41)])
def test_nothing_moves(scale, place):
    """The centre of mass of a soft spot, which bicubic leaves where it is, over many draws."""
    offsets = np.indices((72, 72)) - np.array(place)[:, None, None]
    spot = 40 + 170 * np.exp(-(offsets**2).sum(axis=0) / (2 * 6**2))
    image = np.repeat(spot[..., None], 3, axis=-1).astype(np.uint8)

    def centre(low_res):
        return ndimage.center_of_mass(np.clip(low_res.mean(axis=-1) - 60, 0, None))

    expected = centre(make_low_res(image, scale).astype(float))
    np.testing.assert_allclose(scale * np.array(expected) + (scale - 1) / 2, place, atol=0.1)
    found = np.array([centre(degrade(image, scale, draw(seed)).astype(float)) for seed in range(200)])
    np.testing.assert_allclose(found.mean(axis=0), expected, atol=0.05)


def gaussian_kernel(sigmas, angle, reach):
    """A sampled Gaussian, its first axis turned by the angle from the rows' direction towards the columns'."""
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    kernel = np.exp(-(along**2) / (2 * sigmas[0] ** 2) - across**2 / (2 * sigmas[1] ** 2))
    return kernel / kernel.sum()


def test_blur_is_a_convolution_with_a_round_or_turned_gaussian():
    image, unit = data.astronaut()[:48, 200:264].astype(np.float32), 4
    kinds = []
    for seed in range(40):
        generator = draw(seed)
        sigmas = generator.uniform(*BLUR_SIGMA, 2) * unit
        assert unit * BLUR_SIGMA[0] <= sigmas.min() <= sigmas.max() <= unit * BLUR_SIGMA[1]
        is_round = generator.random() < ROUND_BLUR_PROBABILITY
        if is_round:
            sigmas[1] = sigmas[0]
        if sigmas.min() < 1.2:  # a Gaussian about as narrow as the pixels' distance is no longer one when sampled
            continue
        kernel = gaussian_kernel(sigmas, generator.uniform(0, np.pi), reach=20)
        expected = ndimage.convolve(image, kernel[..., None], mode="reflect")
        np.testing.assert_allclose(keras_psr.data.degradation._blur(image, unit, draw(seed)), expected, atol=0.05)
        kinds.append(is_round)
    assert kinds.count(True) > 5 and kinds.count(False) > 2


def test_a_blur_reaches_no_further_than_stated():
    image = data.astronaut()[:96, 200:296].astype(np.float32)
    changed, reach = image.copy(), 4 * MAX_BLUR_REACH
    changed[:, 48:] = 0
    for seed in range(20):
        one, other = (keras_psr.data.degradation._blur(picture, 4, draw(seed)) for picture in (image, changed))
        assert np.abs(one - other)[:, : 48 - reach].max() < 0.2


def test_noise_is_even_or_grows_with_the_root_of_the_level():
    kinds = {"even": [], "shot": []}
    for seed in range(80):
        low, high = (keras_psr.data.degradation._make_noise(grey(level), draw(seed)).std() for level in (36, 225))
        assert abs(keras_psr.data.degradation._make_noise(grey(225), draw(seed)).mean()) < 0.2 * high
        kind = "even" if np.isclose(low, high) else "shot"
        if kind == "shot":
            assert high / low == pytest.approx(np.sqrt(225 / 36))
        kinds[kind].append(high if kind == "even" else high / np.sqrt(225))
    assert min(map(len, kinds.values())) > 20
    for kind, (smallest, largest) in {"even": NOISE_SIGMA, "shot": SHOT_NOISE}.items():
        assert min(kinds[kind]) > 0.95 * smallest and max(kinds[kind]) < 1.05 * largest
        assert max(kinds[kind]) > 0.8 * largest


def test_noise_is_coloured_or_grey():
    noises = [grey(100, 8) + keras_psr.data.degradation._make_noise(grey(100, 8), draw(seed)) for seed in range(100)]
    assert 25 < sum(np.ptp(noise, axis=-1).max() == 0 for noise in noises) < 55


def test_jpeg_is_really_applied(only, photograph):
    """JPEG quantizes what it transforms: a block's cosines gather at few values, at one place of the grid."""
    only("_compress")
    compressed = keras_psr.data.degradation._compress(photograph.astype(np.float32), draw(0))
    top, left = draw(0).integers(keras_psr.data.degradation.JPEG_BLOCK, size=2)
    inside = compressed[(8 - top) % 8 :, (8 - left) % 8 :] @ (0.299, 0.587, 0.114)
    original = photograph[(8 - top) % 8 :, (8 - left) % 8 :] @ (0.299, 0.587, 0.114)

    def count_nothing(luma):
        """Share of cosines near zero, over all blocks."""
        from scipy.fft import dctn

        rows, columns = (side // 8 for side in luma.shape)
        blocks = luma[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8)
        return (np.abs(dctn(blocks, axes=(1, 3), norm="ortho")) < 1.5).mean()

    assert count_nothing(inside) > count_nothing(original) + 0.1
    assert count_nothing(inside) > count_nothing(inside[4:, 4:]) + 0.1
    assert 0.5 < np.abs(compressed - photograph).mean() < 10
    differences = [
        np.abs(degrade(photograph, 4, draw(seed)).astype(float) - make_low_res(photograph, 4)).mean()
        for seed in range(20)
    ]
    assert min(differences) > 0.3


def test_a_small_picture_is_extended_as_far_as_it_takes():
    for seed in range(20):
        assert degrade(np.full((8, 9, 3), 77, np.uint8), 8, draw(seed)).shape == (1, 1, 3)
