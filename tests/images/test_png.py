"""PNG: any decoder reads what is written, and what surrounds pixels never costs them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_psr.errors import ImageFileError
from keras_psr.images import png
from keras_psr.images.decoding import image_size, read_photo, read_rgb
from keras_psr.images.encoding import fit_to_format, save_photo
from keras_psr.images.photo import Photo

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (6, 10, 3), np.uint8)


def encode(pixels, alpha=None, **options):
    file = io.BytesIO()
    png.write_png(file, pixels, alpha, **options)
    return file.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def insert(data, *chunks):
    """Chunks right after the header."""
    return data[:33] + b"".join(chunks) + data[33:]


def decode(data):
    """A decoder made from the specification: all that is between the filters is plain Python."""
    chunks, at = [], 8
    while at < len(data):
        (length,), name = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + length]
        assert data[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(name + content))
        chunks.append((name, content))
        at += 12 + length
    width, height, bits, colour = struct.unpack(">IIBB", chunks[0][1][:10])
    pixel = {0: 1, 2: 3, 4: 2, 6: 4}[colour] * bits // 8
    raw = zlib.decompress(b"".join(content for name, content in chunks if name == b"IDAT"))
    rows, above = [], [0] * (width * pixel)
    for top in range(height):
        start = top * (width * pixel + 1)
        kind, row = raw[start], list(raw[start + 1 : start + 1 + width * pixel])
        for index in range(len(row)):
            a, b = row[index - pixel] if index >= pixel else 0, above[index]
            c = above[index - pixel] if index >= pixel else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[index] = (row[index] + [0, a, b, (a + b) // 2, paeth][kind]) % 256
        rows.append(bytes(row))
        above = row
    levels = np.frombuffer(b"".join(rows), f">u{bits // 8}").reshape(height, width, -1)
    assert len(raw) == height * (width * pixel + 1) and chunks[-1] == (b"IEND", b"")
    return levels, chunks


def make_pictures():
    smooth = np.add.outer(np.arange(50) * 3, np.arange(40) * 2)
    yield "noise", RANDOM.integers(0, 65536, (50, 40, 3))
    yield "slope", np.dstack([smooth * 100, smooth * 200, 65535 - smooth * 150])
    yield "flat", np.full((50, 40, 3), 30000)
    yield "checks", (np.indices((50, 40)).sum(axis=0) % 2 * 65535)[..., None].repeat(3, axis=-1)


@pytest.mark.parametrize("strip", [1, 700, 10**6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_decoder_made_from_the_specification_reads_it(monkeypatch, strip, dtype, channels):
    monkeypatch.setattr(png, "STRIP", strip)
    for _, levels in make_pictures():
        levels = (levels >> (0 if dtype == np.uint16 else 8)).astype(dtype)
        alpha = levels[..., 1][::-1] if channels % 2 == 0 else None
        pixels = levels if channels > 2 else levels[..., 0]
        expected = np.dstack([pixels, alpha]) if alpha is not None else pixels.reshape(50, 40, -1)
        decoded, _ = decode(encode(pixels, alpha))
        np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70000), (70000, 1)])
def test_extreme_shapes(shape):
    pixels = RANDOM.integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(encode(pixels))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_paeth_s_predictor_for_all_bytes():
    """The specification's own words, for every combination of 17 levels."""
    levels = np.arange(0, 256, 15)
    left, above, corner = (part.ravel() for part in np.meshgrid(levels, levels, levels))
    estimate = left + above - corner
    nearest = np.argmin([abs(estimate - left), abs(estimate - above), abs(estimate - corner)], axis=0)
    expected = np.choose(nearest, [left, above, corner])
    received = png._predict_by_paeth(*(part.astype(np.uint8)[None] for part in (left, above, corner)))
    np.testing.assert_array_equal(received[0], expected)


def test_adler32_of_parts():
    parts = [RANDOM.bytes(int(length)) for length in (0, 1, 70000, 3, 65521)]
    checksum = 1
    for part in parts:
        checksum = png._join_adler32(checksum, zlib.adler32(part), len(part))
    assert checksum == zlib.adler32(b"".join(parts))


def test_files_are_about_as_small_as_pillow_s():
    """Files are of a photograph, a drawing and a page of text."""
    import skimage.data

    drawing = np.full((600, 800), 255, np.uint8)
    drawing[100:300, 100:500] = 40
    for pixels, worst in [(skimage.data.chelsea(), 1.06), (drawing, 1.2), (skimage.data.page(), 1.06)]:
        theirs = io.BytesIO()
        Image.fromarray(pixels).save(theirs, "PNG")
        assert len(encode(pixels)) < worst * theirs.tell()


# === What surrounds the pixels ===

LONG = zlib.compress(b"x" * 3_000_000)


@pytest.mark.parametrize(
    ("chunks", "note"),
    [
        ([chunk(b"zTXt", b"a\0\0" + LONG)], "a text of more than 1 MB is left out"),
        ([chunk(b"iTXt", b"a\0\1\0\0\0" + LONG)], "a text of more than 1 MB is left out"),
        ([chunk(b"tEXt", b"a\0" + b"x" * 2_000_000)], "a text of more than 1 MB is left out"),
        ([chunk(b"tEXt", b"a\0" + b"x" * 1_000_000)] * 9, "a text of more than 1 MB is left out"),
        ([chunk(b"zTXt", b"a\0\0nonsense")], "a damaged text is left out"),
        ([chunk(b"zTXt", b"a\0\0" + LONG[:50])], "a damaged text is left out"),
        ([chunk(b"iTXt", b"a\0")], "a damaged text is left out"),
        ([chunk(b"iTXt", b"a\0\0\0\0\0\xff\xff")], "a damaged text is left out"),
        ([chunk(b"tEXt", b"a\0b")[:-1] + b"?"], "a damaged text is left out"),
        ([chunk(b"iCCP", b"a\0\0nonsense")], "a damaged colour profile is left out"),
        ([chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 200))], "damaged colour profile left out"),
    ],
)
def test_texts_and_profiles_that_cannot_be_read_are_left_out_and_told(tmp_path, chunks, note):
    path = tmp_path / "a.png"
    path.write_bytes(insert(encode(COLOURS), *chunks))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, COLOURS)
    assert photo.notes == (note,) and photo.icc_profile is None
    assert image_size(path) == (6, 10) and (read_rgb(path) == COLOURS).all()


def test_texts_after_the_pixels_are_read(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(COLOURS, after=[(b"tEXt", b"Title\0late")]))
    assert read_photo(tmp_path / "a.png").texts == (("Title", "late"),)


def test_broken_pixels_are_still_refused(tmp_path):
    data = encode(COLOURS)
    (tmp_path / "a.png").write_bytes(data[:50])
    with pytest.raises(ImageFileError, match=r"a\.png cannot be read"):
        read_rgb(tmp_path / "a.png")


CICP = (b"cICP", bytes([9, 16, 0, 1]))
GAMMA = (b"gAMA", struct.pack(">I", 100000))


def test_colours_that_are_no_profile_are_written_through_or_told(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(COLOURS, before=[CICP, GAMMA]))
    photo = read_photo(tmp_path / "a.png")
    assert photo.colour == (CICP, GAMMA)
    save_photo(tmp_path / "b.png", photo)
    _, chunks = decode((tmp_path / "b.png").read_bytes())
    names = [name for name, _ in chunks]
    assert CICP in chunks and GAMMA in chunks and names.index(b"cICP") < names.index(b"IDAT")
    for suffix, name in {".jpg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".bmp": "BMP"}.items():
        fitted = fit_to_format(photo, suffix)
        assert fitted.notes == (f"{name} cannot store the colour description (cICP, gAMA)",)
        assert fitted.colour == ()


def test_what_says_srgb_only_needs_no_note(tmp_path):
    standard = [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455))]
    standard += [(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))]
    (tmp_path / "a.png").write_bytes(encode(COLOURS, before=standard))
    photo = read_photo(tmp_path / "a.png")
    assert photo.colour == tuple(standard) and fit_to_format(photo, ".jpg").notes == ()
    assert fit_to_format(Photo(COLOURS), ".jpg").notes == ()
