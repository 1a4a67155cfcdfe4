"""The texture distance, from the Fréchet distance of two normal distributions to the whole computation in NumPy."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from skimage import data

from keras_psr.errors import DataError
from keras_psr.losses.vgg import BUNDLED_WEIGHTS, build_vgg
from keras_psr.tasks.super_resolution.texture import (
    TEXTURE_TAP,
    PatchStatistics,
    describe_patches,
    frechet_distance,
    texture_distance,
)


@pytest.fixture(scope="module")
def vgg():
    return build_vgg((TEXTURE_TAP,))


@pytest.fixture(scope="module")
def originals():
    """Parts of three photographs, of 128x128 and 144x160 pixels, with 16 to 20 patches each."""
    return [data.astronaut()[:128, 160:288], data.coffee()[100:228, 200:328], data.chelsea()[80:224, 100:260]]


def gather(*pictures):
    statistics = PatchStatistics()
    for patches in pictures:
        statistics.add(patches)
    return statistics


def random_covariance(generator, size=40):
    factor = generator.normal(size=(size, size))
    return factor @ factor.T


def test_normal_distributions_with_independent_numbers():
    # Along each axis, the distance of two normal distributions is (m1 - m2)² + (s1 - s2)².
    mean, other = np.array([0.0, 1.0, 5.0]), np.array([3.0, 1.0, 4.0])
    deviation, other_deviation = np.array([1.0, 2.0, 0.0]), np.array([1.5, 2.0, 0.25])
    expected = 9 + 0 + 1 + 0.25 + 0 + 0.0625
    found = frechet_distance(mean, np.diag(deviation**2), other, np.diag(other_deviation**2))
    assert found == pytest.approx(expected, rel=1e-12)


def test_normal_distributions_by_scipys_root_of_a_matrix():
    generator = np.random.default_rng(0)
    first, second = random_covariance(generator), random_covariance(generator)
    mean, other = generator.normal(size=(2, 40))
    expected = np.sum((mean - other) ** 2) + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(mean, first, other, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, second, mean, first) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(mean, first, mean, first) == pytest.approx(0, abs=1e-9)


def test_normal_distributions_on_two_lines():
    # C1 = u u' and C2 = v v', whose product has one eigenvalue, (u'v)², and no root that sqrtm finds.
    u, v = np.array([3.0, 0.0, 4.0]), np.array([0.0, 2.0, 1.0])
    expected = 25 + 5 - 2 * abs(u @ v)
    assert frechet_distance(u, np.outer(u, u), u, np.outer(v, v)) == pytest.approx(expected, rel=1e-7)


def test_statistics_gathered_by_picture_are_those_of_all_patches():
    rows = np.random.default_rng(0).normal(1e4, 1, (50, 6)) * [1, 2, 3, 4, 5, 6]
    statistics = gather(rows[:1], rows[1:30], rows[:0], rows[30:])
    assert statistics.count == 50
    np.testing.assert_allclose(statistics.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(rows.T), rtol=1e-8, atol=1e-8)


def test_patches_are_described_by_mean_and_deviation():
    responses = np.random.default_rng(0).exponential(100, (17, 31, 4)).astype(np.float32)
    expected = []
    for top in (0, 8):
        for left in (0, 8, 16):  # one row at the bottom, and seven columns at the right, fill no patch
            channels = [responses[top : top + 8, left : left + 8, channel].astype(float) for channel in range(4)]
            means = [channel.sum() / 64 for channel in channels]
            variances = [((channel - mean) ** 2).sum() / 64 for channel, mean in zip(channels, means, strict=True)]
            expected.append([*means, *np.sqrt(variances)])
    found = describe_patches(responses)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(7, 40), (40, 7), (7, 7)])
def test_a_picture_smaller_than_a_patch_has_none(size):
    patches = describe_patches(np.ones((*size, 5), np.float32))
    assert patches.shape == (0, 10)
    assert gather(patches).count == 0


def test_the_originals_spread_is_the_unit():
    rows = np.random.default_rng(0).normal(size=(2000, 8)) @ np.random.default_rng(1).normal(size=(8, 8))
    spread, wide = rows.std(0, ddof=1), rows.mean(0) + 3 * (rows - rows.mean(0))
    originals = gather(rows)
    assert texture_distance(originals, originals) == pytest.approx(0, abs=1e-9)
    # Another mean: each number is shifted by half its spread.
    assert texture_distance(gather(rows + 0.5 * spread), originals) == pytest.approx(8 * 0.5**2, rel=1e-9)
    # Three times as wide: (3 - 1)² for each of the eight numbers. Seen from there, the unit is three times as long.
    assert texture_distance(gather(wide), originals) == pytest.approx(8 * 2**2, rel=1e-9)
    assert texture_distance(originals, gather(wide)) == pytest.approx(8 * (2 / 3) ** 2, rel=1e-9)
    # The responses' own units do not count.
    units = np.array([1, 1e3, 1e-3, 7, 1, 1, 50, 2])
    assert texture_distance(gather(wide * units), gather(rows * units)) == pytest.approx(8 * 2**2, rel=1e-9)


def test_fewer_than_2000_patches_are_refused():
    rows = np.random.default_rng(0).normal(size=(2000, 3))
    enough, few = gather(rows), gather(rows[:1999])
    assert texture_distance(enough, enough) == pytest.approx(0, abs=1e-9)
    for pair in ((few, enough), (enough, few), (few, few)):
        with pytest.raises(DataError, match=r"needs 2,000 patches of 32x32 pixels, because .* Received: 1,999\. Score"):
            texture_distance(*pair)
    with pytest.raises(DataError, match=r"Received: 0\."):
        texture_distance(PatchStatistics(), PatchStatistics())


def test_originals_that_are_all_alike_are_refused():
    rows = np.random.default_rng(0).normal(3, 1, (2000, 4))
    rows[:, 1], rows[:, 3] = 0.1, 0
    with pytest.raises(DataError, match="Received: 2 of 4 numbers that are the same"):
        texture_distance(gather(rows[:700], rows[700:]), gather(rows[:700], rows[700:]))


def relu3_3_by_numpy(image, weights):
    """VGG16 as published: BGR without the mean colour, 3x3 convolutions with zeros around, maxima of 2x2."""
    values = image[..., ::-1] - np.array([103.939, 116.779, 123.68])
    for block, convolutions in ((1, 2), (2, 2), (3, 3)):
        if block > 1:
            height, width, channels = values.shape
            values = values[: height // 2 * 2, : width // 2 * 2]
            values = values.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
        for convolution in range(1, convolutions + 1):
            kernel, bias = (weights[f"block{block}_conv{convolution}/{part}"] for part in ("kernel", "bias"))
            height, width = values.shape[:2]
            padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
            shifts = ((row, column) for row in range(3) for column in range(3))
            summed = sum(padded[r : r + height, c : c + width] @ kernel[r, c].astype(float) for r, c in shifts)
            values = np.maximum(summed + bias, 0)
    return values


def patches_by_loops(image, weights):
    responses = relu3_3_by_numpy(image.astype(float), weights)
    rows = []
    for top in range(0, responses.shape[0] - 7, 8):
        for left in range(0, responses.shape[1] - 7, 8):
            patch = responses[top : top + 8, left : left + 8].reshape(64, 256)
            rows.append(np.concatenate([patch.mean(0), patch.std(0)]))
    return rows


def test_the_whole_computation_in_numpy(vgg, originals):
    from importlib.resources import files

    weights = np.load(str(files("keras_psr") / "losses" / "weights" / BUNDLED_WEIGHTS))
    blurred = [np.rint(gaussian_filter(image.astype(float), (1, 1, 0))).astype(np.uint8) for image in originals]
    first, second = (
        np.array([patch for image in images for patch in patches_by_loops(image, weights)])
        for images in (blurred, originals)
    )
    assert first.shape == second.shape == (16 + 16 + 20, 512)
    spread = second.std(axis=0)
    first, second = first / spread, second / spread
    # tr (C1 C2)^(1/2) is the nuclear norm of X1 X2' / (n - 1), where the rows of X are patches without their mean.
    centred = [rows - rows.mean(0) for rows in (first, second)]
    overlap = np.linalg.norm(centred[0] @ centred[1].T, "nuc") / 51
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) - 2 * overlap
    expected += sum(rows.var(axis=0, ddof=1).sum() for rows in (first, second))

    found = [gather(*(describe(vgg, image) for image in images)) for images in (blurred, originals)]
    # The unit is above the standard deviation with 52 under the root, and in the code that with 51.
    assert texture_distance(*found, at_least=2) == pytest.approx(expected * 51 / 52, rel=1e-3)


def describe(vgg, image):
    return describe_patches(np.asarray(vgg(image[None].astype(np.float32))[TEXTURE_TAP][0]))


def test_noise_and_blur_increase_it(vgg, originals):
    noise = np.random.default_rng(0).normal(0, 1, (200, 200, 3))
    unchanged = gather(*(describe(vgg, image) for image in originals))

    def measure(change):
        changed = [np.clip(np.rint(change(image.astype(float))), 0, 255) for image in originals]
        return texture_distance(gather(*(describe(vgg, image) for image in changed)), unchanged, at_least=2)

    noisy = [measure(lambda image, s=s: image + s * noise[: image.shape[0], : image.shape[1]]) for s in (0, 4, 8, 16)]
    blurred = [measure(lambda image, s=s: gaussian_filter(image, (s, s, 0))) for s in (0, 0.5, 1, 2)]
    for distances in (noisy, blurred):
        assert distances[0] == pytest.approx(0, abs=1e-6)
        assert np.all(np.diff(distances) > 1)
