"""Decodes picture files of every format to pixels and metadata, both for fits and for photos."""

import io
import os
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile

from keras_psr.errors import ImageFileError
from keras_psr.images import metadata, png, tiff
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import lay_over_white, to_8_bits, to_three_channels
from keras_psr.images.profiles import convert_to_srgb, find_fault
from keras_psr.images.tiff import UnusableKindError

FIRST_OF = "first of "
"""Begins the note that only one of several frames or pages was read."""

READABLE = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Names of the formats that can be read; AVIF needs Pillow 11.3, and HEIF needs pillow-heif."""

_BRANDS = {"AVIF": (b"avif", b"avis"), "HEIF": (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevx", b"mif1", b"msf1")}
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (png.SIGNATURE, "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_OTHERS = (
    (b"v/1\x01", "an OpenEXR picture of floating-point light; convert it to 8 or 16 bits first"),
    (b"#?R", "a Radiance HDR picture of floating-point light; convert it to 8 or 16 bits first"),
    (b"PF\n", "a PFM picture of floating-point numbers; convert it to 8 or 16 bits first"),
    (b"Pf\n", "a PFM picture of floating-point numbers; convert it to 8 or 16 bits first"),
    (b"\xff\x0a", "a JPEG XL picture; convert it to PNG first"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture; convert it to PNG first"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture; convert it to PNG first"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture; convert it to PNG first"),
    (b"8BPS", "a Photoshop document; export it as PNG or TIFF first"),
    (b"%PDF", "a PDF document; export its pages as PNG first"),
    (b"FUJIFILM", "a raw file; develop it first"),
    (b"IIRO", "a raw file; develop it first"),
    (b"IIRS", "a raw file; develop it first"),
    (b"IIU\0", "a raw file; develop it first"),
    (b"\0MRM", "a raw file; develop it first"),
    (b"FOVb", "a raw file; develop it first"),
    (b"DDS ", "a DDS texture; convert it to PNG first"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the picture with `git lfs pull`"),
)
"""First bytes of files in unsupported formats, each with the message for it."""

_SWAPPED = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
"""Swaps byte orders: Pillow keeps the high byte of 16-bit colour, or with the opposite byte order, the low byte."""

_CMYK_CHANNELS = 4


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Returns the size of the picture that `read_rgb` would return, from the file's header alone.

    Args:
        path: Picture file.

    Returns:
        (height, width) in pixels, after EXIF orientation.

    Raises:
        ImageFileError: The file is missing or not a picture.

    Example:
        height, width = image_size("photo.jpg")
    """
    with naming_errors(path), open(path, "rb") as file:
        if identify(file) == "TIFF":
            entry = tiff.read_directory(file)
            size, orientation = (entry.height, entry.width), entry.orientation
        else:
            with open_with_pillow(file) as image:
                # Not image.getexif(), because that decodes all pixels of a PNG without EXIF to look for it after them.
                size, orientation = image.size[::-1], _orientation(Image.Image.getexif(image), image.info.get("xmp"))
        return size if orientation < 5 else size[::-1]


def read_exif(path: str | os.PathLike[str]) -> Image.Exif:
    """Returns the EXIF data of a picture, from the file's header alone.

    Args:
        path: Picture file.

    Returns:
        The file's EXIF data; empty if it has none.

    Raises:
        ImageFileError: The file is missing or not a picture, or its EXIF data is damaged.

    Example:
        camera = read_exif("photo.jpg").get(ExifTags.Base.Model)
    """
    with naming_errors(path), open(path, "rb") as file:
        if identify(file) == "TIFF":
            return tiff.read_exif(file, tiff.read_directory(file))
        with open_with_pillow(file) as image:
            return Image.Image.getexif(image)  # not image.getexif(), which decodes a PNG without EXIF


def read_comments(path: str | os.PathLike[str]) -> list[str]:
    """Returns the lines of the comments of a GIF.

    Args:
        path: A GIF.

    Returns:
        The lines of all comments before the first frame.

    Raises:
        ImageFileError: The file is missing or not a picture.

    Example:
        lines = read_comments("clip.gif")
    """
    with naming_errors(path), open(path, "rb") as file, open_with_pillow(file) as image:
        return _decode_comment(image.info.get("comment") or b"").splitlines()


def read_rgb(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a picture of any supported format as plain RGB.

    EXIF orientation is applied, grey becomes three equal channels, CMYK and palettes are converted, transparency is
    blended with white, and 16 bits are rounded to 8. Animations give their first frame. Colour profiles are ignored,
    except to convert CMYK.

    Args:
        path: Picture file: BMP, GIF, JPEG, PNG, TIFF, WebP, AVIF with Pillow 11.3, HEIC with pillow-heif.

    Returns:
        uint8 RGB, (height, width, 3).

    Raises:
        ImageFileError: The file is missing, broken, truncated, too large to be decoded safely, or not a picture.

    Example:
        >>> keras_psr.read_rgb("photo.jpg").shape
        (3000, 4000, 3)
    """
    with naming_errors(path), open(path, "rb") as file:
        pixels, alpha, _ = _decode(file)
        return to_three_channels(to_8_bits(pixels) if alpha is None else lay_over_white(pixels, alpha))


def read_photo(path: Path) -> Photo:
    """Reads a photo with everything that belongs to it.

    EXIF orientation is applied, palettes become RGB, and CMYK is converted to sRGB through its profile. Animations give
    their first frame, with a note. Metadata that is damaged or does not fit is left out, with a note.

    Args:
        path: A file as for `read_rgb`.

    Returns:
        The photo.

    Raises:
        ImageFileError: The file is missing, broken, truncated, too large to be decoded safely, or not a picture.

    Example:
        photo = read_photo(Path("photo.tif"))
    """
    with naming_errors(path), open(path, "rb") as file:
        pixels, alpha, found = _decode(file)
        exif, notes = metadata.keep_exif(found.exif, found.orientation) if found.exif is not None else (None, [])
        return Photo(
            pixels,
            alpha,
            found.profile,
            exif,
            found.dpi,
            tuple(dict.fromkeys([*found.notes, *notes])),
            found.xmp,
            found.iptc,
            tuple(found.texts),
            tuple(found.colour),
            measured=pixels.shape[:2],
        )


@contextmanager
def naming_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns any exception raised while a file is read into an ImageFileError of one line that names the file.

    Raises:
        ImageFileError: Any exception was raised, except MemoryError.
    """
    try:
        yield
    except FileNotFoundError:
        raise ImageFileError(f"no such picture: {path}; check the path.") from None
    except UnusableKindError as error:
        raise ImageFileError(f"{path} is {error}.") from None
    except Image.UnidentifiedImageError:
        raise ImageFileError(f"{path} is not a picture; expected one of {', '.join(READABLE)}.") from None
    except Image.DecompressionBombError:
        raise ImageFileError(
            f"{path} has too many pixels to be decoded safely (at most {2 * (Image.MAX_IMAGE_PIXELS or 0)}); "
            "cut it into parts."
        ) from None
    except (MemoryError, ImageFileError):
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageFileError(f"{path} cannot be read ({reason}); replace or remove it.") from error


# === Files ===


def identify(file: IO[bytes]) -> str:
    """Returns the format of a file, one of `READABLE`, from its first bytes.

    Raises:
        UnusableKindError: The file has a known format that cannot be read.
        PIL.UnidentifiedImageError: The format is unknown.
    """
    head = file.read(64)
    file.seek(0)
    for beginning, kind in _SIGNATURES:
        if head.startswith(beginning):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        if head[8:12] == b"crx ":
            raise UnusableKindError("a raw file; develop it first")
        brands = {head[at : at + 4] for at in range(8, min(64, struct.unpack(">I", head[:4])[0]), 4)}
        for kind, members in _BRANDS.items():
            if brands & set(members):
                return kind
        if brands & {b"M4A ", b"M4B "}:
            raise UnusableKindError("sound without pictures")
        raise UnusableKindError("a film; give it as a file that has a film's ending, such as .mp4")
    for beginning, message in _OTHERS:
        if head.startswith(beginning):
            raise UnusableKindError(message)
    raise Image.UnidentifiedImageError


def _register_plugin(kind: str) -> None:
    """Prepares Pillow for reading AVIF or HEIF.

    Raises:
        UnusableKindError: The library that reads the format is not installed.
    """
    if kind == "HEIF":
        try:
            import pillow_heif
        except ImportError:
            raise UnusableKindError("a HEIC picture; pip install 'keras-psr[heic]' to read it") from None
        pillow_heif.register_heif_opener()
    elif kind == "AVIF":
        Image.init()
        if kind not in Image.OPEN:
            raise UnusableKindError("an AVIF picture; install Pillow 11.3 or newer to read it, or convert it to PNG")


@contextmanager
def open_with_pillow(file: IO[bytes], *, low_bytes: bool = False) -> Iterator[ImageFile.ImageFile]:
    """Opens a picture with Pillow, without decoding it yet.

    The texts and the colour profile of a PNG are read here, because Pillow rejects the file if they are large or
    damaged.

    Args:
        file: The file; it is read from its beginning.
        low_bytes: Whether to return the low bytes of 16-bit colour instead of the high bytes.

    Yields:
        A Pillow image; for a PNG, its `info["surroundings"]` holds `png.Surroundings`; for an AVIF, `info["header"]`
        holds the beginning of the file, because Pillow does not show everything in it.
    """
    file.seek(0)
    kind = identify(file)
    _register_plugin(kind)
    surroundings, header = None, b""
    if kind == "PNG":
        data, surroundings = png.split_chunks(file.read())
        file = io.BytesIO(data)
    elif kind == "AVIF":
        header = file.read(65536)
        file.seek(0)
    with Image.open(file, formats=[kind]) as image:
        image.info |= {"header": header} if header else {}
        if surroundings is not None:
            image.info["surroundings"] = surroundings
            _, hidden = metadata.sort_texts(surroundings.texts)
            image.info |= {name: hidden[name] for name in ("xmp", "exif") if name in hidden and name not in image.info}
        if low_bytes:
            # Pillow has no such mode for grey with transparency; read as RGBA, its bytes are grey, grey, alpha, alpha.
            name, depth = _layout(image)
            swapped = "RGBA" if name == "LA" else f"{name};{_SWAPPED[depth]}"
            image.tile = [
                tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped)
                for tile in image.tile
            ]
        yield image


def _layout(image: ImageFile.ImageFile) -> tuple[str, str]:
    """Returns Pillow's name for the pixel layout: kind and depth, such as `RGB` and `16B`; empty if it varies."""
    names = {tile.args if isinstance(tile.args, str) else tile.args[0] for tile in image.tile if tile.args}
    kind, _, depth = str(names.pop() if len(names) == 1 else "").partition(";")
    return kind, depth


# === Pixels ===


@dataclass
class _Found:
    """A file's metadata, with notes on what could not be kept."""

    exif: Image.Exif | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    texts: list[tuple[str, str]] = field(default_factory=list)
    colour: list[tuple[bytes, bytes]] = field(default_factory=list)
    dpi: tuple[float, float] | None = None
    profile: bytes | None = None
    orientation: int = 1
    notes: list[str] = field(default_factory=list)


Levels = tuple[np.ndarray, np.ndarray | None]
"""Pixels, (height, width), (height, width, 3) or 8-bit CMYK (height, width, 4), and their opacity if they have any."""


def _decode(file: IO[bytes]) -> tuple[np.ndarray, np.ndarray | None, _Found]:
    """Returns a file's upright pixels in RGB or grey, its opacity, and its metadata with a profile that fits."""
    (pixels, alpha), found = (_decode_tiff if identify(file) == "TIFF" else _decode_other)(file)
    pixels = _match_profile(pixels, found)
    return pixels, alpha, found


def _decode_tiff(file: IO[bytes]) -> tuple[Levels, _Found]:
    entry = tiff.read_directory(file)
    found = _find_in_tiff(file, entry)
    if not tiff.reads_as_pillow(entry):
        pixels, alpha, notes = tiff.read_levels(file, entry)
        found.notes += notes
        return (turn_upright(pixels, entry.orientation), _turn_alpha(alpha, entry.orientation)), found
    with open_with_pillow(file) as image:
        image.seek(entry.frame)
        image.load()  # this turns it upright
        return _read_levels(image), found


def _decode_other(file: IO[bytes]) -> tuple[Levels, _Found]:
    with open_with_pillow(file) as image:
        frames = 1 if image.format in ("MPO", "HEIF") else getattr(image, "n_frames", 1)  # others are previews
        if frames > 1:
            image.seek(0)
        name, depth = _layout(image)
        image.load()
        found = _find_in_pillow(image)
        found.notes = [f"{FIRST_OF}{frames} frames"] * (frames > 1) + found.notes
        if depth in _SWAPPED and name in ("RGB", "RGBA", "LA"):
            pixels, alpha = _read_16_bits(file, image, is_grey=name == "LA")
        else:
            pixels, alpha = _read_levels(image)
        return (turn_upright(pixels, found.orientation), _turn_alpha(alpha, found.orientation)), found


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns a picture (height, width[, channels]) upright, given its EXIF orientation, 1 to 8."""
    if orientation > 4:
        image = image.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(image[rows, columns])


def _turn_alpha(alpha: np.ndarray | None, orientation: int) -> np.ndarray | None:
    return None if alpha is None else turn_upright(alpha, orientation)


def _read_levels(image: Image.Image) -> Levels:
    """Returns the pixels and opacity of a Pillow image of any mode."""
    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image)  # some Pillow versions hold 16 bits in mode I, which has 32 bits
        if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"{levels.dtype} pixels of unknown range; expected 8 or 16 bits")
        levels = levels.astype(np.uint16)
        key = image.info.get("transparency")
        return levels, None if key is None else np.where(levels == key, 0, 65535).astype(np.uint16)
    if image.mode == "CMYK":
        return np.array(image), None
    is_grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        levels = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(levels[..., 0] if is_grey else levels[..., :3]), levels[..., 3].copy()
    return np.array(image.convert("L" if is_grey else "RGB")), None


def _read_16_bits(file: IO[bytes], high_bytes: Image.Image, *, is_grey: bool) -> Levels:
    """Combines two pictures of bytes into 16-bit levels."""
    with open_with_pillow(file, low_bytes=True) as low_bytes:
        if is_grey:
            parts = np.asarray(low_bytes).astype(np.uint16)
            return parts[..., 0] << 8 | parts[..., 1], parts[..., 2] << 8 | parts[..., 3]
        levels = np.asarray(high_bytes).astype(np.uint16) << 8 | np.asarray(low_bytes)
    key = high_bytes.info.get("transparency")
    if key is not None:
        return levels, np.where((levels == key).all(axis=-1), 0, 65535).astype(np.uint16)
    return np.ascontiguousarray(levels[..., :3]), levels[..., 3].copy() if levels.shape[2] == 4 else None


def _match_profile(pixels: np.ndarray, found: _Found) -> np.ndarray:
    """Converts CMYK to RGB. A profile that does not fit is dropped, and CMYK is then converted by plain subtraction."""
    space = "GRAY" if pixels.ndim == 2 else "CMYK" if pixels.shape[2] == _CMYK_CHANNELS else "RGB"
    profile, found.profile = found.profile, None
    fault = find_fault(profile, space) if profile else None
    image = Image.fromarray(pixels, "CMYK") if space == "CMYK" else None
    if profile and not fault:
        if image is None:
            found.profile = profile
            return pixels
        try:
            converted, found.profile = convert_to_srgb(image, profile)
            return np.array(converted)
        except Exception:  # LittleCMS finds faults that the header does not show
            fault = "damaged colour profile"
    if fault:
        found.notes.append(f"{fault} left out")
    return pixels if image is None else np.array(image.convert("RGB"))


# === Metadata ===


def _find_in_tiff(file: IO[bytes], entry: tiff.Directory) -> _Found:
    found = _Found(exif=tiff.read_exif(file, entry), orientation=entry.orientation)
    if entry.count > 1:
        found.notes.append(f"{FIRST_OF}{entry.count} frames")
    resources = metadata.split_resources(entry.bytes(34377))
    found.notes += metadata.note_resources(resources)
    found.xmp, found.profile = entry.bytes(700) or None, entry.bytes(34675) or None
    found.iptc = entry.bytes(33723) or resources.get(metadata.IPTC_RESOURCE)
    found.dpi = _resolution_of_exif(found.exif)
    return found


def _find_in_pillow(image: ImageFile.ImageFile) -> _Found:
    found, info = _Found(), image.info
    try:
        found.exif = Image.Image.getexif(image)
        found.dpi = _resolution(info.get("dpi")) or _resolution_of_exif(found.exif)
    except Exception:  # Pillow raises many kinds for damaged entries, which should not cost the picture
        found.exif = None
        found.notes.append("EXIF data is damaged")
    xmp = info.get("xmp")
    found.xmp = xmp.encode("utf-8") if isinstance(xmp, str) else xmp or None
    found.orientation = _orientation(found.exif, found.xmp)
    found.profile = info.get("icc_profile") or None
    comment = info.get("comment")
    if comment:
        found.texts = [("Comment", _decode_comment(comment))]
    resources = info.get("photoshop") or {}
    found.iptc = resources.get(metadata.IPTC_RESOURCE)
    found.notes += metadata.note_resources(resources)
    found.notes += _notes_of_companions(image, found.xmp)
    found.colour = [] if found.profile else _coded_colour(image)
    surroundings = info.get("surroundings")
    if surroundings is not None:
        found.profile, found.colour = surroundings.icc_profile, surroundings.colour
        found.texts, hidden = metadata.sort_texts(surroundings.texts)
        found.iptc, found.notes = hidden.get("iptc"), found.notes + surroundings.notes
    return found


def _decode_comment(comment: bytes | str) -> str:
    if isinstance(comment, str):
        return comment
    try:
        return comment.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        return comment.rstrip(b"\0").decode("latin-1")


def _notes_of_companions(image: ImageFile.ImageFile, xmp: bytes | None) -> list[str]:
    """Returns notes on data that accompanies a picture but is not kept."""
    notes = []
    bits = image.info.get("bit_depth") or _bit_depth(image)
    if bits > 8:
        notes.append(f"{bits} bits cut to 8")
    markers = getattr(image, "applist", [])
    has_iso_map = any(name == "APP2" and data.startswith(_ISO_GAIN_MAP) for name, data in markers)
    auxiliary = " ".join(map(str, image.info.get("aux") or {}))
    if has_iso_map or metadata.has_gain_map(xmp) or "hdrgainmap" in auxiliary:
        notes.append("HDR gain map left out")
    if any(name == "APP1" and data.startswith(_EXTENDED_XMP) for name, data in markers):
        notes.append("extended XMP left out")
    return notes


_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"


def _bit_depth(image: ImageFile.ImageFile) -> int:
    """Returns the bits per channel of an AVIF, which Pillow reduces to 8."""
    match = re.search(rb"pixi.{4}[\1-\4](.)", image.info.get("header", b""), re.DOTALL)
    return match[1][0] if match else 8


def _coded_colour(image: ImageFile.ImageFile) -> list[tuple[bytes, bytes]]:
    """Returns the code points (ITU-T H.273) for the colours of an AVIF or HEIC as PNG's chunk; nothing for sRGB."""
    codes = image.info.get("nclx_profile")
    if codes:
        primaries, transfer = codes["color_primaries"], codes["transfer_characteristics"]
    else:
        match = re.search(rb"colrnclx\0(.)\0(.)", image.info.get("header", b""), re.DOTALL)
        primaries, transfer = (match[1][0], match[2][0]) if match else _UNSPECIFIED
    if primaries in (_UNSPECIFIED[0], _SRGB[0]) and transfer in (_UNSPECIFIED[1], _SRGB[1]):
        return []
    return [(b"cICP", bytes([primaries, transfer, 0, 1]))]  # 0: RGB; 1: the full range of levels


_UNSPECIFIED = (2, 2)
_SRGB = (1, 13)
"""Code points of primaries and transfer function."""


def _orientation(exif: Image.Exif | None, xmp: bytes | str | None) -> int:
    """Returns the orientation of a picture, 1 to 8, from its EXIF or XMP data; 1 if neither states it."""
    value = exif.get(ExifTags.Base.Orientation) if exif is not None else None
    if value is None and xmp:
        text = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else xmp
        match = re.search(r"tiff:Orientation(?:=[\"']|>)([1-8])", text)
        value = int(match[1]) if match else None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _resolution(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """Returns pixels per inch, or None if the numbers are implausible."""
    numbers = tuple(float(number) for number in dpi or ())
    if len(numbers) != 2 or not all(0 < number < 2**31 for number in numbers):
        return None
    return numbers[0], numbers[1]


def _resolution_of_exif(exif: Image.Exif | None) -> tuple[float, float] | None:
    """Returns pixels per inch; None without a unit, because the numbers then give only the pixels' aspect ratio."""
    unit = exif.get(ExifTags.Base.ResolutionUnit, 2) if exif else 1
    if exif is None or unit not in (2, 3):
        return None
    try:
        x, y = (float(exif.get(tag, 0)) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution))
        return _resolution((x * 2.54, y * 2.54) if unit == 3 else (x, y))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
