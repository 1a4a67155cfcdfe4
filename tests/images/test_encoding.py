import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from keras_psr.errors import ConfigError, ImageFileError
from keras_psr.images.decoding import read_photo, read_rgb
from keras_psr.images.encoding import SAVE_OPTIONS, check_format, fit_to_format, save_photo, write_image
from keras_psr.images.finding import IMAGE_SUFFIXES, find_images
from keras_psr.images.photo import Photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RANDOM = np.random.default_rng(0)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def assert_reads_as(path: Path, expected: np.ndarray, tolerance: int = 0) -> None:
    picture = read_rgb(path)
    assert picture.dtype == np.uint8 and picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).max() <= tolerance


# === Arrays ===


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".tiff", ".webp"])
def test_written_pictures_come_back_unchanged(tmp_path, suffix):
    path = tmp_path / "new" / "folder" / f"a{suffix}"
    write_image(path, COLOURS)
    assert_reads_as(path, COLOURS)
    write_image(path, COLOURS[..., 0])
    assert_reads_as(path, np.stack([COLOURS[..., 0]] * 3, axis=-1))
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparency_is_written(tmp_path, suffix):
    rgba = np.dstack([COLOURS, np.full((6, 10), 200, np.uint8)])
    write_image(tmp_path / f"a{suffix}", rgba)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert (np.asarray(image) == rgba).all()


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_keeps_full_colour_resolution(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    checks = np.zeros((16, 16, 3), np.uint8)
    checks[..., 0] = 255 * (np.indices((16, 16)).sum(axis=0) % 2)
    checks[..., 2] = 255 - checks[..., 0]
    write_image(path, checks)
    with Image.open(path) as image:
        assert image.format == "JPEG" and [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
    assert_reads_as(path, checks, tolerance=30)


def test_writing_refuses_unknown_endings_and_arrays(tmp_path):
    for name in ["a", "a.gif", "a.txt"]:
        with pytest.raises(ConfigError, match=r"expected an ending of \.bmp, \.jfif, \.jpe, \.jpeg, \.jpg, \.png"):
            write_image(tmp_path / name, COLOURS)
    for wrong in [COLOURS / 1.0, COLOURS[..., :2], COLOURS[0, 0], COLOURS.astype(np.int16)]:
        with pytest.raises(ConfigError, match="image must be uint8 of shape"):
            write_image(tmp_path / "a.png", wrong)
    for name, kind in [("a.jpg", "JPEG"), ("a.bmp", "BMP")]:
        with pytest.raises(ConfigError, match=f"{kind} cannot store transparency"):
            write_image(tmp_path / name, np.zeros((4, 4, 4), np.uint8))
        with pytest.raises(ConfigError, match=f"{kind} cannot store 16 bits"):
            write_image(tmp_path / name, np.zeros((4, 4), np.uint16))
    with pytest.raises(ConfigError, match="image must contain pixels"):
        write_image(tmp_path / "a.png", COLOURS[:0])
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", COLOURS)

    def half_written(file, *content):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_psr.images.png.write_png", half_written)
    with pytest.raises(ImageFileError, match="cannot write .*a.png .No space left on device"):
        write_image(tmp_path / "a.png", COLOURS[::-1])
    assert os.listdir(tmp_path) == ["a.png"]
    assert_reads_as(tmp_path / "a.png", COLOURS)


def test_writing_below_a_file_or_onto_a_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for path in [tmp_path / "file" / "a.png", tmp_path / "folder.png"]:
        with pytest.raises(ImageFileError, match="cannot write"):
            write_image(path, COLOURS)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


def test_most_readable_suffixes_can_be_written(tmp_path):
    only_read = {".gif", ".avif", ".heic", ".heif"}
    for suffix in set(IMAGE_SUFFIXES) - only_read:
        write_image(tmp_path / f"a{suffix}", COLOURS)
    assert {path.suffix for path in find_images(tmp_path)} == set(IMAGE_SUFFIXES) - only_read == set(SAVE_OPTIONS)


# === What formats cannot hold ===


def make_exif():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExifImageWidth: 10, ExifTags.Base.ExifImageHeight: 6}
    return exif


def test_what_a_format_cannot_hold_is_told():
    half = np.full((6, 10), 32768, np.uint16)
    photo = Photo(np.full((6, 10, 3), 257 * 100, np.uint16), half, SRGB, make_exif(), notes=("first of 2 frames",))
    assert fit_to_format(photo, ".png") == fit_to_format(photo, ".TIF") == photo
    webp = fit_to_format(photo, ".webp")
    assert webp.pixels.dtype == webp.alpha.dtype == np.uint8
    assert (webp.pixels == 100).all() and (webp.alpha == 128).all()
    jpeg = fit_to_format(photo, ".jpg")
    assert jpeg.alpha is None and jpeg.icc_profile == SRGB
    assert (jpeg.pixels == round(100 * 128 / 255 + 255 * 127 / 255)).all()
    assert jpeg.notes == (
        "first of 2 frames", "16 bits rounded to 8 for JPEG", "transparency blended with white for JPEG"
    )  # fmt: skip
    bmp = fit_to_format(photo, ".bmp")
    assert bmp.exif is bmp.icc_profile is None and bmp.notes[-1] == "BMP cannot store a colour profile or EXIF data"


def test_rounding_to_8_bits_is_exact():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(fit_to_format(Photo(levels), ".jpg").pixels, np.rint(levels / 257))


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_quality(tmp_path, name):
    picture = RANDOM.integers(0, 256, (60, 60, 3), np.uint8)
    sizes = []
    for quality in (30, 90, None):
        save_photo(tmp_path / name, Photo(picture), quality)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes == sorted(sizes) and len(set(sizes)) == 3


def test_unknown_endings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"expected an ending of \.bmp"):
        save_photo(tmp_path / "a.gif", Photo(COLOURS))
    for suffix in SAVE_OPTIONS:
        save_photo(tmp_path / f"a{suffix}", Photo(COLOURS))
    assert len(os.listdir(tmp_path)) == len(SAVE_OPTIONS)


def test_pictures_too_large_for_a_format_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot write .*a\.webp: WEBP is limited to 16383 pixels per side"):
        save_photo(tmp_path / "a.webp", Photo(np.zeros((1, 17000, 3), np.uint8)))
    with pytest.raises(ConfigError, match=r"cannot write .*a\.jpg: JPEG is limited to 65500 pixels per side"):
        check_format(tmp_path / "a.jpg", 70000, 10)
    with pytest.raises(ConfigError, match=r"cannot write .*a\.tif: TIFF is limited to 4 GB, .* pixels may need 7"):
        check_format(tmp_path / "a.tif", 30000, 30000, is_deep=True)
    check_format(tmp_path / "a.tif", 30000, 30000, channels=3)
    save_photo(tmp_path / "longest.jpg", Photo(np.zeros((1, 65500), np.uint8)))
    save_photo(tmp_path / "longest.webp", Photo(np.zeros((1, 16383, 3), np.uint8)))
    assert sorted(os.listdir(tmp_path)) == ["longest.jpg", "longest.webp"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".bmp"])
def test_whatever_a_library_raises_names_the_picture(tmp_path, monkeypatch, suffix):
    for error in (TypeError("odd"), OverflowError("large"), KeyError("none"), ValueError("wrong"), OSError("full")):

        def fail(*args, error=error, **options):
            raise error

        for place in ("keras_psr.images.png.write_png", "keras_psr.images.tiff.write_tiff", "PIL.Image.Image.save"):
            monkeypatch.setattr(place, fail)
        with pytest.raises(ImageFileError, match=rf"cannot write .*a\{suffix} \("):
            save_photo(tmp_path / f"a{suffix}", Photo(COLOURS))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_arrays_of_16_bits_are_written(tmp_path, suffix, channels):
    levels = RANDOM.integers(0, 65536, (6, 10, *channels)).astype(np.uint16)
    write_image(tmp_path / f"a{suffix}", levels)
    photo = read_photo(tmp_path / f"a{suffix}")
    received = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    np.testing.assert_array_equal(received, levels)
