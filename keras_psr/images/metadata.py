"""Metadata of pictures: which EXIF, XMP, IPTC and texts are kept, and how they change when the pixels change.

References:
    Exif 3.0 (CIPA DC-008); TIFF 6.0; GeoTIFF (OGC 19-008r4); XMP part 3 and IIM of IPTC, as Photoshop stores them.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from PIL import ExifTags, Image

IPTC_RESOURCE = 0x0404
"""Number of the IPTC records among Photoshop's resources."""

IN_PLACE = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 288),
    *(289, 290, 291, 296, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 338, 339, 340, 341),
    *(347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675),
    *(ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop),
    *range(0x5001, 0x5114),  # added by Windows for its own use: thumbnails, tables, pixels per unit
}
"""TIFF tags not copied as EXIF: they describe the layout of pixels, or have their own field in `Photo`."""

_LAYERS = {37724: "Photoshop's layers", 50255: "Photoshop's annotations"}

_MICROSCOPE = {33471, 33560, 33628, 33629, 33630, 33631, 34118, 34361, 34362, 34386, 34412, 34680, 34682, 50838, 50839}
_MICROSCOPE |= {51023}
_MICROSCOPE_TEXTS = ("ImageJ=", "<OME", "<?xml", "SCANIMAGE", "[Fluoview", "<MetaData", "<ScanHeader")
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735
_GEOGRAPHIC = {33920, 50844}
_RAW = {50717, 50718, 50719, 50720, 50829, 50830}

_SUBJECT = (0x9214, 0xA214)
_FOCAL_PLANE = ((0xA20E, 1), (0xA20F, 0))
_SIZES = ((ExifTags.Base.ExifImageWidth, 1), (ExifTags.Base.ExifImageHeight, 0))

Size = tuple[int, int]


# === EXIF ===


def keep_exif(exif: Image.Exif, orientation: int) -> tuple[Image.Exif | None, list[str]]:
    """Returns the EXIF data that remains valid when the pixels are stored again, upright.

    Args:
        exif: EXIF data of the file.
        orientation: Orientation of the picture in the file, 1 to 8.

    Returns:
        The data without entries that cannot be written, or None if nothing is left; and notes.
    """
    kept, notes = Image.Exif(), []
    for tag, value in exif.items():
        if tag in _LAYERS:
            notes.append(f"{_LAYERS[tag]} left out")
        elif tag not in IN_PLACE:
            kept[tag] = value
    for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        try:
            given = exif.get(folder)
            entries = dict(given if isinstance(given, dict) else exif.get_ifd(folder))
            entries.pop(ExifTags.IFD.Interop, None)
        except Exception:  # Pillow raises many kinds on damaged directories
            notes.append("EXIF data is damaged")
            continue
        if orientation != 1:
            _turn(entries, is_sideways=orientation > 4)
        if entries:
            kept[folder] = entries
    if _is_writable(kept):
        return (kept if len(kept) else None), notes
    return _keep_writable(kept), [*notes, "EXIF data is damaged"]


def _turn(entries: dict[int, Any], *, is_sideways: bool) -> None:
    """Adapts entries to a picture that is turned upright; entries that give positions in it are removed."""
    for tag in _SUBJECT:
        entries.pop(tag, None)
    for (first, _), (second, _) in [_FOCAL_PLANE, _SIZES] if is_sideways else []:
        if first in entries and second in entries:
            entries[first], entries[second] = entries[second], entries[first]


def copy_exif(exif: Image.Exif | None) -> Image.Exif:
    """Returns a copy of EXIF data whose directories may be changed."""
    copy = Image.Exif()
    for tag, value in (exif or {}).items():
        copy[tag] = dict(value) if isinstance(value, dict) else value
    return copy


def _is_writable(exif: Image.Exif) -> bool:
    try:
        exif.tobytes()
    except Exception:  # Pillow raises many kinds for values that do not fit their type
        return False
    return True


def _keep_writable(exif: Image.Exif) -> Image.Exif | None:
    """Returns the entries that can be written, trying each separately."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if isinstance(value, dict):
            value = {name: entry for name, entry in value.items() if _can_stand_in(tag, name, entry)}
        probe = Image.Exif()
        probe[tag] = value
        if value != {} and _is_writable(probe):
            kept[tag] = value
    return kept if len(kept) else None


def _can_stand_in(folder: int, tag: int, value: Any) -> bool:
    probe = Image.Exif()
    probe[folder] = {tag: value}
    return _is_writable(probe)


def is_of_microscope(exif: Image.Exif | None) -> bool:
    """Returns whether the data comes from a microscope, so that the resolution is that of the specimen."""
    if exif is None:
        return False
    return any(tag in _MICROSCOPE for tag in exif) or _describe(exif).startswith(_MICROSCOPE_TEXTS)


def _describe(exif: Image.Exif) -> str:
    text = exif.get(ExifTags.Base.ImageDescription, "")
    return (text.decode("latin-1") if isinstance(text, bytes) else str(text)).lstrip()


def resize_exif(exif: Image.Exif, old: Size, new: Size) -> tuple[Image.Exif, list[str]]:
    """Adapts EXIF data to a new picture size: values in pixels are scaled, or left out with a note.

    Args:
        exif: EXIF data of the picture in its old size.
        old: Old height and width.
        new: New height and width.

    Returns:
        The adapted data, which is the same object if nothing changes; and notes.
    """
    copy, notes, factors = copy_exif(exif), [], (new[0] / old[0], new[1] / old[1])
    details = copy.get(ExifTags.IFD.Exif, {})
    for tag, side in _SIZES:
        if tag in details:
            details[tag] = new[side]
    if old != new:
        _resize_details(details, factors)
        notes = _resize_tags(copy, factors)
    is_same = list(copy.items()) == list(exif.items())
    return (exif if is_same else copy), notes


def _resize_details(details: dict[int, Any], factors: tuple[float, float]) -> None:
    """Scales a camera's values in pixels, and removes damaged ones."""
    down, right = factors
    for tag, factor in ((_FOCAL_PLANE[0][0], right), (_FOCAL_PLANE[1][0], down)):
        if tag in details:
            details[tag] = float(details[tag]) * factor
    for tag in _SUBJECT:
        if tag in details:
            try:
                details[tag] = _scale_pairs(details[tag], factors)
            except (TypeError, ValueError):
                del details[tag]


def _scale_pairs(values: Iterable[int], factors: tuple[float, float]) -> tuple[int, ...]:
    """Scales alternating horizontal and vertical numbers; a third number is a diameter."""
    return tuple(round(value * factors[1 - index % 2]) for index, value in enumerate(values))


def _resize_tags(exif: Image.Exif, factors: tuple[float, float]) -> list[str]:
    """Scales or removes tags of maps, microscopes and raw files."""
    notes = []
    if is_of_microscope(exif):
        notes.append("the microscope's own data left out, because it refers to pixels")
        _remove(exif, {*_MICROSCOPE, ExifTags.Base.ImageDescription})
    if _describe(exif).startswith('{"shape":'):  # tifffile's description
        _remove(exif, {ExifTags.Base.ImageDescription})
    if _remove(exif, _GEOGRAPHIC):
        notes.append("geographic coefficients left out, because they refer to pixels")
    _remove(exif, _RAW)
    try:
        _resize_map(exif, factors)
    except (TypeError, ValueError, IndexError):
        _remove(exif, {_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS, 34736, 34737})
        notes.append("damaged geographic data left out")
    return notes


def _remove(exif: Image.Exif, tags: set[int]) -> bool:
    present = [tag for tag in tags if tag in exif]
    for tag in present:
        del exif[tag]
    return bool(present)


def _resize_map(exif: Image.Exif, factors: tuple[float, float]) -> None:
    """Adapts a map's georeference so that every pixel keeps its location.

    Pixel coordinates begin at the corner of the first pixel, or at its centre if the keys say that pixels are points.
    """
    down, right = factors
    keys = tuple(exif.get(_GEO_KEYS, ()))
    is_point = any(keys[at] == 1025 and keys[at + 3] == 2 for at in range(4, len(keys) - 3, 4))
    shift = 0.5 if is_point else 0.0
    if _PIXEL_SCALE in exif:
        x, y, z = (float(value) for value in exif[_PIXEL_SCALE])
        exif[_PIXEL_SCALE] = (x / right, y / down, z)
    if _TIE_POINTS in exif:
        points = [float(value) for value in exif[_TIE_POINTS]]
        for at in range(0, len(points) - 5, 6):
            points[at] = (points[at] + shift) * right - shift
            points[at + 1] = (points[at + 1] + shift) * down - shift
        exif[_TIE_POINTS] = tuple(points)
    if _TRANSFORMATION in exif:
        matrix = [float(value) for value in exif[_TRANSFORMATION]]
        for row in range(0, 16, 4):
            x, y = matrix[row] / right, matrix[row + 1] / down
            matrix[row + 3] += shift * (x - matrix[row]) + shift * (y - matrix[row + 1])
            matrix[row], matrix[row + 1] = x, y
        exif[_TRANSFORMATION] = tuple(matrix)


# === XMP ===

_SIZE_NAMES = (
    ("tiff:ImageWidth", 1),
    ("exif:PixelXDimension", 1),
    ("tiff:ImageLength", 0),
    ("exif:PixelYDimension", 0),
)
_SCALED_NAMES = (
    (r"exif:FocalPlaneXResolution|GPano:\w*Width\w*Pixels|GPano:\w*LeftPixels", 1),
    (r"exif:FocalPlaneYResolution|GPano:\w*Height\w*Pixels|GPano:\w*TopPixels", 0),
    (r"drone-dji:CalibratedFocalLength|drone-dji:CalibratedOpticalCenterX", 1),
    (r"drone-dji:CalibratedOpticalCenterY", 0),
)
_STALE_ELEMENTS = ("xmp:Thumbnails", "exif:SubjectArea", "exif:SubjectLocation", "Container:Directory")
_STALE_NAMES = r"xmpNote:HasExtendedXMP|hdrgm:\w+|HDRGainMap:\w+|GCamera:(?:MotionPhoto|MicroVideo)\w*"


def has_gain_map(xmp: bytes | None) -> bool:
    """Returns whether an XMP packet describes a gain map, a second picture that brightens the first one (Ultra HDR)."""
    return xmp is not None and (b"hdrgm:" in xmp or b"HDRGainMap" in xmp)


def resize_xmp(xmp: bytes, old: Size, new: Size) -> bytes | None:
    """Adapts an XMP packet to an upright picture of a new size, and removes what refers to other pictures.

    Args:
        xmp: The packet.
        old: Height and width of the picture that the packet describes.
        new: Height and width of the new picture.

    Returns:
        The packet, otherwise unchanged; None if it is not UTF-8.
    """
    try:
        text = xmp.decode("utf-8")
    except UnicodeDecodeError:
        return None
    for name in _STALE_ELEMENTS:
        text = re.sub(rf"<{name}\b[^>]*?(/>|>.*?</{name}>)", "", text, flags=re.DOTALL)
    text = re.sub(rf"\s(?:{_STALE_NAMES})=(\"[^\"]*\"|'[^']*')", "", text)
    text = re.sub(rf"<({_STALE_NAMES})>[^<]*</\1>", "", text)
    text = _set_values(text, "tiff:Orientation", lambda value: "1")
    for name, side in _SIZE_NAMES:
        text = _set_values(text, name, lambda value, side=side: str(new[side]))  # type: ignore[misc]
    for names, side in _SCALED_NAMES if old != new else ():
        text = _set_values(text, names, lambda value, side=side: _scale_text(value, new[side] / old[side]))  # type: ignore[misc]
    return text.encode("utf-8")


def _set_values(text: str, names: str, change: Callable[[str], str]) -> str:
    """Changes the values of properties, whether they are attributes or elements."""
    attribute = re.compile(rf"(\s(?:{names})=)([\"'])([^\"'<]*)\2")
    element = re.compile(rf"(<({names})>)([^<]*)(</\2>)")
    text = attribute.sub(lambda match: f"{match[1]}{match[2]}{change(match[3])}{match[2]}", text)
    return element.sub(lambda match: f"{match[1]}{change(match[3])}{match[4]}", text)


def _scale_text(value: str, factor: float) -> str:
    """Multiplies an integer, a decimal or a fraction, keeping its form; returns anything else unchanged."""
    number, slash, denominator = value.strip().partition("/")
    try:
        scaled = float(number) * factor
    except ValueError:
        return value
    return (f"{scaled:.6f}" if "." in number else str(round(scaled))) + slash + denominator


# === IPTC and Photoshop's resources ===


def split_resources(data: bytes) -> dict[int, bytes]:
    """Returns Photoshop's resources by number, up to the first damaged one."""
    return dict(_read_resources(data))


def _read_resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while data[at : at + 4] == b"8BIM" and at + 7 < len(data):
        (number,), name_length = struct.unpack_from(">H", data, at + 4), data[at + 6]
        at += 6 + (name_length + 2) // 2 * 2
        if at + 4 > len(data):
            return
        (length,) = struct.unpack_from(">I", data, at)
        yield number, data[at + 4 : at + 4 + length]
        at += 4 + (length + 1) // 2 * 2


def wrap_iptc(iptc: bytes) -> bytes:
    """Returns IPTC records as the only one of Photoshop's resources."""
    return b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def note_resources(resources: Iterable[int]) -> list[str]:
    """Returns notes on lost Photoshop resources that a user made and that refer to pixels."""
    numbers = set(resources)
    kinds = {"guides": {1032}, "slices": {1050}, "paths": {*range(2000, 2998), 2999}}
    lost = [name for name, members in kinds.items() if numbers & members]
    return [f"Photoshop's {' and '.join(lost)} left out"] if lost else []


# === Texts ===

_NUMBERS_OF_OTHERS = ("png:", "Thumb::", "exif:", "tiff:", "jpeg:", "thumbnail:")


def sort_texts(texts: Iterable[tuple[str, str]]) -> tuple[list[tuple[str, str]], dict[str, bytes]]:
    """Separates PNG's texts from metadata that software stores as text.

    Texts under `_NUMBERS_OF_OTHERS`, which repeat numbers of the file or of its EXIF data, are left out: they are no
    longer true, and the EXIF data is kept.

    Returns:
        The texts; and the metadata by name: `xmp`, `exif`, `iptc`.
    """
    kept, hidden = [], {}
    for keyword, text in texts:
        if keyword == "XML:com.adobe.xmp":
            hidden["xmp"] = text.encode("utf-8")
        elif keyword.startswith("Raw profile type "):
            hidden |= _read_raw_profile(keyword.removeprefix("Raw profile type ").strip().lower(), text)
        elif not keyword.startswith(_NUMBERS_OF_OTHERS):
            kept.append((keyword, text))
    return kept, hidden


def _read_raw_profile(kind: str, text: str) -> dict[str, bytes]:
    """Reads metadata as ImageMagick writes it: a name, a length, and hexadecimal digits."""
    words = text.split()
    try:
        data = bytes.fromhex("".join(words[2:]))
    except ValueError:
        return {}
    if kind == "app1":
        kind = "xmp" if data.startswith(b"http://ns.adobe.com/xap/1.0/\0") else "exif"
        data = data.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
    if kind in ("iptc", "8bim"):
        resources = split_resources(data.removeprefix(b"Photoshop 3.0\0"))
        if IPTC_RESOURCE in resources:
            return {"iptc": resources[IPTC_RESOURCE]}
        return {"iptc": data} if kind == "iptc" else {}
    return {kind: data} if kind in ("xmp", "exif") else {}


def raw_profile(kind: str, data: bytes) -> str:
    """Returns metadata as the text in which ImageMagick and ExifTool store it when PNG has no chunk for it."""
    digits = data.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return f"\n{kind}\n{len(data):8}\n{lines}\n"
