import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_psr.errors import ConfigError, DataError, ImageFileError
from keras_psr.images.decoding import (
    IMAGE_SUFFIXES,
    describe_endings,
    find_images,
    find_images_and_others,
    image_size,
    read_rgb,
    write_image,
)

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def assert_reads_as(path: Path, expected: np.ndarray, tolerance: int = 0) -> None:
    picture = read_rgb(path)
    assert picture.dtype == np.uint8 and picture.shape == expected.shape
    assert image_size(path) == expected.shape[:2]
    assert np.abs(picture.astype(int) - expected).max() <= tolerance


# === Finding ===


def test_find_images_walks_a_folder_and_ignores_what_is_no_visible_picture(tmp_path):
    for name in ["b.PNG", "a.jpg", "deep/er/c.tiff", ".hidden.png", ".cache/d.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    expected = [tmp_path / "a.jpg", tmp_path / "b.PNG", tmp_path / "deep/er/c.tiff"]
    assert find_images(tmp_path) == expected
    assert find_images(str(tmp_path / "**" / "*")) == expected
    assert find_images(tmp_path / "*.jpg") == [tmp_path / "a.jpg"]


def test_find_images_in_a_folder_below_a_hidden_one(tmp_path):
    (tmp_path / ".runs").mkdir()
    (tmp_path / ".runs" / "a.png").touch()
    assert find_images(tmp_path / ".runs") == [tmp_path / ".runs" / "a.png"]


def make_linked_tree(folder):
    """A real folder, a link to another one, and links that lead in circles."""
    for name in ("in/real/a.png", "in/b.png", "elsewhere/c.png", "beside.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for link, target in {"early": "real", "up": "..", "self": ".", "link": "../elsewhere"}.items():
        (folder / "in" / link).symlink_to(target)
    (folder / "elsewhere" / "back").symlink_to("../in")
    return folder / "in"


def test_linked_folders_are_searched_once_and_by_the_path_without_links(tmp_path):
    folder = make_linked_tree(tmp_path)
    expected = [folder / name for name in ("b.png", "link/c.png", "real/a.png")]
    assert find_images(folder) == expected
    assert find_images(str(folder / "**" / "*.png")) == expected
    assert find_images(str(folder / "**" / "**" / "*.png")) == expected
    assert find_images(str(folder / "*" / "*.png")) == sorted(
        [*expected[1:], folder / "early/a.png", *(folder / name for name in ("self/b.png", "up/beside.png"))]
    )


def test_a_folder_of_links_to_folders_has_pictures(tmp_path):
    make_linked_tree(tmp_path)
    (tmp_path / "links").mkdir()
    for name in ("in/real", "elsewhere"):
        (tmp_path / "links" / Path(name).name).symlink_to(tmp_path / name)
    assert [path.name for path in find_images(tmp_path / "links")] == ["b.png", "c.png", "a.png"]


def test_what_is_left_out_is_counted_by_ending(tmp_path):
    for name in ("a.png", "b.HEIC", "deep/c.heic", "d.txt", "plain", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for where in (tmp_path, str(tmp_path / "**" / "*")):
        images, others = find_images_and_others(where)
        assert images == [tmp_path / "a.png"]
        assert describe_endings(others) == "2 .heic, 1 .txt, 1 without ending"
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"There are 2 \.heic, 1 \.txt, 1 without ending\."):
        find_images(tmp_path)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_counted(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "closed").mkdir(mode=0)
    assert describe_endings(find_images_and_others(tmp_path)[1]) == "1 folders without permission"


@pytest.mark.parametrize("name", ["photo", "a[1].png", ".hidden.png"])
def test_find_images_takes_a_named_file_as_it_is(tmp_path, name):
    (tmp_path / name).touch()
    assert find_images(tmp_path / name) == [tmp_path / name]


def test_find_images_says_what_it_looked_for(tmp_path):
    with pytest.raises(DataError, match="no such file or folder: .*nowhere"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no pictures in .*looked for files ending in \.bmp, \.gif"):
        find_images(tmp_path)
    with pytest.raises(DataError, match=r"no pictures in .*\*\.jpg"):
        find_images(tmp_path / "*.jpg")


# === Reading ===


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
    with pytest.raises(ImageFileError, match="float.tif cannot be read .*float32 pixels of unknown range"):
        read_rgb(tmp_path / "float.tif")
    saved(tmp_path / "int.tif", np.full((2, 2), 70000, np.int32))
    with pytest.raises(ImageFileError, match="int32 pixels of unknown range"):
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


# === Writing ===


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
        with pytest.raises(ConfigError, match=r"expected an ending of \.bmp, \.jpeg, \.jpg, \.png"):
            write_image(tmp_path / name, COLOURS)
    for wrong in [COLOURS / 1.0, COLOURS[..., :2], COLOURS[0, 0]]:
        with pytest.raises(ConfigError, match="image must be uint8 of shape"):
            write_image(tmp_path / "a.png", wrong)
    for name, kind in [("a.jpg", "JPEG"), ("a.bmp", "BMP")]:
        with pytest.raises(ConfigError, match=f"{kind} holds no transparency"):
            write_image(tmp_path / name, np.zeros((4, 4, 4), np.uint8))
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", COLOURS)

    def half_written(image, file, **options):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half_written)
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


def test_every_readable_suffix_but_gif_can_be_written(tmp_path):
    for suffix in set(IMAGE_SUFFIXES) - {".gif"}:
        write_image(tmp_path / f"a{suffix}", COLOURS)
    assert len(find_images(tmp_path)) == len(IMAGE_SUFFIXES) - 1
