import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage
from scipy.fft import dctn
from skimage import data

import keras_psr.data.degradation as module
from keras_psr.data.degradation import degrade, named_degradation
from keras_psr.errors import ConfigError
from keras_psr.images.pixels import make_low_res

STEPS = ("BLUR", "NOISE", "SHARPENING", "JPEG")


def draw(seed):
    return np.random.default_rng(seed)


def grey(level, side=64):
    return np.full((side, side, 3), level, np.uint8)


@pytest.fixture
def photograph():
    return data.astronaut()[:128, 160:352]


@pytest.fixture
def only(monkeypatch):
    """Leaves only some of the steps after the reduction, and makes them certain."""

    def keep(*steps):
        monkeypatch.setattr(module, "CLEAN_PROBABILITY", 0)
        for step in STEPS:
            monkeypatch.setattr(module, f"{step}_PROBABILITY", int(step in steps))

    return keep


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_size_and_type_are_those_of_make_low_res(scale, photograph):
    image = photograph[:101, :93]
    for seed in range(8):
        result = degrade(image, scale, draw(seed))
        assert result.shape == make_low_res(image, scale).shape == (101 // scale, 93 // scale, 3)
        assert result.dtype == np.uint8


def test_the_generator_decides_everything(photograph):
    results = [degrade(photograph, 4, draw(seed)).tobytes() for seed in range(30)]
    assert results == [degrade(photograph, 4, draw(seed)).tobytes() for seed in range(30)]
    is_clean = [result == make_low_res(photograph, 4).tobytes() for result in results]
    assert len(set(results)) == 30 - max(0, sum(is_clean) - 1)
    before = photograph.copy()
    degrade(photograph, 4, draw(0))
    np.testing.assert_array_equal(photograph, before)


def test_a_fifth_of_all_pictures_is_clean(photograph):
    clean = make_low_res(photograph, 4)
    errors = np.array([np.abs(degrade(photograph, 4, draw(seed)).astype(float) - clean).mean() for seed in range(400)])
    number, expected = (errors == 0).sum(), 400 * module.CLEAN_PROBABILITY
    assert abs(number - expected) < 3 * np.sqrt(expected * (1 - module.CLEAN_PROBABILITY))
    assert 2 < np.median(errors[errors > 0]) < 9 and errors.max() < 25


def test_without_its_steps_it_is_a_reduction_by_one_of_four_kernels(photograph, only):
    only()
    results = [degrade(photograph, 4, draw(seed)).astype(int) for seed in range(30)]
    assert len({result.tobytes() for result in results}) == 4
    bicubic = make_low_res(photograph, 4).astype(int)
    assert min(np.abs(result - bicubic).max() for result in results) <= 2  # rounded in another order


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_reductions_keep_a_ramp_where_it_is(scale, only):
    """Symmetric kernels keep straight lines: the value at each pixel is that at its centre in the original."""
    only()
    ramp = np.broadcast_to(np.arange(192, dtype=np.uint8)[:, None], (192, 192))
    image = np.stack([ramp, ramp.T, ramp], axis=-1)
    centres = scale * np.arange(192 // scale) + (scale - 1) / 2
    for seed in range(20):
        result = degrade(image, scale, draw(seed))[3:-3, 3:-3]
        inside = centres[3:-3]
        assert np.abs(result[..., 0] - inside[:, None]).max() <= 1
        assert np.abs(result[..., 1] - inside[None, :]).max() <= 1


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


def test_blur_widens_an_edge_by_its_variance_along_each_axis():
    """The differences along a blurred step are the kernel, whose variance is that of the Gaussian."""
    vertical = np.repeat(np.repeat(np.uint8([[0, 250]]), 16, axis=1), 32, axis=0)[..., None].repeat(3, axis=-1)
    kinds = []
    for seed in range(60):
        generator = draw(seed)
        across, down = generator.uniform(*module.BLUR_SIGMA, 2)
        is_round = generator.random() < module.ROUND_BLUR_PROBABILITY
        kinds.append(is_round)
        for edge, sigma in ((vertical, across), (np.swapaxes(vertical, 0, 1), across if is_round else down)):
            blurred = module._blur(np.ascontiguousarray(edge), draw(seed)).astype(float)[..., 0]
            line = blurred[16] if edge is vertical else blurred[:, 16]
            kernel, positions = np.diff(line) / 250, np.arange(31) - 15
            assert (kernel * positions).sum() == pytest.approx(0, abs=0.03)
            assert (kernel * positions**2).sum() == pytest.approx(sigma**2, abs=0.04)
    assert 30 < kinds.count(True) < 55


def test_noise_is_even_or_grows_with_the_root_of_the_level():
    kinds = {"even": [], "shot": []}
    for seed in range(80):
        low, high = (module._make_noise(grey(level), draw(seed)).std() for level in (36, 225))
        assert abs(module._make_noise(grey(225), draw(seed)).mean()) < 0.2 * high
        kind = "even" if np.isclose(low, high) else "shot"
        if kind == "shot":
            assert high / low == pytest.approx(np.sqrt(225 / 36))
        kinds[kind].append(high if kind == "even" else high / np.sqrt(225))
    assert min(map(len, kinds.values())) > 20
    for kind, (smallest, largest) in {"even": module.NOISE_SIGMA, "shot": module.SHOT_NOISE}.items():
        assert min(kinds[kind]) > 0.95 * smallest and max(kinds[kind]) < 1.05 * largest
        assert max(kinds[kind]) > 0.8 * largest


def test_noise_is_coloured_or_grey():
    noises = [grey(100, 8) + module._make_noise(grey(100, 8), draw(seed)) for seed in range(100)]
    assert 25 < sum(np.ptp(noise, axis=-1).max() == 0 for noise in noises) < 55


def test_sharpening_adds_what_a_blur_takes_away(photograph):
    image = np.clip(photograph, 60, 200)  # so that nothing is clipped afterwards
    for seed in range(10):
        generator = draw(seed)
        sigma, percent = generator.uniform(*module.SHARPENING_SIGMA), generator.uniform(*module.SHARPENING_PERCENT)
        blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)), float)
        expected = np.clip(image + percent / 100 * (image - blurred), 0, 255)
        assert np.abs(module._sharpen(image, draw(seed)) - expected).max() < 1.5


def test_a_crop_depends_on_no_more_than_its_margin(only):
    only("BLUR", "SHARPENING")
    image = data.astronaut()[:48, 200:260]
    changed, border = image.copy(), 30
    changed[:, border:] = 0
    for seed in range(40):
        one, other = (module.degrade_reduced(picture, draw(seed)) for picture in (image, changed))
        np.testing.assert_array_equal(one[:, : border - module.MARGIN], other[:, : border - module.MARGIN])


@pytest.mark.parametrize("scale", [2, 4])
def test_a_kernel_reaches_no_further_than_stated(scale):
    image = data.astronaut()[:96, 200:320]
    changed, border = image.copy(), 60
    changed[:, border:] = 0
    unchanged = border // scale - module.KERNEL_REACH
    for kernel in module.REDUCTIONS:
        one, other = (module.reduce(picture, scale, kernel) for picture in (image, changed))
        np.testing.assert_array_equal(one[:, :unchanged], other[:, :unchanged])


def test_reductions_mirror_the_picture():
    image = data.astronaut()[:64, 200:264]
    mirrored = np.pad(image, [(32, 32), (32, 32), (0, 0)], mode="symmetric")
    for kernel in module.REDUCTIONS:
        np.testing.assert_array_equal(module.reduce(mirrored, 4, kernel)[8:-8, 8:-8], module.reduce(image, 4, kernel))


def test_jpeg_is_the_last_step(only, photograph, monkeypatch):
    only(*STEPS)
    monkeypatch.setattr(module, "_compress", lambda image, _: np.full_like(image, 7))
    assert {level for seed in range(10) for level in np.unique(degrade(photograph, 4, draw(seed)))} == {7}


def test_a_part_of_all_jpegs_was_compressed_before(only, photograph, monkeypatch):
    only("JPEG")
    calls = []
    monkeypatch.setattr(module, "_compress", lambda image, _: calls.append(1) or image)
    for seed in range(300):
        degrade(photograph, 4, draw(seed))
    assert 0.12 < len(calls) / 300 - 1 < 0.28


def count_small_cosines(luma):
    """Share of a block's cosines near zero, over all blocks of 8x8."""
    rows, columns = (side // 8 for side in luma.shape)
    blocks = luma[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8)
    return (np.abs(dctn(blocks, axes=(1, 3), norm="ortho")) < 1.5).mean()


def test_jpeg_is_really_applied(photograph):
    """JPEG quantizes what it transforms: a block's cosines gather at zero, at one place of the grid of 8."""
    luma = (0.299, 0.587, 0.114)
    places = set()
    for seed in range(12):
        compressed = module._compress(photograph, draw(seed)) @ luma
        top, left = draw(seed).integers(module.JPEG_BLOCK, size=2)
        places.add((top % 8, left % 8))
        shares = {
            (row, column): count_small_cosines(compressed[row:, column:]) for row in (0, 4) for column in range(8)
        }
        inside = count_small_cosines(compressed[(8 - top) % 8 :, (8 - left) % 8 :])
        assert inside >= max(shares.values())
        assert inside > count_small_cosines(photograph[(8 - top) % 8 :, (8 - left) % 8 :] @ luma)
    assert len(places) > 8


def test_qualities_are_spread_evenly_and_colour_is_mostly_halved(photograph, monkeypatch):
    drawn = []
    monkeypatch.setattr(module, "compress_jpeg", lambda image, *drawing: drawn.append(drawing) or image)
    for seed in range(600):
        assert module._compress(photograph, draw(seed)).shape == photograph.shape
    qualities, subsamplings = zip(*drawn, strict=True)
    assert min(qualities) == 40 and max(qualities) == 95
    np.testing.assert_allclose(np.histogram(qualities, 4, (39.5, 95.5))[0] / 600, 0.25, atol=0.06)
    assert set(subsamplings) == {"4:2:0", "4:4:4"}
    assert subsamplings.count("4:4:4") / 600 == pytest.approx(module.FULL_COLOUR_PROBABILITY, abs=0.06)


def test_compress_jpeg_is_what_a_file_holds(photograph):
    for quality, subsampling in ((60, "4:2:0"), (90, "4:4:4")):
        file = io.BytesIO()
        Image.fromarray(photograph).save(file, "JPEG", quality=quality, subsampling=subsampling)
        expected = np.asarray(Image.open(file))
        np.testing.assert_array_equal(module.compress_jpeg(photograph, quality, subsampling), expected)
    colours = np.repeat(np.uint8([[[255, 0, 0], [0, 0, 255]]]), 32, axis=0).repeat(16, axis=1)[:, ::-1]
    stripes = colours[:, ::16][:, np.arange(32) % 2]  # one pixel wide, and so too narrow for halved colour
    errors = [
        np.abs(module.compress_jpeg(stripes, 95, subsampling).astype(int) - stripes).mean()
        for subsampling in ("4:2:0", "4:4:4")
    ]
    assert errors[0] > 60 > 20 > errors[1]


def test_a_small_picture_is_extended_as_far_as_it_takes():
    for seed in range(20):
        assert degrade(np.full((8, 9, 3), 77, np.uint8), 8, draw(seed)).shape == (1, 1, 3)


def test_named_degradations_are_what_they_say(photograph):
    clean = make_low_res(photograph, 4)
    np.testing.assert_array_equal(named_degradation("bicubic")(photograph, 4), clean)
    np.testing.assert_array_equal(named_degradation("jpeg:60")(photograph, 4), module.compress_jpeg(clean, 60))
    blurred = ndimage.gaussian_filter(clean.astype(float), (0.8, 0.8, 0), mode="nearest")
    assert np.abs(named_degradation("blur:0.8")(photograph, 4) - blurred).mean() < 1.5
    noisy = named_degradation("noise:7")(np.full((512, 512, 3), 100, np.uint8), 2)
    assert noisy.mean() == pytest.approx(100, abs=0.1) and noisy.std() == pytest.approx(7, rel=0.02)


@pytest.mark.parametrize("name", ["photo", "noise:10"])
def test_named_degradations_are_seeded_by_the_picture(name, photograph):
    make = named_degradation(name)
    other = photograph.copy()
    other[0, 0] += 1
    np.testing.assert_array_equal(make(photograph, 4), named_degradation(name)(photograph.copy(), 4))
    assert (make(photograph, 4) != make(other, 4)).mean() > 0.2


def test_photo_is_degrade_for_some_seed(photograph):
    parts = [photograph[top : top + 64, left : left + 64] for top in (0, 64) for left in range(0, 128, 2)]
    is_clean = [(named_degradation("photo")(part, 4) == make_low_res(part, 4)).all() for part in parts]
    assert 0.08 < np.mean(is_clean) < 0.35


@pytest.mark.parametrize("name", ["", "jpeg", "jpeg:0", "jpeg:75.5", "jpeg:x", "noise:-1", "noise:inf", "blur:0"])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match=r"degradation must be bicubic, photo, jpeg:QUALITY .*\. Received: '"):
        named_degradation(name)
