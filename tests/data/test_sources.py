import logging

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from skimage import data

from keras_psr.data.sources import (
    SAMPLE_HELD_OUT,
    SAMPLE_TRAINING,
    TFDS_NOMINAL_SIZE,
    Picture,
    open_source,
    open_sources,
    use_pictures,
)
from keras_psr.errors import ConfigError, DataError, ImageFileError


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one of them in a folder below, and a file that is not a picture."""
    generator = np.random.default_rng(0)
    (tmp_path / "below").mkdir()
    for name, shape in {"b.png": (20, 30, 3), "below/a.png": (40, 10, 3)}.items():
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


@pytest.fixture
def mocked_tfds():
    with tfds.testing.mock_data(num_examples=3):
        yield


def test_a_folder_is_searched_whole_and_measured_without_decoding(folder):
    pictures = open_source(str(folder))
    assert [(picture.name, picture.height, picture.width) for picture in pictures] == [
        (str(folder / "b.png"), 20, 30),
        (str(folder / "below" / "a.png"), 40, 10),
    ]
    assert all(picture.read().shape == (picture.height, picture.width, 3) for picture in pictures)
    np.testing.assert_array_equal(pictures[0].read(), np.asarray(Image.open(folder / "b.png")))


def test_a_glob_and_a_file_are_sources(folder):
    assert [picture.name for picture in open_source(str(folder / "*.png"))] == [str(folder / "b.png")]
    assert [picture.name for picture in open_source(str(folder / "below" / "a.png"))] == [str(folder / "below/a.png")]


def test_sources_are_listed_in_the_order_given(folder):
    names = [picture.name for picture in open_sources(["sample:val", str(folder)])]
    assert names == ["sample:coffee", str(folder / "b.png"), str(folder / "below" / "a.png")]


def test_kinds_of_files_that_cameras_and_programs_write_are_read_as_upright_rgb(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    image, sideways = Image.fromarray(levels), Image.Exif()
    sideways[0x0112] = 6
    image.convert("L").save(tmp_path / "grey.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(levels[..., 0].astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    image.save(tmp_path / "rotated.jpg", exif=sideways)
    pictures = open_source(str(tmp_path))
    assert len(pictures) == 6
    for picture in pictures:
        upright = (20, 12) if "rotated" in picture.name else (12, 20)
        assert (picture.height, picture.width) == upright
        assert picture.read().shape == (*upright, 3) and picture.read().dtype == np.uint8


def test_broken_files_are_counted_and_named_once(folder, caplog):
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        pictures = open_source(str(folder))
    assert len(pictures) == 2
    (warning,) = caplog.messages
    assert warning.startswith("2 pictures left out:")
    assert warning.count("text.png: ") == 1 and warning.count("empty.jpg: ") == 1


def test_a_source_without_a_usable_picture_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        open_source(str(tmp_path / "gone"))
    with pytest.raises(DataError, match="no pictures in"):
        open_source(str(tmp_path))
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"No usable picture in .*: 1 found, all broken\. Give another source\."):
        open_source(str(tmp_path))


def test_the_sample_is_the_photographs_of_scikit_image():
    pictures = open_source("sample")
    assert [picture.name for picture in pictures] == [f"sample:{name}" for name in SAMPLE_TRAINING]
    for picture in pictures:
        pixels = picture.read()
        assert pixels.shape == (picture.height, picture.width, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pictures[0].read(), data.astronaut())
    np.testing.assert_array_equal(pictures[-1].read(), data.stereo_motorcycle()[0])


def test_what_is_validated_on_is_not_trained_on():
    (held_out,) = open_source("sample:val")
    np.testing.assert_array_equal(held_out.read(), data.coffee())
    assert not set(SAMPLE_HELD_OUT) & set(SAMPLE_TRAINING)


@pytest.mark.parametrize(
    ("source", "key"), [("tfds:div2k", "hr"), ("tfds:div2k:validation", "hr"), ("tfds:coco/2014:test", "image")]
)
def test_tfds_gives_the_pictures_of_its_data_set(source, key, mocked_tfds):
    pictures = open_source(source)
    assert [picture.name for picture in pictures] == [f"{source}[{index}]" for index in range(3)]
    assert {(picture.height, picture.width) for picture in pictures} == {TFDS_NOMINAL_SIZE}
    name, _, split = source.removeprefix("tfds:").partition(":")
    records = tfds.data_source(name, split=split or "train")
    for picture, record in zip(pictures, records, strict=True):
        pixels = picture.read()
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        np.testing.assert_array_equal(pixels, record[key])


@pytest.mark.parametrize(
    ("source", "reason"), [("tfds:no_such_set", "no_such_set"), ("tfds:mnist", "it has no colour picture")]
)
def test_tfds_sources_that_cannot_be_used_are_refused(source, reason, mocked_tfds):
    with pytest.raises(DataError, match=rf"Cannot open {source} \(tfds:NAME\[:SPLIT\], .*{reason}"):
        open_source(source)


def picture_of(name, value, error=None):
    def read():
        if error:
            raise error
        return np.full((2, 3, 3), value, np.uint8)

    return Picture(name, 2, 3, read)


def test_pictures_that_cannot_be_used_are_left_out_and_named(caplog):
    told = []
    pictures = [picture_of("a", 1), picture_of("b", 2, ImageFileError("cut off")), picture_of("c", 3)]
    results, skipped = use_pictures(
        pictures, lambda one: int(one.read().max()), refusal="", on_picture=lambda *progress: told.append(progress)
    )
    assert results == [1, 3] and skipped == [("b", "cut off")]
    assert told == [("a", 0, 3), ("b", 1, 3), ("c", 2, 3)]
    assert caplog.messages == ["1 picture left out:\n  b: cut off"]


def test_pictures_beyond_the_limit_are_not_looked_at():
    pictures = [picture_of("a", 1, ConfigError("too small")), picture_of("b", 2), picture_of("c", 3)]
    results, skipped = use_pictures(pictures, lambda one: one.name, refusal="", limit=2)
    assert (results, skipped) == (["a", "b"], [])
    results, skipped = use_pictures(pictures, lambda one: one.read(), refusal="", limit=1)
    assert len(results) == len(skipped) == 1


def test_no_usable_picture_is_refused_with_the_first_reason():
    pictures = [picture_of("a{}", 1, ImageFileError("cut off.")), picture_of("b", 2, ConfigError("too small"))]
    with pytest.raises(DataError, match=r"^None of 2 can be read\. a{}: cut off\.$"):
        use_pictures(pictures, lambda one: one.read(), refusal="None of {number} can be read.")
    with pytest.raises(DataError, match=r"^None of 0\.$"):
        use_pictures([], lambda one: one.read(), refusal="None of {number}.")


def test_what_is_no_fault_of_a_picture_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        use_pictures([picture_of("a", 1, ZeroDivisionError())], lambda one: one.read(), refusal="")
