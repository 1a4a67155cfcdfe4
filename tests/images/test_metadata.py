"""Metadata stay true when pixels change: values in pixels are scaled or left out with a note, the rest is kept."""

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, PngImagePlugin

from keras_psr.images import metadata
from keras_psr.images.decoding import read_photo, read_rgb
from keras_psr.images.encoding import fit_to_format, save_photo
from keras_psr.images.photo import Photo
from keras_psr.inference.photos import upscale_photo

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
IPTC = b"\x1c\x02\x05\0\x05title\x1c\x02\x19\0\x07keyword"
XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>
<rdf:Description tiff:Orientation="6" exif:PixelXDimension='10' xmp:Rating="4" exif:FocalPlaneXResolution="5000/3"
 GPano:FullPanoWidthPixels="40" GPano:CroppedAreaTopPixels="3"><tiff:ImageWidth>10</tiff:ImageWidth>
<tiff:ImageLength>6</tiff:ImageLength><xmp:Thumbnails><rdf:Alt>abc</rdf:Alt></xmp:Thumbnails>
<dc:title>r\xc3\xa9sum\xc3\xa9</dc:title></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


class Doubler:
    """Each pixel twice in both directions."""

    scale, takes_16_bits = 2, True

    def __call__(self, image, **options):
        return image.repeat(2, axis=0).repeat(2, axis=1)


def enlarge(path, out):
    """What is read again, and the notes of the first time."""
    photo = fit_to_format(upscale_photo(Doubler(), read_photo(path)), out.suffix)
    save_photo(out, photo)
    return read_photo(out), photo.notes


# === EXIF ===


def save_with_exif(path, tags, details, **options):
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    exif[ExifTags.IFD.Exif] = details
    Image.fromarray(COLOURS).save(path, exif=exif.tobytes(), **options)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("out", ["b.jpg", "b.png", "b.webp", "b.tif"])
def test_what_exif_says_in_pixels_is_scaled(tmp_path, name, out):
    details = {0xA002: 10, 0xA003: 6, 0xA20E: 1000.0, 0xA20F: 500.0, 0x9214: (4, 3, 2, 1), 0xA214: (4, 3), 0xA210: 3}
    save_with_exif(tmp_path / name, {0x010F: "Maker"}, details)
    photo, notes = enlarge(tmp_path / name, tmp_path / out)
    kept = photo.exif[ExifTags.IFD.Exif]
    assert (kept[0xA002], kept[0xA003], kept[0xA210]) == (20, 12, 3)
    assert (float(kept[0xA20E]), float(kept[0xA20F])) == (2000, 1000)
    assert tuple(kept[0x9214]) == (8, 6, 4, 2) and tuple(kept[0xA214]) == (8, 6)
    assert photo.exif[0x010F] == "Maker" and notes == ()


def test_a_turned_picture_has_its_sides_and_resolutions_turned(tmp_path):
    details = {0xA002: 10, 0xA003: 6, 0xA20E: 1000.0, 0xA20F: 500.0, 0x9214: (4, 3)}
    save_with_exif(tmp_path / "a.png", {0x0112: 6}, details)
    photo, _ = enlarge(tmp_path / "a.png", tmp_path / "b.png")
    kept = photo.exif[ExifTags.IFD.Exif]
    assert photo.pixels.shape == (20, 12, 3) and (kept[0xA002], kept[0xA003]) == (12, 20)
    assert (float(kept[0xA20E]), float(kept[0xA20F])) == (1000, 2000) and 0x9214 not in kept


def locate(tags, column, row):
    """Place on the map of a pixel's corner (or point), by GeoTIFF's own formulas."""
    keys = tags.get(34735, ())
    shift = 0.5 if any(keys[at : at + 4] == (1025, 0, 1, 2) for at in range(4, len(keys), 4)) else 0
    column, row = column - shift, row - shift  # points are the middles of pixels
    if 34264 in tags:
        matrix = np.reshape(tags[34264], (4, 4))
        return tuple((matrix @ [column, row, 0, 1])[:2])
    i, j, _, x, y, _ = tags[33922]
    across, down, _ = tags[33550]
    return x + (column - i) * across, y - (row - j) * down


@pytest.mark.parametrize("kind", ["area", "point"])
@pytest.mark.parametrize("form", ["scale", "matrix"])
@pytest.mark.parametrize("bits", [8, 16])
def test_maps_lie_where_they_lay(tmp_path, kind, form, bits):
    keys = (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 1 if kind == "area" else 2)
    scale = [(33550, "d", 3, (0.5, 0.25, 0.0), True), (33922, "d", 6, (2.0, 1.0, 0.0, 480.0, 90.0, 0.0), True)]
    matrix = [(34264, "d", 16, (0.5, 0.1, 0.0, 480.0, 0.2, -0.25, 0.0, 90.0, *(0.0,) * 7, 1.0), True)]
    tags = [*(scale if form == "scale" else matrix), (34735, "H", len(keys), keys, True)]
    coefficients = [(50844, "d", 92, (0.0,) * 92, True)]
    tifffile.imwrite(tmp_path / "a.tif", COLOURS.astype(f"u{bits // 8}"), extratags=[*tags, *coefficients])
    _, notes = enlarge(tmp_path / "a.tif", tmp_path / "b.tif")
    before, after = (read_tags(tmp_path / name) for name in ("a.tif", "b.tif"))
    for column, row in [(0, 0), (10, 6), (3, 2.5)]:
        assert locate(after, 2 * column, 2 * row) == pytest.approx(locate(before, column, row))
    assert after[34735] == keys and 50844 not in after
    assert notes == ("geographic coefficients left out, because they refer to pixels",)


def read_tags(path):
    with tifffile.TiffFile(path) as file:
        return {tag.code: tag.value for tag in file.pages[0].tags}


@pytest.mark.parametrize(
    "description", ["ImageJ=1.53\nunit=micron\n", '<?xml version="1.0"?><OME PhysicalSizeX="0.1"/>']
)
def test_a_microscope_s_sizes_do_not_go_stale(tmp_path, description):
    tifffile.imwrite(
        tmp_path / "a.tif", COLOURS, description=description, metadata=None, resolution=(100, 50), resolutionunit=3
    )
    photo, notes = enlarge(tmp_path / "a.tif", tmp_path / "b.tif")
    assert photo.exif is None or 270 not in photo.exif
    assert photo.dpi == pytest.approx((2 * 254, 2 * 127))
    assert notes == ("the microscope's own data left out, because it refers to pixels",)
    save_photo(tmp_path / "same.tif", read_photo(tmp_path / "a.tif"))
    assert read_photo(tmp_path / "same.tif").exif[270] == description


def test_the_shape_that_tifffile_describes_is_left_out(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COLOURS)
    assert '"shape"' in read_photo(tmp_path / "a.tif").exif[270]
    photo, notes = enlarge(tmp_path / "a.tif", tmp_path / "b.tif")
    assert notes == () and 270 not in photo.exif


def test_layers_of_photoshop_are_left_out_and_told(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COLOURS, extratags=[(37724, 7, 8, b"layers..", True)])
    assert "Photoshop's layers left out" in read_photo(tmp_path / "a.tif").notes


@pytest.mark.filterwarnings("ignore")
def test_entries_that_cannot_be_written_are_left_out_and_the_others_kept():
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 1
    exif[ExifTags.IFD.Exif] = {0x829A: 0.125, 0x8827: 10**30, 0x9003: "2020:01:02 03:04:05", 0xA002: object()}
    kept, notes = metadata.keep_exif(exif, 1)
    assert notes == ["EXIF data is damaged"] and kept[0x010F] == "Maker"
    assert set(kept[ExifTags.IFD.Exif]) == {0x829A, 0x9003}
    kept.tobytes()


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_in_exif_never_cost_a_picture(tmp_path):
    save_with_exif(tmp_path / "a.jpg", {0x010F: "Maker", 0x011A: 72.0}, {0x829A: 0.125, 0x927C: b"note" * 9})
    content = (tmp_path / "a.jpg").read_bytes()
    start, generator = content.index(b"Exif\0\0") + 6, np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for at in generator.integers(start, start + 138, 4):
            damaged[at] = generator.integers(0, 256)
        (tmp_path / "b.jpg").write_bytes(damaged)
        photo, _ = enlarge(tmp_path / "b.jpg", tmp_path / "c.png")
        assert sorted(photo.pixels.shape[:2]) == [12, 20]
        enlarge(tmp_path / "b.jpg", tmp_path / "c.tif")


def test_exif_that_jpeg_does_not_hold_is_shed_maker_note_first(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[ExifTags.IFD.Exif] = {0x927C: bytes(70000), 0x829A: 0.125}
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    photo, notes = enlarge(tmp_path / "a.png", tmp_path / "b.jpg")
    assert notes == ("maker note left out, because JPEG stores only 64 KB of EXIF data",)
    assert photo.exif[0x010F] == "Maker" and float(photo.exif[ExifTags.IFD.Exif][0x829A]) == 0.125
    exif[ExifTags.IFD.Exif] = {0x9286: bytes(70000), 0x829A: 0.125}
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    photo, notes = enlarge(tmp_path / "a.png", tmp_path / "b.jpg")
    assert notes == ("EXIF entry UserComment left out, because JPEG stores only 64 KB of EXIF data",)
    assert float(photo.exif[ExifTags.IFD.Exif][0x829A]) == 0.125
    for name in ("b.png", "b.webp", "b.tif"):
        photo, notes = enlarge(tmp_path / "a.png", tmp_path / name)
        assert notes == () and len(photo.exif[ExifTags.IFD.Exif][0x9286]) == 70000


# === XMP, IPTC, texts ===


def save_with_all(path):
    photo = Photo(COLOURS, xmp=XMP, iptc=IPTC, texts=(("Comment", "a comment"),))
    save_photo(path, photo)
    return photo


KEPT = {"png": {"xmp", "iptc", "texts"}, "jpg": {"xmp", "iptc", "texts"}, "tif": {"xmp", "iptc"}, "webp": {"xmp"}}


@pytest.mark.parametrize("given", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("wanted", ["png", "jpg", "tif", "webp", "bmp"])
def test_metadata_are_kept_where_the_format_holds_them(tmp_path, given, wanted):
    save_with_all(tmp_path / f"a.{given}")
    photo, notes = enlarge(tmp_path / f"a.{given}", tmp_path / f"b.{wanted}")
    kept = KEPT[given] & KEPT.get(wanted, set())
    assert photo.iptc == (IPTC if "iptc" in kept else None)
    assert photo.texts == ((("Comment", "a comment"),) if "texts" in kept else ())
    assert (photo.xmp is not None) == ("xmp" in kept)
    names = {"xmp": "XMP", "iptc": "IPTC", "texts": "texts"}
    lost = [names[name] for name in ("xmp", "iptc", "texts") if name in KEPT[given] - kept]
    format_name = {"tif": "TIFF", "webp": "WEBP", "bmp": "BMP"}.get(wanted, "")
    assert notes == ((f"{format_name} cannot store {' or '.join(lost)}",) if lost else ())


def test_sizes_and_orientation_in_xmp_are_corrected():
    text = metadata.resize_xmp(XMP, (6, 10), (12, 20)).decode()
    for part in [
        'tiff:Orientation="1"', "exif:PixelXDimension='20'", "<tiff:ImageWidth>20<", "<tiff:ImageLength>12<",
        'xmp:Rating="4"', 'FocalPlaneXResolution="10000/3"', 'WidthPixels="80"', 'TopPixels="6"', "résumé",
    ]:  # fmt: skip
        assert part in text
    assert "Thumbnails" not in text
    same = metadata.resize_xmp(XMP, (6, 10), (6, 10)).decode()
    assert "<tiff:ImageWidth>10<" in same and 'FocalPlaneXResolution="5000/3"' in same


def test_xmp_alone_may_say_how_a_picture_lies(tmp_path):
    save_photo(tmp_path / "a.png", Photo(COLOURS))
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    Image.fromarray(COLOURS).save(tmp_path / "a.png", pnginfo=info)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), np.rot90(COLOURS, -1))
    assert b'tiff:Orientation="1"' in enlarge(tmp_path / "a.png", tmp_path / "b.png")[0].xmp


def test_xmp_that_is_no_text_is_left_out_and_told(tmp_path):
    save_photo(tmp_path / "a.webp", Photo(COLOURS, xmp=b"<x>"))
    assert fit_to_format(Photo(COLOURS, xmp=b"\xff\xfe\xff"), ".webp").notes == ("damaged XMP left out",)


def test_xmp_and_iptc_too_large_for_jpeg_are_left_out_and_told(tmp_path):
    photo = Photo(COLOURS, xmp=b"x" * 70000, iptc=b"i" * 70000, texts=(("Comment", "c" * 70000),))
    fitted = fit_to_format(photo, ".jpg")
    assert (fitted.xmp, fitted.iptc, fitted.texts) == (None, None, ())
    assert [note.split(" left out")[0] for note in fitted.notes] == ["XMP", "IPTC", "comment"]
    save_photo(tmp_path / "a.jpg", photo)


def test_png_texts(tmp_path):
    texts = (("Title", "plain"), ("Author", "Łukasz"), ("parameters", "steps " * 500), ("Long", "€" * 2000))
    save_photo(tmp_path / "a.png", Photo(COLOURS, texts=texts))
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert tuple(image.text.items()) == texts
    assert read_photo(tmp_path / "a.png").texts == texts
    _, notes = enlarge(tmp_path / "a.png", tmp_path / "b.jpg")
    assert notes == ("JPEG cannot store texts",)


def test_texts_that_repeat_numbers_of_the_file_are_left_out():
    texts = [("Title", "t"), ("exif:PixelXDimension", "10"), ("Thumb::Image::Width", "10"), ("png:IHDR.width", "10")]
    assert metadata.sort_texts(texts)[0] == [("Title", "t")]


def test_what_imagemagick_hides_in_texts_is_found(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", metadata.raw_profile("exif", exif.tobytes()), zip=True)
    info.add_text("Raw profile type iptc", metadata.raw_profile("iptc", metadata.wrap_iptc(IPTC)))
    Image.fromarray(COLOURS).save(tmp_path / "a.png", pnginfo=info)
    photo = read_photo(tmp_path / "a.png")
    assert photo.exif[0x010F] == "Maker" and photo.iptc == IPTC and photo.texts == ()
    assert photo.pixels.shape == (10, 6, 3)


def test_resources_of_photoshop():
    data = metadata.wrap_iptc(IPTC) + b"8BIM" + (1032).to_bytes(2, "big") + b"\3abc" + (2).to_bytes(4, "big") + b"gu"
    assert metadata.split_resources(data) == {0x0404: IPTC, 1032: b"gu"}
    assert metadata.split_resources(data[:-4]) == {0x0404: IPTC}
    assert metadata.note_resources([0x0404, 1032, 2000]) == ["Photoshop's guides and paths left out"]
    assert metadata.note_resources([0x0404, 0x03ED]) == []


# === What belongs to a picture and is another one ===


def test_gain_maps_are_told_and_no_longer_promised(tmp_path):
    xmp = b"""<x:xmpmeta><rdf:Description hdrgm:Version="1.0" xmp:Rating="3"><Container:Directory><rdf:Seq>
<Item:Length>99</Item:Length></rdf:Seq></Container:Directory></rdf:Description></x:xmpmeta>"""
    save_photo(tmp_path / "plain.jpg", Photo(COLOURS))
    content = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    marker = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    jpeg = (tmp_path / "plain.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + marker + jpeg[2:])
    photo, notes = enlarge(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert notes == ("HDR gain map left out",)
    assert b"hdrgm" not in photo.xmp and b"Container" not in photo.xmp and b'Rating="3"' in photo.xmp
    content = b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"
    (tmp_path / "a.jpg").write_bytes(
        jpeg[:2] + b"\xff\xe2" + (len(content) + 2).to_bytes(2, "big") + content + jpeg[2:]
    )
    assert read_photo(tmp_path / "a.jpg").notes == ("HDR gain map left out",)
