"""Colour profiles that do not belong to the pixels are left out, and the note says why."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from keras_psr.images.decoding import read_photo
from keras_psr.images.encoding import fit_to_format, save_photo
from keras_psr.images.photo import Photo
from keras_psr.images.profiles import find_fault

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
LINK = SRGB[:12] + b"link" + SRGB[16:]
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)


def test_a_profile_fits_its_own_space_only():
    assert find_fault(SRGB, "RGB") is None
    assert find_fault(SRGB, "GRAY") == "colour profile for RGB, not GRAY,"
    assert find_fault(SRGB, "CMYK") == "colour profile for RGB, not CMYK,"
    assert find_fault(LINK, "RGB") == "colour profile for another purpose"
    for damaged in (b"", b"x" * 200, SRGB[:131], SRGB[:36] + b"????" + SRGB[40:]):
        assert find_fault(damaged, "RGB") == "damaged colour profile"


@pytest.mark.parametrize("profile", [b"x" * 200, LAB, LINK, SRGB[:200]])
@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png", "a.webp"])
def test_a_profile_that_does_not_fit_costs_no_picture(tmp_path, name, profile):
    options = {"quality": 100, "subsampling": 0, "lossless": True, "icc_profile": profile}
    Image.fromarray(COLOURS).save(tmp_path / name, **options)
    photo = read_photo(tmp_path / name)
    assert photo.icc_profile is None and photo.notes[0].endswith("left out") and "colour profile" in photo.notes[0]
    assert np.abs(photo.pixels.astype(int) - COLOURS).max() <= (8 if name == "a.jpg" else 0)


@pytest.mark.parametrize("profile", [b"x" * 200, SRGB])
@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_with_a_profile_that_does_not_fit_is_converted_plainly(tmp_path, name, profile):
    Image.new("CMYK", (48, 32), (255, 0, 0, 0)).save(tmp_path / name, quality=100, icc_profile=profile)
    photo = read_photo(tmp_path / name)
    assert np.abs(photo.pixels.astype(int) - (0, 255, 255)).max() <= 2 and len(photo.notes) == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_no_file_has_a_profile_that_does_not_fit_its_pixels(tmp_path, suffix):
    save_photo(tmp_path / f"a{suffix}", Photo(COLOURS[..., 0], icc_profile=SRGB))
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert "icc_profile" not in image.info
    fitted = fit_to_format(Photo(COLOURS[..., 0], icc_profile=SRGB), suffix)
    assert fitted.notes == ("colour profile for RGB, not GRAY, left out",)


def test_grey_with_a_profile_becomes_srgb_in_webp(tmp_path):
    """Gamma 1 makes of the level 55 the light 0.2157, which is the level 128 of sRGB."""
    import struct

    from PIL.ImageCms import ImageCmsProfile

    curve = b"curv" + bytes(8)
    point = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(79)
    tags = {b"desc": name, b"kTRC": curve, b"wtpt": point}
    head = bytearray(128)
    head[8:24] = struct.pack(">I", 0x02400000) + b"mntrGRAYXYZ "
    head[36:40], head[68:80] = b"acsp", struct.pack(">3i", 63190, 65536, 54061)
    directory, body = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        directory += tag + struct.pack(">2I", 132 + 36 + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    profile = bytes(head) + directory + body
    profile = struct.pack(">I", len(profile)) + profile[4:]
    ImageCmsProfile(io.BytesIO(profile))
    photo = Photo(np.full((6, 10), 55, np.uint8), icc_profile=profile)
    fitted = fit_to_format(photo, ".webp")
    assert fitted.pixels.shape == (6, 10, 3) and np.abs(fitted.pixels.astype(int) - 128).max() <= 1
    assert fitted.notes == () and find_fault(fitted.icc_profile, "RGB") is None
    assert fit_to_format(photo, ".png").icc_profile == profile
