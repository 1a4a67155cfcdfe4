"""TIFF: what tags say, for every depth, kind, layout and compression; files are made by `tifffile` or byte by byte."""

import io
import lzma
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from keras_psr.errors import ImageFileError
from keras_psr.images import tiff
from keras_psr.images.decoding import image_size, read_photo, read_rgb

RANDOM = np.random.default_rng(0)


def pack(numbers, bits, order):
    """Numbers as they stand in a strip: rows begin at bytes; worked out with Python's whole numbers."""
    packed = b""
    for row in numbers.reshape(len(numbers), -1).tolist():
        if bits % 8 == 0:
            packed += b"".join(int(number).to_bytes(bits // 8, order) for number in row)
        else:
            digits = "".join(f"{number:0{bits}b}" for number in row)
            digits += "0" * (-len(digits) % 8)
            packed += int(digits, 2).to_bytes(len(digits) // 8, "big")
    return packed


def lzw(data):
    """TIFF's LZW without ever using the table: each byte is a code of 9 bits, and the table is cleared in time."""
    codes = []
    for at, byte in enumerate(data):
        codes += [256] * (at % 200 == 0) + [byte]
    digits = "".join(f"{code:09b}" for code in [*codes, 257])
    digits += "0" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


def packbits(data):
    """Runs of literal bytes."""
    parts = [data[at : at + 128] for at in range(0, len(data), 128)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


CODECS = {1: bytes, 5: lzw, 8: zlib.compress, 32946: zlib.compress, 32773: packbits, 34925: lzma.compress}


def make_tiff(numbers, bits, kind, *, order="little", planar=False, rows=None, tile=None, codec=1, predictor=1, **tags):
    """A TIFF of numbers (height, width, channels); further tags by their number after an underscore."""
    height, width, channels = numbers.shape
    planes = [numbers[..., index : index + 1] for index in range(channels)] if planar else [numbers]
    parts = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, [(0, -height % tile), (0, -width % tile), (0, 0)])
            places = [(top, left) for top in range(0, height, tile) for left in range(0, width, tile)]
            parts += [padded[top : top + tile, left : left + tile] for top, left in places]
        else:
            parts += [plane[top : top + (rows or height)] for top in range(0, height, rows or height)]
    if predictor == 2:
        parts = [np.diff(part.astype(np.int64), axis=1, prepend=0) % 2**bits for part in parts]
    strips = [CODECS[codec](pack(part, bits, order)) for part in parts]
    if tags.pop("reversed", False):
        strips = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in strip) for strip in strips]
        tags["_266"] = 2
    at, offsets = 8, []
    for strip in strips:
        offsets.append(at)
        at += len(strip)
    places = {324: offsets, 325: [len(strip) for strip in strips], 322: [tile], 323: [tile]}
    if not tile:
        places = {273: offsets, 279: [len(strip) for strip in strips], 278: [rows or height]}
    entries = {
        256: [width],
        257: [height],
        258: [bits] * channels,
        259: [codec],
        262: [kind],
        277: [channels],
        **places,
    }
    entries |= {284: [2 if planar else 1], 317: [predictor]}
    entries |= {int(name[1:]): value if isinstance(value, list) else [value] for name, value in tags.items()}
    mark = "<" if order == "little" else ">"
    directory, extra, end = struct.pack(mark + "H", len(entries)), b"", at + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        content = struct.pack(f"{mark}{len(values)}L", *values)
        value = content if len(values) == 1 else struct.pack(mark + "L", end + len(extra))
        extra += content if len(values) > 1 else b""
        directory += struct.pack(mark + "HHL", tag, 4, len(values)) + value
    head = (b"II*\0" if order == "little" else b"MM\0*") + struct.pack(mark + "L", at)
    return head + b"".join(strips) + directory + bytes(4) + extra


def read(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    return read_photo(tmp_path / "a.tif")


def expected_levels(numbers, bits):
    """Black is 0, and white the largest number, in exact fractions."""
    top, dtype = (255, np.uint8) if bits <= 8 else (65535, np.uint16)
    return np.rint(numbers.astype(np.longdouble) * top / (2**bits - 1)).astype(dtype)


# === Depths ===


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("bits", range(1, 33))
def test_grey_of_every_depth(tmp_path, bits, order):
    numbers = RANDOM.integers(0, 2**bits, (5, 13, 1), np.uint64)
    numbers[0, :2, 0] = 0, 2**bits - 1
    photo = read(tmp_path, make_tiff(numbers, bits, 1, order=order))
    np.testing.assert_array_equal(photo.pixels, expected_levels(numbers[..., 0], bits))
    assert photo.notes == ((f"{bits} bits rounded to 16",) if bits > 16 else ())
    assert image_size(tmp_path / "a.tif") == (5, 13)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32])
@pytest.mark.parametrize("planar", [False, True])
def test_colours_of_every_depth_in_pixels_and_in_planes(tmp_path, bits, planar):
    numbers = RANDOM.integers(0, 2**bits, (5, 13, 3), np.uint64)
    numbers[0, 0] = 2**bits - 1
    photo = read(tmp_path, make_tiff(numbers, bits, 2, planar=planar, rows=2))
    np.testing.assert_array_equal(photo.pixels, expected_levels(numbers, bits))


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_white_is_zero(tmp_path, bits):
    numbers = RANDOM.integers(0, 2**bits, (5, 13, 1), np.uint64)
    photo = read(tmp_path, make_tiff(numbers, bits, 0))
    np.testing.assert_array_equal(photo.pixels, expected_levels(2**bits - 1 - numbers[..., 0], bits))


def test_numbers_of_32_bits_that_fill_16_are_refused(tmp_path):
    with pytest.raises(ImageFileError, match=r"a\.tif is a TIFF of 32 bits whose levels are all below 1/65536"):
        read(tmp_path, make_tiff(np.full((2, 2, 1), 60000), 32, 1))
    assert (read(tmp_path, make_tiff(np.zeros((2, 2, 1), int), 32, 1)).pixels == 0).all()


# === Layouts ===


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bits", [8, 12, 16, 32])
@pytest.mark.parametrize("layout", [{}, {"rows": 7}, {"tile": 16}])
@pytest.mark.parametrize("planar", [False, True])
def test_strips_tiles_planes_and_compressions(tmp_path, codec, bits, layout, planar):
    numbers = RANDOM.integers(0, 2**bits, (21, 35, 3), np.uint64)
    predictor = 2 if codec in (5, 8) and bits != 12 else 1
    content = make_tiff(numbers, bits, 2, planar=planar, codec=codec, predictor=predictor, order="big", **layout)
    np.testing.assert_array_equal(read(tmp_path, content).pixels, expected_levels(numbers, bits))


def test_zstd(tmp_path, monkeypatch):
    levels = RANDOM.integers(0, 65536, (21, 35), np.uint16)
    strip = io.BytesIO()
    try:
        Image.fromarray(levels.view(np.uint8).reshape(1, -1)).save(strip, "TIFF", compression="zstd")
    except OSError:
        pytest.skip("Pillow without ZSTD")
    with Image.open(strip) as image:
        data = strip.getvalue()[image.tag_v2[273][0] :][: image.tag_v2[279][0]]
    monkeypatch.setitem(CODECS, 50000, lambda raw: data)
    photo = read(tmp_path, make_tiff(levels[..., None], 16, 1, codec=50000))
    np.testing.assert_array_equal(photo.pixels, levels)


@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_bits_that_run_backwards(tmp_path, bits):
    numbers = RANDOM.integers(0, 2**bits, (5, 13, 1), np.uint64)
    photo = read(tmp_path, make_tiff(numbers, bits, 1, reversed=True))
    np.testing.assert_array_equal(photo.pixels, expected_levels(numbers[..., 0], bits))


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib", "predictor": True}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_tifffile_writes(tmp_path, options, byteorder, planes, bigtiff, dtype):
    levels = RANDOM.integers(0, np.iinfo(dtype).max, (21, 35, 3)).astype(dtype)
    given = np.moveaxis(levels, 2, 0) if planes == "separate" else levels
    path = tmp_path / "a.tif"
    options = {**options, "bigtiff": bigtiff, "byteorder": byteorder}
    tifffile.imwrite(path, given, photometric="rgb", planarconfig=planes, **options)
    np.testing.assert_array_equal(read_photo(path).pixels, levels)
    assert image_size(path) == (21, 35)
    assert np.abs(read_rgb(path) - levels / (np.iinfo(dtype).max / 255)).max() <= 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 12])
def test_orientation(tmp_path, orientation, bits):
    numbers = RANDOM.integers(0, 2**bits, (5, 13, 3), np.uint64)
    stored = expected_levels(numbers, bits)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).swapaxes(0, 1),
        8: np.rot90(stored),
    }[orientation]
    photo = read(tmp_path, make_tiff(numbers, bits, 2, _274=orientation))
    np.testing.assert_array_equal(photo.pixels, upright)
    assert image_size(tmp_path / "a.tif") == upright.shape[:2]
    assert photo.exif is None or 274 not in photo.exif


# === Kinds ===


@pytest.mark.parametrize("bits", [2, 8, 12, 16])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("colours", [1, 3])
def test_opacity(tmp_path, bits, planar, colours):
    numbers = RANDOM.integers(0, 2**bits, (5, 13, colours + 1), np.uint64)
    kind = 2 if colours == 3 else 1
    photo = read(tmp_path, make_tiff(numbers, bits, kind, planar=planar, _338=2))
    levels = expected_levels(numbers, bits)
    np.testing.assert_array_equal(photo.alpha, levels[..., -1])
    np.testing.assert_array_equal(photo.pixels, levels[..., 0] if colours == 1 else levels[..., :3])


def test_opacity_that_was_multiplied_with_colours(tmp_path):
    alpha = RANDOM.integers(30000, 65536, (5, 13, 1))
    colours = RANDOM.integers(0, 65536, (5, 13, 3))
    multiplied = np.rint(colours * alpha / 65535).astype(int)
    photo = read(tmp_path, make_tiff(np.dstack([multiplied, alpha]), 16, 2, _338=1))
    assert np.abs(photo.pixels.astype(int) - colours).max() <= 2
    np.testing.assert_array_equal(photo.alpha, alpha[..., 0])


def test_extra_channels_of_unknown_meaning(tmp_path):
    numbers = RANDOM.integers(0, 65536, (5, 13, 5))
    photo = read(tmp_path, make_tiff(numbers, 16, 2, _338=[0, 2]))
    np.testing.assert_array_equal(photo.pixels, numbers[..., :3])
    np.testing.assert_array_equal(photo.alpha, numbers[..., 4])
    assert photo.notes == ("extra channels of unknown meaning are left out",)
    with pytest.raises(ImageFileError, match="a TIFF of 2 channels that have no meaning as colours"):
        read(tmp_path, make_tiff(numbers[..., :2], 16, 1))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("order", ["little", "big"])
def test_palettes(tmp_path, bits, order):
    table = RANDOM.integers(0, 256, (3, 2**bits))
    numbers = RANDOM.integers(0, 2**bits, (5, 13, 1))
    photo = read(tmp_path, make_tiff(numbers, bits, 3, order=order, _320=(table * 256 + 99).ravel().tolist()))
    np.testing.assert_array_equal(photo.pixels, table.T[numbers[..., 0]])


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("planar", [False, True])
def test_cmyk_is_white_minus_inks(tmp_path, bits, planar):
    numbers = RANDOM.integers(0, 2**bits, (5, 13, 4))
    photo = read(tmp_path, make_tiff(numbers, bits, 5, planar=planar))
    ink = numbers / (2**bits - 1)
    assert np.abs(photo.pixels / 255 - (1 - ink[..., :3]) * (1 - ink[..., 3:])).max() < 2.1 / 255


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
def test_cielab_is_what_littlecms_makes_of_it(tmp_path, bits, planar):
    lightness = RANDOM.integers(60, 230, (9, 13))
    signed = RANDOM.integers(-30, 30, (2, 9, 13))
    image = Image.frombytes("LAB", (13, 9), np.dstack([lightness, *(signed % 256)]).astype(np.uint8).tobytes())
    spaces = [ImageCms.createProfile("LAB", 5000), ImageCms.createProfile("sRGB")]
    exactly = ImageCms.Flags.NOOPTIMIZE  # else LittleCMS interpolates in a coarse table
    expected = np.asarray(ImageCms.profileToProfile(image, *spaces, outputMode="RGB", flags=exactly)).astype(int)
    numbers = np.dstack([lightness, *(signed % 256)])
    if bits == 16:
        numbers = np.dstack([lightness * 257, *(signed * 256 % 65536)])
    photo = read(tmp_path, make_tiff(numbers, bits, 8, planar=planar))
    assert photo.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    inside = ((expected > 0) & (expected < 255)).all(axis=-1)  # beyond sRGB, LittleCMS clips elsewhere
    assert inside.mean() > 0.3
    assert np.abs(photo.pixels / (1 if bits == 8 else 257) - expected)[inside].max() < 1.6
    assert photo.notes == ("CIELab converted to sRGB",)


def test_ycbcr_and_jpeg_in_tiff_are_read_by_pillow(tmp_path):
    Image.new("RGB", (32, 16), (10, 200, 90)).save(tmp_path / "a.tif", compression="jpeg", quality=100)
    assert np.abs(read_rgb(tmp_path / "a.tif").astype(int) - (10, 200, 90)).max() <= 3
    photo = read(tmp_path, make_tiff(np.full((16, 16, 3), (120, 128, 128)), 8, 6, _530=[1, 1]))
    assert np.abs(photo.pixels.astype(int) - 120).max() <= 1


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_lzw", "packbits"])
def test_fax(tmp_path, compression):
    bits = RANDOM.integers(0, 2, (20, 37)).astype(bool)
    Image.fromarray(bits).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, bits * np.uint8(255))


# === What is refused, and pictures among others ===


def test_pictures_of_unknown_meaning_are_refused_by_name(tmp_path):
    numbers, path = np.ones((4, 4, 3), int), tmp_path / "a.tif"
    for content, message in {
        make_tiff(numbers, 32, 2, _339=[3, 3, 3]): "a TIFF of 32-bit floating-point RGB, which has no fixed white",
        make_tiff(numbers, 16, 2, _339=[2, 2, 2]): "a TIFF of signed or complex numbers",
        make_tiff(numbers, 8, 10): "a TIFF of ITULab; convert it to RGB first",
        make_tiff(numbers, 8, 77): "a TIFF of photometric interpretation 77",
        make_tiff(np.ones((4, 4, 4), int), 8, 5, _332=2): "a TIFF with inks other than CMYK",
        make_tiff(numbers[..., :2], 8, 2): "a TIFF of RGB with 2 channels",
        make_tiff(numbers, 8, 2).replace(
            struct.pack("<HHLL", 277, 4, 1, 3), struct.pack("<HHLL", 277, 4, 1, 10**9)
        ): "a TIFF of 1000000000 channels",
        make_tiff(numbers, 8, 2)[:60]: "cannot be read",
        make_tiff(numbers, 12, 6): "a TIFF of 12-bit YCbCr",
    }.items():
        path.write_bytes(content)
        for function in (read_photo, read_rgb):
            with pytest.raises(ImageFileError, match=message) as caught:
                function(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    codec = make_tiff(numbers, 8, 2).replace(struct.pack("<HHLL", 259, 4, 1, 1), struct.pack("<HHLL", 259, 4, 1, 34887))
    with pytest.raises(ImageFileError, match="a TIFF with compression 34887, which is not supported"):
        read(tmp_path, codec)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("codec", CODECS)
def test_truncated_files_are_refused_by_name(tmp_path, bits, codec):
    content = make_tiff(RANDOM.integers(0, 2**bits, (40, 40, 3)), bits, 2, codec=codec, planar=True)
    length = 40 * 40 * bits // 8
    lying = content.replace(struct.pack("<HHLL", 257, 4, 1, 40), struct.pack("<HHLL", 257, 4, 1, 80))
    lying = lying.replace(struct.pack("<HHLL", 278, 4, 1, 40), struct.pack("<HHLL", 278, 4, 1, 80))
    assert lying != content and length
    with pytest.raises(ImageFileError, match=r"a\.tif"):
        read(tmp_path, lying)


def write_directories(path, directories):
    """A TIFF whose first directory is a thumbnail, with further directories after or below it."""
    with tifffile.TiffWriter(path) as file:
        for levels, options in directories:
            file.write(levels, **options)


def test_raw_files_are_refused_and_their_thumbnails_are_not_taken(tmp_path):
    thumbnail, sensor = np.zeros((16, 24, 3), np.uint8), np.zeros((64, 96), np.uint16)
    path = tmp_path / "a.tif"
    first = (thumbnail, {"photometric": "rgb", "subfiletype": 1, "subifds": 1})
    write_directories(path, [first, (sensor, {"photometric": 32803, "extratags": [(33422, 1, 4, b"\0\1\1\2", True)]})])
    for function in (read_photo, read_rgb, image_size):
        with pytest.raises(ImageFileError, match=r"a\.tif is a raw file; develop it first"):
            function(path)
    write_directories(path, [first, (sensor, {"photometric": "minisblack"})])
    with pytest.raises(ImageFileError, match="is a raw file; develop it first"):
        read_photo(path)
    version = [(50706, 1, 4, b"\1\4\0\0", True)]
    write_directories(path, [(thumbnail, {"photometric": "rgb", "extratags": version})])
    with pytest.raises(ImageFileError, match="is a raw file; develop it first"):
        read_photo(path)


def test_a_thumbnail_before_its_picture_is_left_out(tmp_path):
    picture = RANDOM.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    for levels in (picture, picture.astype(np.uint16) * 257):
        write_directories(
            tmp_path / "a.tif",
            [(levels[::4, ::4], {"photometric": "rgb", "subfiletype": 1}), (levels, {"photometric": "rgb"})],
        )
        photo = read_photo(tmp_path / "a.tif")
        np.testing.assert_array_equal(photo.pixels, levels)
        assert photo.notes == () and image_size(tmp_path / "a.tif") == (64, 96)


def test_reduced_copies_are_no_frames(tmp_path):
    picture = RANDOM.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    copies = [(picture[::2, ::2], {"photometric": "rgb", "subfiletype": 1})]
    write_directories(tmp_path / "a.tif", [(picture, {"photometric": "rgb"}), *copies])
    assert read_photo(tmp_path / "a.tif").notes == ()


def test_directories_that_point_at_each_other_end(tmp_path):
    content = bytearray(make_tiff(np.ones((4, 4, 1), int), 8, 1))
    (first,) = struct.unpack_from("<L", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<L", content, first + 2 + 12 * count, first)
    assert read(tmp_path, bytes(content)).pixels.shape == (4, 4)


def test_large_claims_are_refused_before_anything_is_allocated(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ImageFileError, match=r"too many pixels .*\(at most 40\)"):
        read(tmp_path, make_tiff(np.ones((8, 8, 1), int), 12, 1))


# === Writing ===


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("strip", [1, 500, 10**6])
def test_what_is_written_is_what_tifffile_and_pillow_read(tmp_path, monkeypatch, dtype, channels, strip):
    monkeypatch.setattr(tiff, "STRIP", strip)
    levels = RANDOM.integers(0, np.iinfo(dtype).max, (37, 11, channels)).astype(dtype)
    alpha = levels[..., -1] if channels % 2 == 0 else None
    pixels = levels[..., :3] if channels > 2 else levels[..., 0]
    path = tmp_path / "a.tif"
    with open(path, "wb") as file:
        tiff.write_tiff(file, pixels, alpha, {305: "keras-psr"}, {})
    np.testing.assert_array_equal(tifffile.imread(path), levels.squeeze())
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, pixels)
    assert alpha is None or (photo.alpha == alpha).all()
    if dtype == np.uint8:
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), levels.squeeze())
