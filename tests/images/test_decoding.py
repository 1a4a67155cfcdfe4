import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile

from keras_psr.errors import ImageFileError
from keras_psr.images.decoding import _bit_depth, image_size, read_photo, read_rgb
from keras_psr.images.encoding import fit_to_format, save_photo
from keras_psr.images.finding import IMAGE_SUFFIXES
from keras_psr.images.photo import Photo

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def assert_reads_as(path: Path, expected: np.ndarray, tolerance: int = 0) -> None:
    picture = read_rgb(path)
    assert picture.dtype == np.uint8 and picture.shape == expected.shape
    assert image_size(path) == expected.shape[:2]
    assert np.abs(picture.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("suffix", [".bmp", ".png", ".tif", ".webp"])
def test_lossless_rgb_is_read_exactly(tmp_path, suffix):
    assert_reads_as(saved(tmp_path / f"a{suffix}", COLOURS, lossless=True), COLOURS)


def test_a_wrong_suffix_does_not_matter(tmp_path):
    assert_reads_as(saved(tmp_path / "a.jpg", COLOURS, format="PNG"), COLOURS)


def test_grey_and_bilevel_become_three_equal_channels(tmp_path):
    grey = COLOURS[..., 0]
    assert_reads_as(saved(tmp_path / "grey.png", grey), np.stack([grey] * 3, axis=-1))
    bilevel = np.stack([np.where(grey > 127, 255, 0)] * 3, axis=-1)
    assert_reads_as(saved(tmp_path / "bilevel.png", grey > 127), bilevel)


def test_one_pixel(tmp_path):
    assert_reads_as(saved(tmp_path / "a.png", COLOURS[:1, :1]), COLOURS[:1, :1])


def test_cmyk(tmp_path):
    Image.new("CMYK", (9, 7), (255, 0, 0, 0)).save(tmp_path / "cyan.jpg", quality=100)
    assert_reads_as(tmp_path / "cyan.jpg", np.full((7, 9, 3), (0, 255, 255)), tolerance=2)


def test_transparency_is_laid_over_white(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:, :, 3] = [0, 51, 255]
    expected = np.broadcast_to([(255, 255, 255), (244, 204, 204), (200, 0, 0)], (2, 3, 3))
    assert_reads_as(saved(tmp_path / "rgba.png", pixels), expected, tolerance=1)
    grey_alpha = Image.fromarray(pixels).convert("LA")
    grey_alpha.save(tmp_path / "la.png")
    assert (read_rgb(tmp_path / "la.png")[:, 0] == 255).all()


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "opaque.png")
    assert_reads_as(tmp_path / "opaque.png", np.array([[[10, 20, 30], [40, 50, 60]]]))
    image.save(tmp_path / "clear.png", transparency=1)
    assert_reads_as(tmp_path / "clear.png", np.array([[[10, 20, 30], [255, 255, 255]]]))
    image.save(tmp_path / "half.png", transparency=bytes([255, 102]))
    assert_reads_as(tmp_path / "half.png", np.array([[[10, 20, 30], [169, 173, 177]]]), tolerance=1)


def test_rgb_with_a_transparent_colour(tmp_path):
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    saved(tmp_path / "key.png", pixels, transparency=(4, 5, 6))
    assert_reads_as(tmp_path / "key.png", np.array([[[1, 2, 3], [255, 255, 255]]]))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled_and_rounded(tmp_path, name):
    levels = np.array([[0, 128, 129, 257, 30000, 65535]], np.uint16)
    expected = np.array([[0, 0, 1, 1, 117, 255]])
    assert_reads_as(saved(tmp_path / name, levels), np.stack([expected] * 3, axis=-1))


def test_16_bit_big_endian_tiff(tmp_path):
    levels = np.array([[0, 257, 65535], [65535, 0, 0]], np.uint16)
    Image.frombytes("I;16B", (3, 2), levels.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert (read_rgb(tmp_path / "a.tif")[..., 1] == [[0, 1, 255], [255, 0, 0]]).all()


def png(width: int, height: int, bits: int, kind: int, rows: bytes) -> bytes:
    """A PNG of one IDAT chunk; Pillow writes no 16-bit colour."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_16_bit_colour_png(tmp_path):
    levels = np.array([[[0, 257, 65535], [257 * 200, 257 * 7, 257]]], ">u2")
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 2, b"\0" + levels.tobytes()))
    assert_reads_as(tmp_path / "a.png", levels // 257)


def test_pixels_of_unknown_range_are_refused(tmp_path):
    saved(tmp_path / "float.tif", np.ones((2, 2), np.float32))
    with pytest.raises(ImageFileError, match="float.tif is a TIFF of 32-bit floating-point grey, which has no"):
        read_rgb(tmp_path / "float.tif")
    saved(tmp_path / "int.tif", np.full((2, 2), 70000, np.int32))
    with pytest.raises(ImageFileError, match="int.tif is a TIFF of signed or complex numbers"):
        read_rgb(tmp_path / "int.tif")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (2, COLOURS[:, ::-1]),
        (3, COLOURS[::-1, ::-1]),
        (4, COLOURS[::-1]),
        (5, COLOURS.swapaxes(0, 1)),
        (6, np.rot90(COLOURS, -1)),
        (7, np.rot90(COLOURS, 2).swapaxes(0, 1)),
        (8, np.rot90(COLOURS)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, name, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    saved(tmp_path / name, COLOURS, exif=exif, lossless=True, quality=100, subsampling=0)
    assert_reads_as(tmp_path / name, upright, tolerance=6 if name == "a.jpg" else 0)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_animations_give_their_first_frame(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ["red", "blue"]]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    assert_reads_as(tmp_path / name, np.full((8, 8, 3), (255, 0, 0)))


def test_image_size_reads_no_pixels(tmp_path):
    (tmp_path / "a.png").write_bytes(png(3000, 2000, 8, 2, b""))
    assert image_size(tmp_path / "a.png") == (2000, 3000)


def truncated_jpeg(path: Path) -> None:
    saved(path, np.tile(COLOURS, (20, 20, 1)), format="JPEG")
    path.write_bytes(path.read_bytes()[:-2000])


BROKEN = {
    "truncated": truncated_jpeg,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a picture\n"),
    "svg": lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "header only": lambda path: path.write_bytes(png(30, 20, 8, 2, b"")[:40]),
    "no pixels": lambda path: path.write_bytes(png(30, 20, 8, 2, b"\0\1\2")),
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_give_one_line_that_names_them(tmp_path, kind):
    path = tmp_path / "broken.png"
    BROKEN[kind](path)
    with pytest.raises(ImageFileError, match="broken.png") as caught:
        read_rgb(path)
    assert "\n" not in str(caught.value)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    saved(tmp_path / "bomb.png", COLOURS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    for read in (read_rgb, image_size):
        with pytest.raises(ImageFileError, match=r"bomb.png has too many pixels .*\(at most 40\)"):
            read(tmp_path / "bomb.png")


# === Kinds ===


def heic(path: Path, pixels: np.ndarray, **options) -> Path:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return saved(path, pixels, format="HEIF", quality=100, chroma=444, **options)


def test_heic_is_read_with_all_that_belongs_to_it(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    smooth = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    heic(tmp_path / "a.heic", smooth, exif=exif.tobytes())
    assert_reads_as(tmp_path / "a.heic", smooth, tolerance=4)
    photo = read_photo(tmp_path / "a.heic")
    assert photo.exif[ExifTags.Base.Make] == "Maker" and photo.notes == ()
    heic(tmp_path / "a.jpg", smooth)
    assert_reads_as(tmp_path / "a.jpg", smooth, tolerance=4)


P3_WITH_PQ = {"color_primaries": 12, "transfer_characteristics": 16}


@pytest.mark.parametrize(("codes", "colour"), [({}, ()), (P3_WITH_PQ, ((b"cICP", bytes([12, 16, 0, 1])),))])
def test_colours_of_heic_that_are_not_srgb_are_kept_for_png(tmp_path, codes, colour):
    heic(tmp_path / "a.heic", np.tile(COLOURS, (8, 6, 1)), **codes)
    assert read_photo(tmp_path / "a.heic").colour == colour
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    heic(tmp_path / "b.heic", np.tile(COLOURS, (8, 6, 1)), icc_profile=profile, **codes)
    photo = read_photo(tmp_path / "b.heic")
    assert photo.icc_profile == profile and photo.colour == (), "a profile takes precedence"


@pytest.mark.skipif(".avif" not in IMAGE_SUFFIXES, reason="Pillow without AVIF")
def test_colours_of_avif_that_are_not_srgb_are_kept_for_png(tmp_path):
    path = saved(tmp_path / "a.avif", np.tile(COLOURS, (8, 6, 1)), format="AVIF")
    assert read_photo(path).colour == ()
    codes = b"colrnclx" + bytes([0, 1, 0, 13])
    assert codes in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(codes, b"colrnclx" + bytes([0, 9, 0, 16])))
    assert read_photo(path).colour == ((b"cICP", bytes([9, 16, 0, 1])),)


def test_heic_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    heic(tmp_path / "a.heic", np.tile(COLOURS, (8, 6, 1)))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageFileError, match=r"a\.heic is a HEIC picture; pip install 'keras-psr\[heic\]' to read it"):
        read_rgb(tmp_path / "a.heic")


@pytest.mark.skipif(".avif" not in IMAGE_SUFFIXES, reason="Pillow without AVIF")
def test_avif_is_read_whatever_its_name(tmp_path):
    smooth = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    for name in ("a.avif", "a.jpg"):
        saved(tmp_path / name, smooth, format="AVIF", quality=100, subsampling="4:4:4")
        assert_reads_as(tmp_path / name, smooth, tolerance=4)
        assert read_photo(tmp_path / name).notes == ()


def test_avif_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(20))
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    with pytest.raises(ImageFileError, match=r"a\.jpg is an AVIF picture; install Pillow 11\.3"):
        read_rgb(tmp_path / "a.jpg")


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_is_told(tmp_path, bits):
    """The property that says how deep channels are, as ISO/IEC 23008-12 has it: its count, then bits of each."""
    pixi = b"\0\0\0\x10pixi" + bytes(4) + bytes([3, bits, bits, bits])

    class Opened:
        info = {"header": b"ftypavif" + pixi + b"more"}

    assert _bit_depth(Opened()) == bits


@pytest.mark.parametrize(
    ("beginning", "message"),
    [
        (b"v/1\x01", "an OpenEXR picture of floating-point light; convert it to 8 or 16 bits first"),
        (b"#?RADIANCE\n", "a Radiance HDR picture"),
        (b"\xff\x0a", "a JPEG XL picture; convert it to PNG first"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
        (b"8BPS\0\1", "a Photoshop document; export it as PNG or TIFF first"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a raw file; develop it first"),
        (b"FUJIFILMCCD-RAW ", "a raw file; develop it first"),
        (b"\0\0\0\x18ftypisom\0\0\0\1isommp42", "a film; give it as a file that has a film's ending, such as .mp4"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"nothing known", "not a picture; expected one of AVIF, BMP, GIF, HEIF, JPEG, PNG, TIFF, WEBP"),
    ],
)
def test_files_of_other_kinds_are_called_by_what_they_are(tmp_path, beginning, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(beginning + bytes(100))
    for function in (read_rgb, read_photo, image_size):
        with pytest.raises(ImageFileError, match=re.escape(f"{path} is {message}")):
            function(path)


def test_whatever_a_library_raises_names_the_picture(tmp_path, monkeypatch):
    saved(tmp_path / "a.png", COLOURS)
    for error in (TypeError("odd"), OverflowError("large"), KeyError("none"), AssertionError(), struct.error("short")):

        def fail(image, error=error):
            raise error

        monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
        with pytest.raises(ImageFileError, match=r"a\.png cannot be read \(.*\); replace or remove it"):
            read_photo(tmp_path / "a.png")


def test_training_and_photographs_get_the_same_pixels(tmp_path):
    """For every kind of file, `read_rgb` gives what `read_photo` gives, over white and in 8 bits."""
    alpha = np.random.default_rng(1).integers(0, 256, (6, 10), np.uint8)
    deep = np.random.default_rng(2).integers(0, 65536, (6, 10, 3), np.uint16)
    photos = {
        "a.png": Photo(deep, alpha.astype(np.uint16) * 257),
        "b.tif": Photo(deep),
        "c.webp": Photo(COLOURS, alpha),
    }
    photos |= {"d.png": Photo(deep[..., 0]), "e.jpg": Photo(COLOURS), "f.tif": Photo(COLOURS[..., 0], alpha)}
    for name, photo in photos.items():
        save_photo(tmp_path / name, photo)
        read = fit_to_format(read_photo(tmp_path / name), ".bmp").pixels
        expected = read if read.ndim == 3 else read[..., None].repeat(3, axis=-1)
        np.testing.assert_array_equal(read_rgb(tmp_path / name), expected)
