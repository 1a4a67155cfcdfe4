"""A corpus made by code: every kind of file comes back from `read_photo` and `save_photo` with all that it had."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from keras_psr.errors import ImageFileError
from keras_psr.images.decoding import image_size, read_photo
from keras_psr.images.encoding import save_photo
from keras_psr.images.photo import Photo


def make_grey_profile():
    """A profile of grey with gamma 2.2: nothing but a curve and a white point."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)) + bytes(2)
    point = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(78)
    return make_profile(b"mntr", b"GRAY", b"XYZ ", {b"desc": name, b"kTRC": curve, b"wtpt": point})


def make_profile(kind, space, connection, tags):
    """An ICC profile of version 2."""
    head = bytearray(128)
    head[8:24] = struct.pack(">I", 0x02400000) + kind + space + connection
    head[36:40], head[68:80] = b"acsp", struct.pack(">3i", 63190, 65536, 54061)
    directory, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        directory += name + struct.pack(">2I", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    profile = bytes(head) + directory + body
    return struct.pack(">I", len(profile)) + profile[4:]


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = make_grey_profile()
RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (6, 10, 3), np.uint8)
DEEP = RANDOM.integers(0, 65536, (6, 10, 3), np.uint16)
DEEP_ALPHA = RANDOM.integers(0, 65536, (6, 10), np.uint16)


def make_exif(orientation=None):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Copyright] = "Somebody"
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2020:01:02 03:04:05",
        ExifTags.Base.ExposureTime: 0.125,
        ExifTags.Base.ExifImageWidth: 10,
        ExifTags.Base.ExifImageHeight: 6,
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (48.0, 8.0, 0.5)}
    return exif


def assert_same_exif(received, size):
    assert received[ExifTags.Base.Make] == "Maker" and received[ExifTags.Base.Copyright] == "Somebody"
    assert received.get(ExifTags.Base.Orientation, 1) == 1
    details = received.get_ifd(ExifTags.IFD.Exif)
    assert details[ExifTags.Base.DateTimeOriginal] == "2020:01:02 03:04:05"
    assert float(details[ExifTags.Base.ExposureTime]) == 0.125
    assert (details[ExifTags.Base.ExifImageHeight], details[ExifTags.Base.ExifImageWidth]) == size
    gps = received.get_ifd(ExifTags.IFD.GPSInfo)
    assert gps[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert [float(number) for number in gps[ExifTags.GPS.GPSLatitude]] == [48, 8, 0.5]


def assert_photo(photo, pixels, alpha=None, tolerance=0):
    assert photo.pixels.dtype == pixels.dtype and photo.pixels.shape == pixels.shape
    assert np.abs(photo.pixels.astype(int) - pixels).max() <= tolerance
    assert (photo.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(photo.alpha, alpha)


# === 8 bits ===


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg", "a.bmp"])
def test_all_that_belongs_to_a_photograph_is_read_and_written(tmp_path, name):
    path, has_metadata = tmp_path / name, name != "a.bmp"
    options = {"exif": make_exif(6).tobytes(), "icc_profile": SRGB} if has_metadata else {}
    Image.fromarray(COLOURS).save(path, dpi=(300, 150), quality=100, subsampling=0, lossless=True, **options)
    photo = read_photo(path)
    upright = np.rot90(COLOURS, -1) if has_metadata else COLOURS
    assert_photo(photo, upright, tolerance=8 if name == "a.jpg" else 0)
    assert photo.notes == () and image_size(path) == photo.pixels.shape[:2]
    save_photo(tmp_path / f"again_{name}", photo, quality=None)
    again = read_photo(tmp_path / f"again_{name}")
    assert_photo(again, upright, tolerance=12 if name == "a.jpg" else 0)
    if name != "a.webp":  # which holds no resolution but in EXIF, and Pillow wrote none
        assert photo.dpi == pytest.approx((300, 150), rel=1e-3) and again.dpi == pytest.approx((300, 150), rel=1e-3)
    if has_metadata:
        assert photo.icc_profile == again.icc_profile == SRGB
        with Image.open(tmp_path / f"again_{name}") as image:
            assert_same_exif(image.getexif(), size=upright.shape[:2])


def test_resolution_survives_in_webp_and_in_centimetres(tmp_path):
    save_photo(tmp_path / "a.webp", Photo(COLOURS, dpi=(300, 150)))
    assert read_photo(tmp_path / "a.webp").dpi == (300, 150)
    exif = Image.Exif()
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 100.0
    exif[ExifTags.Base.ResolutionUnit] = 3
    Image.fromarray(COLOURS).save(tmp_path / "b.webp", exif=exif)
    assert read_photo(tmp_path / "b.webp").dpi == pytest.approx((254, 254))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp"])
def test_grey_stays_grey(tmp_path, name):
    grey = COLOURS[..., 0]
    save_photo(tmp_path / name, Photo(grey))
    with Image.open(tmp_path / name) as image:
        assert image.mode == ("RGB" if name == "a.webp" else "L")  # WebP has no grey
    if name != "a.webp":
        assert_photo(read_photo(tmp_path / name), grey, tolerance=8 if name == "a.jpg" else 0)


def test_bilevel_is_grey(tmp_path):
    Image.fromarray(COLOURS[..., 0] > 127).save(tmp_path / "a.png")
    assert_photo(read_photo(tmp_path / "a.png"), np.where(COLOURS[..., 0] > 127, 255, 0).astype(np.uint8))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_transparency_is_kept_apart(tmp_path, name):
    alpha = RANDOM.integers(1, 256, (6, 10), np.uint8)
    save_photo(tmp_path / name, Photo(COLOURS, alpha))
    assert_photo(read_photo(tmp_path / name), COLOURS, alpha)


def test_grey_with_transparency(tmp_path):
    alpha = RANDOM.integers(0, 256, (6, 10), np.uint8)
    save_photo(tmp_path / "a.png", Photo(COLOURS[..., 0], alpha))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "LA"
    assert_photo(read_photo(tmp_path / "a.png"), COLOURS[..., 0], alpha)


def test_palettes_become_rgb_with_their_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "half.png", transparency=bytes([255, 102]))
    image.save(tmp_path / "key.gif", transparency=1)
    colours = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)
    assert_photo(read_photo(tmp_path / "opaque.png"), colours)
    assert_photo(read_photo(tmp_path / "half.png"), colours, np.array([[255, 102]]))
    assert read_photo(tmp_path / "key.gif").alpha.tolist() == [[255, 0]]


def test_progressive_jpeg(tmp_path):
    Image.new("RGB", (40, 30), (9, 99, 199)).save(tmp_path / "a.jpg", progressive=True, quality=100)
    assert_photo(read_photo(tmp_path / "a.jpg"), np.full((30, 40, 3), (9, 99, 199), np.uint8), tolerance=2)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_frames_the_first_is_taken_and_told(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ["red", "blue", "lime"]]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    photo = read_photo(tmp_path / name)
    assert photo.notes == ("first of 3 frames",)
    assert_photo(photo, np.full((8, 8, 3), (255, 0, 0), np.uint8))


# === CMYK ===


def make_cmyk_profile():
    """A tiny CMYK profile whose every ink at full gives one Lab colour, unlike plain subtraction."""
    white, ink = (65280, 32768, 32768), (20000, 40000, 20000)  # Lab of 16 bits, ICC version 2
    corners = [white if index == 0 else ink for index in range(16)]
    ramp = struct.pack(">2H", 0, 65535)
    table = b"mft2" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(np.eye(3, dtype=int).ravel() * 65536))
    table += struct.pack(">2H", 2, 2) + ramp * 4 + b"".join(struct.pack(">3H", *c) for c in corners) + ramp * 3
    point = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    return make_profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table, b"wtpt": point})


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_is_converted_through_its_profile(tmp_path, name):
    image = Image.new("CMYK", (9, 7), (255, 0, 0, 0))
    image.save(tmp_path / name, quality=100)
    assert_photo(read_photo(tmp_path / name), np.full((7, 9, 3), (0, 255, 255), np.uint8), tolerance=2)
    image.save(tmp_path / name, quality=100, icc_profile=make_cmyk_profile())
    photo = read_photo(tmp_path / name)
    assert np.abs(photo.pixels.astype(int) - (0, 255, 255)).max() > 20, "the profile was ignored"
    assert np.ptp(photo.pixels.reshape(-1, 3), axis=0).max() <= 1
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(photo.icc_profile)))


# === 16 bits ===


def png16(levels, interlaced=False, **chunks):
    """A PNG of 16 bits, every row with another filter of the specification; written here once more, on purpose."""
    height, width = levels.shape[:2]
    channels = levels.size // (height * width)
    raw = levels.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    step, rows, above = 2 * channels, b"", np.zeros(raw.shape[1], int)
    for index, row in enumerate(raw):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        estimate = left + above - corner
        distances = np.abs([estimate - left, estimate - above, estimate - corner])
        paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
        predicted = [0 * row, left, above, (left + above) // 2, paeth][index % 5]
        rows += bytes([index % 5]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = {"IHDR": struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0), **chunks}
    parts |= {"IDAT": zlib.compress(rows), "IEND": b""}
    named = [(len(content), name.encode() + content) for name, content in parts.items()]
    packed = (struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk)) for length, chunk in named)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


KINDS_16 = {
    "rgb": (DEEP, None),
    "rgba": (DEEP, DEEP_ALPHA),
    "grey": (DEEP[..., 0], None),
    "grey alpha": (DEEP[..., 0], DEEP_ALPHA),
}


@pytest.mark.parametrize("kind", KINDS_16)
def test_16_bit_png_is_read_to_the_last_bit(tmp_path, kind):
    pixels, alpha = KINDS_16[kind]
    (tmp_path / "a.png").write_bytes(png16(pixels if alpha is None else np.dstack([pixels, alpha])))
    assert_photo(read_photo(tmp_path / "a.png"), pixels, alpha)


def test_16_bit_png_with_a_transparent_colour(tmp_path):
    (tmp_path / "a.png").write_bytes(png16(DEEP, tRNS=DEEP[2, 3].astype(">u2").tobytes()))
    expected = np.full((6, 10), 65535, np.uint16)
    expected[2, 3] = 0
    assert_photo(read_photo(tmp_path / "a.png"), DEEP, expected)
    (tmp_path / "b.png").write_bytes(png16(DEEP[..., 0], tRNS=DEEP[2, 3, :1].astype(">u2").tobytes()))
    assert_photo(read_photo(tmp_path / "b.png"), DEEP[..., 0], expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", ["rgb", "rgba", "grey"])
def test_16_bit_tiff_is_read_to_the_last_bit(tmp_path, kind, byteorder, compression):
    import tifffile

    pixels, alpha = KINDS_16[kind]
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels if alpha is None else np.dstack([pixels, alpha]),
        byteorder=byteorder,
        compression=compression,
        photometric="minisblack" if pixels.ndim == 2 else "rgb",
        extrasamples=None if alpha is None else ["unassalpha"],
    )
    assert_photo(read_photo(tmp_path / "a.tif"), pixels, alpha)


def test_16_bits_that_cannot_be_kept_are_told(tmp_path):
    import tifffile

    ink = np.full((6, 10, 4), 257 * 51, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", ink, photometric="separated")
    photo = read_photo(tmp_path / "a.tif")
    assert photo.notes == ("16 bits rounded to 8 for CMYK",)
    assert_photo(photo, np.full((6, 10, 3), round(255 * 0.8 * 0.8), np.uint8))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("kind", KINDS_16)
def test_16_bits_are_written_with_all_that_belongs_to_them(tmp_path, kind, name):
    pixels, alpha = KINDS_16[kind]
    profile = SRGB if pixels.ndim == 3 else GREY
    save_photo(tmp_path / name, Photo(pixels, alpha, profile, make_exif(), (300.0, 150.0)))
    photo = read_photo(tmp_path / name)
    assert_photo(photo, pixels, alpha)
    assert photo.icc_profile == profile and photo.dpi == pytest.approx((300, 150), rel=1e-3)
    if (kind, name) == ("grey alpha", "a.tif"):  # Pillow does not read such a TIFF
        return
    with Image.open(tmp_path / name) as image:
        image.load()  # verifies PNG's checksums
        assert_same_exif(image.getexif(), size=(6, 10))


def test_16_bit_files_are_what_other_software_expects(tmp_path):
    import tifffile

    save_photo(tmp_path / "a.tif", Photo(DEEP, DEEP_ALPHA, SRGB))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.asarray(), np.dstack([DEEP, DEEP_ALPHA]))
        assert file.pages[0].iccprofile == SRGB and file.pages[0].tags["ExtraSamples"].value == (2,)


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_16_bit_pictures_are_turned_upright(tmp_path, orientation):
    upright = {3: DEEP[::-1, ::-1], 6: np.rot90(DEEP, -1), 7: np.rot90(DEEP, 2).swapaxes(0, 1)}[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    (tmp_path / "a.png").write_bytes(png16(DEEP, eXIf=exif.tobytes().removeprefix(b"Exif\0\0")))
    assert_photo(read_photo(tmp_path / "a.png"), upright)


# === Broken files ===

BROKEN = {
    "zero bytes": b"",
    "text": b"no picture",
    "header only": png16(DEEP)[:40],
    "truncated": png16(DEEP)[:-150],
    "lying header": png16(DEEP).replace(struct.pack(">II", 10, 6), struct.pack(">II", 10, 600), 1),
    "unknown range": None,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_give_one_line_that_names_them(tmp_path, kind):
    path = tmp_path / "broken.png"
    if kind == "unknown range":
        Image.fromarray(np.ones((2, 2), np.float32)).save(path, "TIFF")
    else:
        path.write_bytes(BROKEN[kind])
    with pytest.raises(ImageFileError, match=r"broken\.png") as caught:
        read_photo(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_is_no_reason_to_lose_a_picture(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.webp", lossless=True, exif=b"Exif\0\0II*\0\xff\xff\xff\0 nonsense")
    assert_photo(read_photo(tmp_path / "a.webp"), COLOURS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("strip", [1, 100, 10**6])
def test_png_strips_join(tmp_path, monkeypatch, dtype, strip):
    monkeypatch.setattr("keras_psr.images.png.STRIP", strip)
    pixels = RANDOM.integers(0, np.iinfo(dtype).max, (37, 11, 3), dtype)
    save_photo(tmp_path / "a.png", Photo(pixels, pixels[..., 1]))
    assert_photo(read_photo(tmp_path / "a.png"), pixels, pixels[..., 1])
    if dtype == np.uint8:
        with Image.open(tmp_path / "a.png") as image:
            np.testing.assert_array_equal(np.asarray(image), np.dstack([pixels, pixels[..., 1]]))
