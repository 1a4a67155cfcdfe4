"""How files say that their pictures lost detail: by quantisation tables, chunks and formats."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from keras_psr.errors import ImageFileError
from keras_psr.images.compression import CLEAN_QUALITY, Compression, read_compression


@pytest.fixture
def save(photograph, tmp_path):
    """Saves the photograph, in a mode of Pillow's, and returns the path."""

    def save(name, mode="RGB", **options):
        path = tmp_path / name
        with Image.open(photograph) as image:
            image.convert(mode).save(path, **options)
        return path

    return save


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_the_quality_of_every_jpeg_of_the_ijg_is_read(save, subsampling):
    """Pillow encodes with libjpeg, whose tables for luma all differ."""
    for quality in range(1, 101):
        found = read_compression(save("photo.jpg", quality=quality, subsampling=subsampling))
        assert found == Compression("JPEG", quality < CLEAN_QUALITY, quality)


@pytest.mark.parametrize(
    ("mode", "options"),
    [("L", {}), ("CMYK", {}), ("YCbCr", {}), ("RGB", {"progressive": True}), ("RGB", {"keep_rgb": True})],
)
def test_every_kind_of_jpeg_has_a_quality(save, mode, options):
    assert read_compression(save("photo.jpg", mode, quality=73, **options)) == Compression("JPEG", True, 73)


def test_other_tables_have_the_quality_of_the_nearest_sum(save):
    """Tables of cameras: flat ones divide by one step everywhere. Table K.1 has 64 steps with a sum of 3,688."""
    flat = read_compression(save("photo.jpg", qtables=[[29] * 64, [40] * 64]))
    assert flat.quality == 75 and flat.has_artefacts, "29 * 64 = 1856, and half of K.1, at quality 75, is 1858"
    fine = read_compression(save("photo.jpg", qtables=[[1] * 64, [90] * 64]))
    assert fine.quality == 100 and not fine.has_artefacts, "the steps of luma count"


def test_tables_of_16_bits_are_read(save):
    content = save("photo.jpg", "L", quality=73).read_bytes()
    at = content.index(b"\xff\xdb")
    steps = content[at + 5 : at + 69]
    wide = b"\xff\xdb" + struct.pack(">HB", 131, 0x10) + b"".join(b"\0" + bytes([step]) for step in steps)
    path = save("photo.jpg", "L")
    path.write_bytes(content[:at] + wide + content[at + 69 :])
    assert read_compression(path).quality == 73


def test_a_jpeg_without_tables_has_no_quality_and_is_lossy(save):
    """Such files take their tables from elsewhere, as frames of films do."""
    path = save("photo.jpg", "L")
    content = path.read_bytes()
    at = content.index(b"\xff\xdb")
    path.write_bytes(content[:at] + content[at + 69 :])
    assert read_compression(path) == Compression("JPEG", True, None)


@pytest.mark.parametrize("ending", ["jpg", "webp", "png", "tif"])
def test_damaged_headers_are_an_error_of_one_line_or_no_matter(save, ending):
    path = save(f"photo.{ending}")
    content, outcomes = path.read_bytes(), set()
    whole = read_compression(path)
    generator = np.random.default_rng(0)
    for length in range(0, min(700, len(content)), 3):
        path.write_bytes(content[:length])
        outcomes.add(outcome_of(path))
    for _ in range(200):
        damaged = bytearray(content)
        for place in generator.integers(12, min(700, len(content)), 8):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        outcomes.add(outcome_of(path))
    assert whole in outcomes and ImageFileError in outcomes


def outcome_of(path):
    try:
        return read_compression(path)
    except ImageFileError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return ImageFileError


def animation(path, **options):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


def test_webp_says_by_its_chunk_whether_it_is_lossy(save, tmp_path):
    lossy, lossless = Compression("lossy WebP", True), Compression("lossless WebP", False)
    assert read_compression(save("a.webp", quality=100)) == lossy
    assert read_compression(save("a.webp", lossless=True)) == lossless
    exif = Image.Exif()
    exif[0x013B] = "Somebody"
    extended = {"exif": exif, "icc_profile": b"odd"}  # an odd number of bytes, which are filled up
    assert read_compression(save("a.webp", "RGBA", **extended)) == lossy
    assert read_compression(save("a.webp", "RGBA", lossless=True, **extended)) == lossless
    assert read_compression(animation(tmp_path / "b.webp", lossless=False)) == lossy
    assert read_compression(animation(tmp_path / "b.webp", lossless=True)) == lossless


@pytest.mark.parametrize("is_lossy", [False, True])
def test_an_animation_is_lossy_if_any_frame_is(tmp_path, is_lossy):
    """The frames of a second animation follow those of a lossless one, and then a text that looks like a chunk."""
    start = animation(tmp_path / "a.webp", lossless=True).read_bytes()
    more = animation(tmp_path / "b.webp", lossless=not is_lossy).read_bytes()
    content = start[8:] + more[more.index(b"ANMF") :] + b"note\x0c\0\0\0VP8 \x08\0\0\0note"
    (tmp_path / "c.webp").write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)
    with Image.open(tmp_path / "c.webp") as image:
        assert image.n_frames == 4
    assert read_compression(tmp_path / "c.webp").has_artefacts == is_lossy


def test_a_webp_without_a_picture_is_an_error(tmp_path):
    (tmp_path / "a.webp").write_bytes(b"RIFF\x0c\0\0\0WEBPEXIF\0\0\0\0")
    with pytest.raises(ImageFileError, match="it holds no picture"):
        read_compression(tmp_path / "a.webp")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.png", {}, Compression("PNG")),
        ("a.bmp", {}, Compression("BMP")),
        ("a.gif", {}, Compression("GIF")),
        ("a.tif", {"compression": "tiff_lzw"}, Compression("TIFF")),
        ("a.tif", {"compression": "jpeg", "quality": 60}, Compression("TIFF with JPEG", True)),
    ],
)
def test_other_formats_say_it_by_themselves(save, name, options, expected):
    assert read_compression(save(name, **options)) == expected


def test_avif_and_heic_are_taken_to_be_lossy(save):
    from PIL import features

    if features.check("avif"):
        assert read_compression(save("a.avif")) == Compression("AVIF", True)
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    assert read_compression(save("a.heic", format="HEIF")) == Compression("HEIC", True)


def test_the_content_counts_and_not_the_name(save):
    path = save("photo.png", format="JPEG", quality=60)
    assert read_compression(path) == Compression("JPEG", True, 60)
    several = io.BytesIO()
    with Image.open(path) as image:
        image.save(several, "MPO", save_all=True, append_images=[image.copy()], quality=81)
    path.write_bytes(several.getvalue())
    assert read_compression(path) == Compression("JPEG", True, 81), "phones write MPO under the name of JPEG"


@pytest.mark.parametrize("content", [b"", b"Dear reader,\n", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_an_error(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageFileError, match=r"a\.jpg"):
        read_compression(tmp_path / "a.jpg")
    with pytest.raises(ImageFileError, match="no such picture"):
        read_compression(tmp_path / "b.jpg")
