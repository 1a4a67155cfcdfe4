"""Pictures of any size painted with strokes of one size: reduced, painted, enlarged."""

import numpy as np
import pytest

import keras_psr
from keras_psr.errors import ConfigError
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import resize_bicubic, to_uint8
from keras_psr.inference.painting import ENLARGERS, Painter
from keras_psr.inference.photos import upscale_photo


class Recorder:
    """A painter or an enlarger that needs no network: inverts, or repeats pixels, and records what it was given."""

    def __init__(self, scale=1, takes_16_bits=True):
        self.scale, self.takes_16_bits, self.given = scale, takes_16_bits, []

    def __call__(self, image, *, strength=1.0, on_pixels=lambda pixels: None):
        self.given.append((image.shape, image.dtype, strength))
        on_pixels(image.shape[0] * image.shape[1] * self.scale**2)
        if self.scale > 1:
            return image.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        mixed = strength * (np.iinfo(image.dtype).max - image.astype(float)) + (1 - strength) * image
        return np.rint(mixed).astype(image.dtype)


@pytest.fixture
def loaded():
    """Maps the names of the enlargers that a painter loads to recorders."""
    return {}


@pytest.fixture
def make_painter(loaded):
    def load(name):
        scale = next(scale for scale, network in ENLARGERS.items() if name.removesuffix("_int8") == network)
        return loaded.setdefault(name, Recorder(scale))

    return lambda painter, paint_size=20, **options: Painter(painter, paint_size, load_enlarger=load, **options)


def ramp(height, width, dtype=np.uint8):
    """A smooth colour picture, which survives being reduced."""
    rows, columns = np.linspace(0.1, 0.6, height), np.linspace(0, 0.3, width)
    levels = np.stack([rows[:, None] + columns, rows[:, None] - 0 * columns, rows[::-1, None] + columns], axis=-1)
    return np.rint(levels * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize(
    ("size", "painted", "enlargers"),
    [
        ((20, 33), (20, 33), []),
        ((7, 90), (7, 90), []),
        ((21, 35), (20, 33), ["x2-fast"]),
        ((40, 60), (20, 30), ["x2-fast"]),
        ((60, 41), (29, 20), ["x4-photo"]),
        ((257, 301), (20, 23), ["x4-photo"]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("is_grey", [False, True])
def test_what_is_larger_is_painted_at_the_paint_size_and_gets_its_own_size_back(
    make_painter, loaded, size, painted, enlargers, dtype, is_grey
):
    network, image = Recorder(), ramp(*size, dtype)
    image = image[..., 0] if is_grey else image
    result = make_painter(network)(image)
    assert result.shape == image.shape and result.dtype == dtype
    assert [(shape[:2], kind) for shape, kind, _ in network.given] == [(painted, dtype)]
    assert list(loaded) == enlargers
    inverted, top = np.iinfo(dtype).max - image.astype(float), np.iinfo(dtype).max
    assert np.abs(result - inverted).max() < 0.05 * top


def test_a_paint_size_of_0_leaves_everything_to_the_network(make_painter, loaded):
    network, image = Recorder(), ramp(100, 120)
    np.testing.assert_array_equal(make_painter(network, 0)(image, strength=0.3), Recorder()(image, strength=0.3))
    assert not loaded and network.given == [((100, 120, 3), np.uint8, 0.3)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strength_mixes_with_the_picture_at_its_full_size(make_painter, dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (300, 90, 3), dtype)
    paint = make_painter(Recorder())
    np.testing.assert_array_equal(paint(image, strength=0.0), image)
    half = (paint(image).astype(float) + image) / 2
    assert np.abs(paint(image, strength=0.5) - half).max() <= 0.51


def test_a_quantized_style_is_enlarged_by_a_quantized_network(make_painter, loaded):
    make_painter(Recorder(takes_16_bits=False))(ramp(100, 100))
    make_painter(Recorder(takes_16_bits=False))(ramp(30, 30))
    assert list(loaded) == ["x4-photo_int8", "x2-fast_int8"]


def test_progress_adds_up_to_the_pixels_of_the_result(make_painter):
    class Optimizer(Recorder):
        def __call__(self, image, *, strength, on_pixels):
            for _ in range(49):
                on_pixels(image.shape[0] * image.shape[1])
            return super().__call__(image, strength=strength, on_pixels=on_pixels)

    for network, passes in ((Recorder(), 1), (Optimizer(), 50)):
        counted = []
        make_painter(network, passes=passes)(ramp(100, 120), on_pixels=counted.append)
        assert 0 < 100 * 120 * passes - sum(counted) + 1 <= 2 * len(counted)


def test_colours_are_kept_at_full_size(make_painter):
    """Fine colour, which the small painting cannot hold, comes from the photo; brightness comes from the painting."""
    stripes = np.full((80, 80, 3), 100, np.uint8)
    stripes[:, ::2, 0] += 40
    photo = upscale_photo(make_painter(Recorder()), Photo(stripes), preserve_colors=True).pixels.astype(int)
    np.testing.assert_array_equal(photo[..., 0] - photo[..., 1], stripes[..., 0].astype(int) - stripes[..., 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_belongs_to_a_photo_stays(make_painter, dtype):
    top = np.iinfo(dtype).max
    alpha = ramp(90, 70, dtype)[..., 0]
    alpha[:40] = 0
    given = Photo(ramp(90, 70, dtype), alpha, icc_profile=b"profile", dpi=(72, 72))
    photo = upscale_photo(make_painter(Recorder()), given)
    np.testing.assert_array_equal(photo.alpha, alpha)
    np.testing.assert_array_equal(photo.pixels[:40], given.pixels[:40])
    assert photo.pixels.dtype == dtype and (photo.icc_profile, photo.dpi) == (b"profile", (72, 72))
    opaque = upscale_photo(make_painter(Recorder()), Photo(given.pixels, np.full_like(alpha, top)))
    np.testing.assert_array_equal(opaque.pixels, make_painter(Recorder())(given.pixels))


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_shipped_files_paint_a_large_picture(variant):
    network, image = keras_psr.load(f"starry-night_{variant}", device="cpu"), ramp(150, 130)
    paint = keras_psr.Painter(network, 64)
    painted = paint(image)
    reduced = network(to_uint8(resize_bicubic(image, 74, 64)))
    assert painted.shape == image.shape
    shrunk = resize_bicubic(painted, 74, 64).astype(int)
    assert np.abs(shrunk - reduced).mean() < 8 < np.abs(network(image).astype(int) - painted).mean()
    grey = upscale_photo(paint, Photo(image[..., :1].repeat(3, axis=-1))).pixels
    assert (grey == grey[..., :1]).all()


def test_wrong_arguments_are_refused(random_network):
    with pytest.raises(ConfigError, match="paint_size must be 0 or more pixels"):
        Painter(Recorder(), -1)
    with pytest.raises(ConfigError, match="painter must be a style"):
        Painter(Recorder(scale=4))
