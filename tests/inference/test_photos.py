"""Photographs enlarged with what belongs to them: opacity, grey, 16 bits, free sizes, levels."""

import numpy as np
import pytest

from keras_psr.errors import ConfigError
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import match_histogram, resize_bicubic
from keras_psr.inference.photos import output_size, upscale_photo
from keras_psr.inference.upscaler import Upscaler, load


@pytest.fixture(scope="module")
def upscaler():
    """A network that is not fitted: bilinear enlargement by 4, of [0, 255] to [0, 255]."""
    from keras_psr.networks.super_resolution import build_network

    return Upscaler(build_network(scale=4, num_filters=4, num_residual_blocks=1))


def make_disc(dtype=np.uint8):
    """A white disc with a soft edge; what is transparent is black."""
    top = np.iinfo(dtype).max
    rows, columns = np.indices((24, 30)) - np.array([12, 15])[:, None, None]
    alpha = np.rint(np.clip(9 - np.hypot(rows, columns), 0, 1) * top).astype(dtype)
    pixels = np.where(alpha[..., None] > 0, top, 0).astype(dtype).repeat(3, axis=-1)
    return Photo(pixels, alpha)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_leaves_no_dark_fringe(upscaler, dtype):
    top, disc = np.iinfo(dtype).max, make_disc(dtype)
    photo = upscale_photo(upscaler, disc)
    assert photo.pixels.shape == (96, 120, 3) and photo.pixels.dtype == photo.alpha.dtype == dtype
    opacity = photo.alpha / top
    assert ((opacity > 0.1) & (opacity < 0.9)).sum() > 100
    assert photo.pixels[opacity > 0.3].min() > 0.9 * top
    naive = upscaler(disc.pixels)
    assert naive[opacity > 0.3].min() < 0.7 * top, "the test would not see a fringe"
    assert (photo.pixels[:8, :8] == 0).all()


def test_colours_under_full_transparency_are_kept(upscaler):
    photo = upscale_photo(upscaler, Photo(np.full((9, 9, 3), (1, 2, 250), np.uint8), np.zeros((9, 9), np.uint8)))
    assert (photo.pixels == (1, 2, 250)).all() and (photo.alpha == 0).all()


def test_opacity_is_bicubic_and_where_full_changes_nothing(upscaler):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    alpha = np.random.default_rng(1).integers(100, 256, (10, 12), np.uint8)
    photo = upscale_photo(upscaler, Photo(pixels, alpha))
    np.testing.assert_array_equal(photo.alpha, resize_bicubic(alpha, 40, 48))
    opaque = upscale_photo(upscaler, Photo(pixels, np.full_like(alpha, 255)))
    np.testing.assert_array_equal(opaque.pixels, upscaler(pixels))
    assert (opaque.alpha == 255).all() and opaque.alpha.shape == (40, 48)


@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_stays_grey_and_keeps_its_depth(upscaler, dtype, has_alpha):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (10, 12), dtype)
    photo = upscale_photo(upscaler, Photo(pixels, pixels if has_alpha else None))
    assert photo.pixels.shape == (40, 48) and photo.pixels.dtype == dtype
    assert (photo.alpha is not None) == has_alpha


class Tinted(Upscaler):
    """A network that gives grey a tint, as fitted ones do."""

    def __call__(self, image, **options):
        enlarged = super().__call__(image, **options)
        return enlarged if enlarged.ndim == 2 else (enlarged * (1, 0.9, 0.8)).astype(enlarged.dtype)


def encodings(grey):
    """The same grey picture of 8 bits as grey and RGB, with and without opacity, in 8 and 16 bits."""
    for levels in (grey, grey.astype(np.uint16) * 257):
        opaque = np.full_like(levels, np.iinfo(levels.dtype).max)
        for pixels in (levels, levels[..., None].repeat(3, axis=-1)):
            yield Photo(pixels)
            yield Photo(pixels, opaque)


@pytest.mark.parametrize("options", [{}, {"strength": 0.4}, {"output_scale": 3}, {"match_histogram": True}])
def test_one_picture_gives_one_result_however_it_is_stored(upscaler, options):
    tinted = Tinted(upscaler.network)
    given = list(encodings(np.random.default_rng(0).integers(0, 256, (10, 12), np.uint8)))
    results = [upscale_photo(tinted, photo, **options) for photo in given]
    for index, (photo, result) in enumerate(zip(given, results, strict=True)):
        # Levels of 8 bits are matched after rounding, where each stands for many of 16 bits.
        reference = results[4 * (index // 4) if "match_histogram" in options else 0]
        assert result.pixels.dtype == photo.pixels.dtype and result.pixels.ndim == photo.pixels.ndim
        colours = np.atleast_3d(result.pixels)
        assert (colours == colours[..., :1]).all(), "grey got a tint"
        tops = [np.iinfo(photo.pixels.dtype).max / 255 for photo in (result, reference)]
        assert np.abs(colours[..., 0] / tops[0] - reference.pixels / tops[1]).max() <= 1.5


PLACE = np.indices((48, 48))
SCREENS = {
    "checks": PLACE.sum(axis=0) % 2,
    "stripes": PLACE[1] % 2,
    "dithered": PLACE[1] / 48 > np.random.default_rng(0).random((48, 48)),
}


@pytest.mark.parametrize(("name", "shifts_alone"), [("x4", True), ("x4-fast", True), ("x2-fast", False)])
def test_screens_keep_their_brightness(name, shifts_alone):
    """With shipped networks, two of which would shift it by 4 to 16 levels."""
    shipped, shifts = load(name), []
    for kind in SCREENS:
        screen = (SCREENS[kind] * 255).astype(np.uint8)
        shifts.append(abs(shipped(screen).mean() - screen.mean()))
        for pixels in (screen, np.dstack([screen, screen.T, screen[::-1]])):
            enlarged = upscale_photo(shipped, Photo(pixels)).pixels
            assert np.abs(enlarged.mean(axis=(0, 1)) - pixels.mean(axis=(0, 1))).max() < 1, kind
    assert (max(shifts) > 3) == shifts_alone


def test_what_has_a_third_level_is_no_screen():
    screen, shipped = (SCREENS["dithered"] * 255).astype(np.uint8), load("x4-fast")
    for pixels in (screen, np.dstack([screen, screen.T, screen[::-1]])):
        photograph = np.minimum(pixels, 254)
        photograph[0, 0] = 255
        np.testing.assert_array_equal(upscale_photo(shipped, Photo(photograph)).pixels, shipped(photograph))


def test_one_coloured_pixel_is_colour(upscaler):
    pixels = np.full((10, 12, 3), 100, np.uint8)
    pixels[5, 5, 0] = 101
    colours = upscale_photo(Tinted(upscaler.network), Photo(pixels)).pixels
    assert not (colours == colours[..., :1]).all()


def test_a_quantized_file_takes_transparency_of_8_bits_only(export_tflite):
    upscaler = load(export_tflite("int8"))
    assert upscale_photo(upscaler, make_disc()).pixels.dtype == np.uint8
    with pytest.raises(ConfigError, match="16 bits"):
        upscale_photo(upscaler, make_disc(np.uint16))


def test_the_rest_of_a_photograph_goes_through(upscaler):
    given = Photo(np.zeros((3, 4, 3), np.uint8), icc_profile=b"profile", dpi=(72, 72), notes=("note",))
    photo = upscale_photo(upscaler, given)
    assert (photo.icc_profile, photo.dpi, photo.notes) == (b"profile", (72, 72), ("note",))


@pytest.mark.parametrize(("factor", "size"), [(3, (30, 36)), (1.5, (15, 18)), (6, (60, 72)), (0.5, (5, 6))])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_output_scale(upscaler, factor, size, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (10, 12, 3), dtype)
    photo = upscale_photo(upscaler, Photo(pixels, pixels[..., 0]), output_scale=factor)
    assert photo.pixels.shape == (*size, 3) and photo.alpha.shape == size and photo.pixels.dtype == dtype
    expected = resize_bicubic(upscaler(pixels).astype(np.float32), *size)
    plain = upscale_photo(upscaler, Photo(pixels), output_scale=factor).pixels
    assert np.abs(plain - expected.clip(0, np.iinfo(dtype).max)).max() <= (1.1 if dtype == np.uint8 else 0.51)


def test_output_sizes_are_rounded_and_never_zero():
    assert output_size(10, 13, 1.5) == (15, 20) and output_size(1, 1, 0.1) == (1, 1)


def test_output_scales_out_of_range_are_refused(upscaler):
    for wrong in (0, -1, 17):
        with pytest.raises(ConfigError, match="output_scale must be above 0, at most 16"):
            upscale_photo(upscaler, make_disc(), output_scale=wrong or -0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_matched_histograms_are_those_of_scikit_image(dtype, channels):
    from skimage.exposure import match_histograms

    generator = np.random.default_rng(0)
    image = generator.integers(0, 200, (300, 7, *channels)).astype(dtype)
    reference = (generator.beta(2, 5, (11, 13, *channels)) * np.iinfo(dtype).max).astype(dtype)
    matched = match_histogram(image, reference)
    assert matched.dtype == dtype
    expected = match_histograms(image, reference, channel_axis=-1 if channels else None)
    assert np.abs(matched - expected.astype(float)).max() <= 1
    np.testing.assert_array_equal(match_histogram(reference, reference), reference)


def test_match_histogram_takes_a_colour_cast_away(upscaler):
    class Shifted(Upscaler):
        def __call__(self, image, **options):
            return np.minimum(super().__call__(image, **options), 225) + np.uint8(30)

    cast, pixels = Shifted(upscaler.network), np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    matched = upscale_photo(cast, Photo(pixels), match_histogram=True).pixels
    plain = upscale_photo(cast, Photo(pixels)).pixels
    assert abs(matched.mean() - pixels.mean()) < 2 < abs(plain.mean() - pixels.mean())
