"""Signatures: written in every format that holds EXIF data, and found again."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from keras_psr.cli.own_results import is_signed, sign
from keras_psr.images.decoding import read_photo
from keras_psr.images.encoding import fit_to_format, save_photo
from keras_psr.images.photo import Photo

PIXELS = np.zeros((4, 5, 3), np.uint8)


def write_signed(path, photo, model="x4"):
    save_photo(path, sign(fit_to_format(photo, path.suffix), model, path.suffix))
    return path


@pytest.mark.parametrize("ending", [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_signed_is_known_again(tmp_path, ending, dtype):
    path = write_signed(tmp_path / f"a{ending}", Photo(PIXELS.astype(dtype)))
    assert is_signed(path)
    with Image.open(path) as image:
        assert image.getexif()[ExifTags.Base.Software] == "keras-psr x4"
    assert not is_signed(write_plain(tmp_path / f"b{ending}", dtype))


def write_plain(path, dtype):
    save_photo(path, fit_to_format(Photo(PIXELS.astype(dtype)), path.suffix))
    return path


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
def test_what_stood_there_is_kept(tmp_path, ending):
    exif = Image.Exif()
    exif[ExifTags.Base.Software], exif[ExifTags.Base.Artist] = "Camera 1.0", "Somebody"
    path = write_signed(tmp_path / f"a{ending}", Photo(PIXELS, exif=exif))
    read = read_photo(path).exif
    assert (read[ExifTags.Base.Software], read[ExifTags.Base.Artist]) == ("Camera 1.0", "Somebody")
    assert is_signed(path)
    assert ExifTags.Base.ProcessingSoftware not in exif, "the photograph itself is not changed"


def test_an_older_signature_is_replaced(tmp_path):
    once = write_signed(tmp_path / "once.png", Photo(PIXELS))
    twice = write_signed(tmp_path / "twice.png", read_photo(once), "starry-night")
    assert read_photo(twice).exif[ExifTags.Base.Software] == "keras-psr starry-night"
    assert len(read_photo(twice).exif) == 1


def test_bmp_has_no_place_for_it(tmp_path):
    photo = Photo(PIXELS)
    assert sign(photo, "x4", ".bmp") is photo
    assert not is_signed(write_signed(tmp_path / "a.bmp", photo))


@pytest.mark.parametrize("content", [b"", b"keras-psr x4", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_not_signed(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert not is_signed(tmp_path / "a.png")
    assert not is_signed(tmp_path / "missing.png")
