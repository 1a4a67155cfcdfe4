"""Animated GIF, PNG and WebP: frames, timing, loops and transparency, in and out."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from keras_psr.errors import ConfigError, ImageFileError
from keras_psr.images.animation import find_ending, read_animation, read_frames
from keras_psr.images.animation_writing import open_animation
from keras_psr.images.compression import read_compression
from keras_psr.images.photo import Photo

DURATIONS = [100, 40, 30, 500]
ENDINGS = (".gif", ".png", ".webp")


@pytest.fixture
def frames(pan):
    """Frames of 16 colours, which GIF keeps."""
    return [(pixels[:20, :30] // 128 * 255).astype(np.uint8) for pixels in pan[:12:3]]


@pytest.fixture
def alphas():
    """Opacity that changes, without levels in between, which GIF does not have."""
    return [
        np.where(np.arange(30) < 10 + 4 * number, 255, 0).astype(np.uint8) * np.ones((20, 1), np.uint8)
        for number in range(4)
    ]


def save(path, frames, alphas=None, **options):
    levels = [np.dstack([pixels, alpha]) for pixels, alpha in zip(frames, alphas, strict=True)] if alphas else frames
    images = [Image.fromarray(pixels) for pixels in levels]
    extra = {"lossless": True} if path.suffix == ".webp" else {}
    images[0].save(path, save_all=True, append_images=images[1:], duration=DURATIONS, **extra, **options)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("is_transparent", [False, True])
def test_frames_and_timing_are_read(frames, alphas, tmp_path, ending, is_transparent):
    path = tmp_path / f"clip{ending}"
    extra = {"disposal": 2} if ending == ".gif" and is_transparent else {"disposal": 1} if ending == ".png" else {}
    save(path, frames, alphas if is_transparent else None, loop=0, **extra)
    animation = read_animation(path)
    assert find_ending(path) == ending
    assert (animation.height, animation.width, animation.plays) == (20, 30, 0)
    assert list(animation.durations) == DURATIONS and animation.has_alpha == is_transparent
    for photo, pixels, alpha in zip(read_frames(animation), frames, alphas, strict=True):
        shown = alpha > 0 if is_transparent else np.ones((20, 30), bool)
        np.testing.assert_array_equal(photo.pixels[shown], pixels[shown])
        if is_transparent:
            np.testing.assert_array_equal(photo.alpha, alpha)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("is_transparent", [False, True])
def test_frames_and_timing_are_written(frames, alphas, tmp_path, ending, is_transparent):
    path = tmp_path / f"clip{ending}"
    with open_animation(path, plays=3, has_alpha=is_transparent) as writer:
        for pixels, alpha, duration in zip(frames, alphas, DURATIONS, strict=True):
            writer.add(Photo(pixels, alpha if is_transparent else None), Fraction(duration))
    with Image.open(path) as image:
        # GIF counts the repetitions after the first time.
        assert (image.n_frames, image.size, image.info["loop"]) == (4, (30, 20), 2 if ending == ".gif" else 3)
        for number, (pixels, alpha, duration) in enumerate(zip(frames, alphas, DURATIONS, strict=True)):
            image.seek(number)
            levels = np.asarray(image.convert("RGBA"))
            assert image.info["duration"] == duration
            shown = alpha > 0 if is_transparent else np.ones((20, 30), bool)
            np.testing.assert_array_equal(levels[shown][:, :3], pixels[shown])
            np.testing.assert_array_equal(levels[..., 3] > 0, shown)


@pytest.mark.parametrize(("plays", "loop"), [(0, 0), (1, None), (2, 1), (5, 4)])
def test_a_gif_says_how_often_it_is_repeated(frames, tmp_path, plays, loop):
    path = tmp_path / "clip.gif"
    with open_animation(path, plays=plays) as writer:
        for pixels in frames:
            writer.add(Photo(pixels), Fraction(40))
    with Image.open(path) as image:
        assert image.info.get("loop") == loop
    assert read_animation(path).plays == plays


@pytest.mark.parametrize(("ending", "unit"), [(".gif", 10), (".webp", 1), (".png", Fraction(1, 1000))])
def test_rounding_of_durations_does_not_add_up(pan, tmp_path, ending, unit):
    path = tmp_path / f"clip{ending}"
    with open_animation(path, plays=0) as writer:
        for pixels in pan:
            writer.add(Photo(pixels), Fraction(100, 3))
    durations = read_animation(path).durations
    assert abs(sum(durations) - 20 * Fraction(100, 3)) <= unit / 2
    assert all(abs(duration - Fraction(100, 3)) < unit for duration in durations)


@pytest.mark.parametrize("ending", ENDINGS)
def test_only_what_changes_is_stored(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 2, (64, 64, 3)).astype(np.uint8) * 255
    moving = [noise.copy() for _ in range(6)]
    for number, pixels in enumerate(moving):
        pixels[21 + number : 27 + number, 31:37] = 255
    paths = [tmp_path / f"{name}{ending}" for name in ("still", "moving")]
    for path, frames in zip(paths, (moving[:1], moving), strict=True):
        with open_animation(path, plays=0) as writer:
            for pixels in frames:
                writer.add(Photo(pixels), Fraction(40))
    assert paths[1].stat().st_size < 2.5 * paths[0].stat().st_size
    for photo, pixels in zip(read_frames(read_animation(paths[1])), moving, strict=True):
        np.testing.assert_array_equal(photo.pixels, pixels)


def test_webp_is_written_with_losses_only_where_a_quality_is_asked_for(pan, tmp_path):
    for name, quality in (("lossy", 80), ("clean", None)):
        path = tmp_path / f"{name}.webp"
        with open_animation(path, plays=0, quality=quality) as writer:
            for pixels in pan[:3]:
                writer.add(Photo(pixels), Fraction(40))
        assert read_compression(path).has_artefacts == (name == "lossy")


def test_the_picture_for_other_programs_is_no_frame(frames, tmp_path):
    path = tmp_path / "clip.png"
    save(path, frames, default_image=True)
    animation = read_animation(path)
    assert animation.first == 1 and len(animation.durations) == 3
    for photo, pixels in zip(read_frames(animation), frames[1:], strict=True):
        np.testing.assert_array_equal(photo.pixels, pixels)


def test_pictures_with_one_frame_are_no_animations(frames, tmp_path):
    for ending in (*ENDINGS, ".jpg", ".tif"):
        Image.fromarray(frames[0]).save(tmp_path / f"one{ending}")
        assert find_ending(tmp_path / f"one{ending}") is None
    (tmp_path / "text.gif").write_text("GIF8 but not really")
    assert find_ending(tmp_path / "text.gif") is None
    assert find_ending(Path("nowhere.gif")) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_of_a_file_that_was_cut_off_there_are_the_first_frames(pan, tmp_path, ending):
    path = tmp_path / f"clip{ending}"
    with open_animation(path, plays=0) as writer:
        for pixels in pan:
            writer.add(Photo(pixels), Fraction(40))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    try:
        animation = read_animation(path)
    except ImageFileError as error:  # Pillow reads WebP as a whole
        assert ending == ".webp" and str(error).startswith(f"{path} cannot be read")
        return
    assert 5 < len(animation.durations) < 20
    assert len(list(read_frames(animation))) == len(animation.durations)


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected an ending of .gif, .png, .webp"):
        open_animation(tmp_path / "clip.jpg", plays=0)


def test_metadata_of_the_first_frame_is_written(frames, tmp_path):
    exif = Image.Exif()
    exif[305] = "keras-psr x2"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for ending in (".png", ".webp"):
        path = tmp_path / f"clip{ending}"
        with open_animation(path, plays=0) as writer:
            for pixels in frames:
                writer.add(Photo(pixels, exif=exif, icc_profile=profile), Fraction(40))
        with Image.open(path) as image:
            assert Image.Image.getexif(image)[305] == "keras-psr x2"
            assert image.info["icc_profile"] == profile
    path = tmp_path / "clip.gif"
    with open_animation(path, plays=0) as writer:
        for pixels in frames:
            writer.add(Photo(pixels, texts=(("Comment", "a" * 300),)), Fraction(40))
    with Image.open(path) as image:
        assert image.info["comment"] == b"a" * 300
