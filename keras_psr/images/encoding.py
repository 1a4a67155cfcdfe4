"""Encodes pictures as files, and knows what each format can store."""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image

from keras_psr.errors import ConfigError, ImageFileError
from keras_psr.images import metadata, png, tiff
from keras_psr.images.atomic import write_whole
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import lay_over_white, to_8_bits
from keras_psr.images.profiles import convert_to_srgb, find_fault

_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".bmp": {"format": "BMP"},
    ".jfif": _JPEG,
    ".jpe": _JPEG,
    ".jpeg": _JPEG,
    ".jpg": _JPEG,
    ".png": {"format": "PNG"},
    ".tif": {"format": "TIFF"},
    ".tiff": {"format": "TIFF"},
    ".webp": {"format": "WEBP", "lossless": True},
}
"""Maps the endings of all writable formats, in lower case, to Pillow's options."""

WITH_QUALITY = (".jfif", ".jpe", ".jpeg", ".jpg", ".webp")

LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "PNG": 2**31 - 1, "TIFF": 2**31 - 1, "BMP": 2**31 - 1}
"""Maximum length of a side in pixels, by format; JPEG's is the limit of libjpeg."""

_MARKER = 65_533
"""Maximum size of a JPEG marker, in bytes."""

_STANDARD_COLOUR = {
    b"sRGB": None,
    b"gAMA": (45455).to_bytes(4, "big"),
    b"cHRM": b"".join(n.to_bytes(4, "big") for n in (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
}
"""PNG chunks that say only that colours are sRGB, with their content in that case; None for any content."""


def check_format(
    path: Path,
    height: int = 1,
    width: int = 1,
    *,
    is_deep: bool = False,
    channels: int = 4,
    is_animated: bool = False,
) -> None:
    """Checks that a picture can be written, before it is computed.

    Args:
        path: Path of the file.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        is_deep: Whether the picture has 16 bits.
        channels: Number of channels, 1 to 4.
        is_animated: Whether it has several frames, and may therefore be a GIF.

    Raises:
        ConfigError: The path's ending is unknown, or its format cannot store a picture of that size.

    Example:
        check_format(Path("big.webp"), height=20000, width=30000)
    """
    suffix = path.suffix.lower()
    if suffix not in SAVE_OPTIONS and not (is_animated and suffix == ".gif"):
        raise ConfigError(f"cannot write {path}: expected an ending of {', '.join(SAVE_OPTIONS)}.")
    name = _name_format(suffix)
    longest = LONGEST_SIDE[name]
    if max(height, width) > longest:
        raise ConfigError(
            f"cannot write {path}: {name} is limited to {longest} pixels per side, and the picture would have "
            f"{width}x{height}. Write a .png or .tif, or cut it into parts."
        )
    size = height * width * channels * (2 if is_deep and name == "TIFF" else 1)
    if name in ("TIFF", "BMP") and size > tiff.MAX_BYTES:
        raise ConfigError(
            f"cannot write {path}: {name} is limited to 4 GB, and {width}x{height} pixels may need "
            f"{size / 1e9:.1f} GB. Write a .png."
        )


def _name_format(suffix: str) -> str:
    return "GIF" if suffix == ".gif" else SAVE_OPTIONS[suffix]["format"]


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes an array as a picture file, in the format of the path's ending.

    The file appears complete or not at all. Missing folders are created. JPEG is written with quality 95 and full
    colour resolution; WebP is lossless.

    Args:
        path: Path of the file; an existing file is replaced. Its ending is one of .bmp, .jfif, .jpe, .jpeg, .jpg, .png,
            .tif, .tiff and .webp.
        image: RGB (height, width, 3), grey (height, width), or RGBA (height, width, 4) except for JPEG and BMP; uint8,
            or uint16 for PNG and TIFF.

    Raises:
        ConfigError: The ending is unknown, or the format cannot store the array.
        ImageFileError: The file cannot be written.

    Example:
        >>> keras_psr.write_image("big.png", keras_psr.load("x4")(keras_psr.read_rgb("photo.jpg")))
    """
    path = Path(path)
    check_format(path)
    name = SAVE_OPTIONS[path.suffix.lower()]["format"]
    is_deep = image.dtype == np.uint16
    if image.dtype not in (np.uint8, np.uint16) or image.shape[2:] not in ((), (3,), (4,)) or image.ndim < 2:
        raise ConfigError(
            "image must be uint8 of shape (height, width), (height, width, 3) or (height, width, 4), or uint16 for PNG "
            f"and TIFF. Received: {image.dtype} of shape {image.shape}. Round with pixels.to_uint8."
        )
    if not image.size:
        raise ConfigError(f"image must contain pixels. Received: shape {image.shape}.")
    if is_deep and name not in ("PNG", "TIFF"):
        raise ConfigError(f"cannot write {path}: {name} cannot store 16 bits; use .png or .tif, or pixels.to_8_bits.")
    if name in ("BMP", "JPEG") and image.shape[2:] == (4,):
        raise ConfigError(f"cannot write {path}: {name} cannot store transparency; use .png or three channels.")
    has_alpha = image.shape[2:] == (4,)
    save_photo(path, Photo(image[..., :3], image[..., 3]) if has_alpha else Photo(image))


def save_photo(path: Path, photo: Photo, quality: int | None = None) -> None:
    """Writes a photo with everything that belongs to it, in the format of the path's ending.

    The file appears complete or not at all.

    Args:
        path: Path of the file; an existing file is replaced, and missing folders are created.
        photo: The photo. What the format cannot store is left out; `fit_to_format` tells what that is.
        quality: Quality of JPEG and WebP, 1 to 100; None for JPEG at 95 and lossless WebP. JPEG keeps full colour
            resolution.

    Raises:
        ConfigError: The ending is unknown, or the picture is too large for the format.
        ImageFileError: The file cannot be written.

    Example:
        save_photo(Path("photo.webp"), read_photo(Path("photo.tif")), quality=90)
    """
    suffix = path.suffix.lower()
    check_format(path, *photo.pixels.shape[:2], is_deep=photo.pixels.dtype == np.uint16)
    photo = fit_to_format(photo, suffix)
    with _naming_errors(path), write_whole(path) as unfinished, open(unfinished, "wb") as file:
        encode_photo(file, photo, suffix, quality)


def encode_photo(file: IO[bytes], photo: Photo, suffix: str, quality: int | None = None) -> None:
    """Writes a photo to an open file, in the format of an ending of `SAVE_OPTIONS`; `save_photo` says more.

    Example:
        with open("big.png", "wb") as file:
            encode_photo(file, photo, ".png")
    """
    encoders = {"PNG": _encode_png, "TIFF": _encode_tiff}
    encode = encoders.get(SAVE_OPTIONS[suffix]["format"])
    if encode:
        encode(file, photo)
    else:
        _encode_with_pillow(file, photo, suffix, quality)


@contextmanager
def _naming_errors(path: Path) -> Iterator[None]:
    """Turns any exception raised while a file is written into an ImageFileError of one line that names the file.

    Raises:
        ImageFileError: Any exception was raised, except MemoryError.
    """
    try:
        yield
    except MemoryError:
        raise
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise ImageFileError(f"cannot write {path} ({reason}); check the folder.") from error
    except Exception as error:  # encoders raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageFileError(f"cannot write {path} ({reason}); try another format.") from error


# === What formats can store ===


def fit_to_format(photo: Photo, suffix: str) -> Photo:
    """Removes what a format cannot store, adapts metadata to the picture's size, and adds a note for each loss.

    Args:
        photo: The photo.
        suffix: Ending of the file, such as `.jpg`; `.gif` for animations.

    Returns:
        A photo that `save_photo`, or a writer of animations, writes without further losses.

    Example:
        notes = fit_to_format(read_photo(Path("photo.tif")), ".jpg").notes
    """
    name = _name_format(suffix.lower())
    photo = _fit_metadata(_fit_pixels(_fit_size(photo), name), name)
    return _fit_jpeg(photo) if name == "JPEG" else photo


def _fit_size(photo: Photo) -> Photo:
    """Adapts metadata to the picture's own size."""
    new = photo.pixels.shape[:2]
    old, notes, exif, xmp, dpi = photo.measured or new, list(photo.notes), photo.exif, photo.xmp, photo.dpi
    if dpi is not None and old != new and metadata.is_of_microscope(exif):
        dpi = (dpi[0] * new[1] / old[1], dpi[1] * new[0] / old[0])
    if exif is not None:
        exif, more = metadata.resize_exif(exif, old, new)
        notes += more
    if xmp is not None:
        xmp = metadata.resize_xmp(xmp, old, new)
        notes += ["damaged XMP left out"] if xmp is None else []
    measured = None if photo.measured is None else new
    return replace(photo, exif=exif, xmp=xmp, dpi=dpi, notes=tuple(notes), measured=measured)


def _fit_pixels(photo: Photo, name: str) -> Photo:
    """Converts pixels to a depth and kind that the format can store."""
    pixels, alpha, profile, notes = photo.pixels, photo.alpha, photo.icc_profile, list(photo.notes)
    if pixels.dtype == np.uint16 and name in ("JPEG", "WEBP", "BMP", "GIF"):
        pixels = to_8_bits(pixels)
        alpha = None if alpha is None else to_8_bits(alpha)
        notes.append(f"16 bits rounded to 8 for {name}")
    if alpha is not None and name in ("JPEG", "BMP"):
        pixels, alpha = lay_over_white(pixels, alpha), None
        notes.append(f"transparency blended with white for {name}")
    if profile is not None:
        fault = find_fault(profile, "GRAY" if pixels.ndim == 2 else "RGB")
        if fault:
            profile = None
            notes.append(f"{fault} left out")
    if profile is not None and name == "WEBP" and pixels.ndim == 2:  # WebP has no grey
        try:
            converted, profile = convert_to_srgb(Image.fromarray(pixels), profile)
            pixels = np.array(converted)
        except Exception:  # LittleCMS finds faults that the header does not show
            profile = None
            notes.append("damaged colour profile left out")
    return replace(photo, pixels=pixels, alpha=alpha, icc_profile=profile, notes=tuple(notes))


def _fit_metadata(photo: Photo, name: str) -> Photo:
    """Removes metadata that the format cannot store, and adds one note that lists it."""
    kept = dict.fromkeys(("icc_profile", "exif", "xmp"), name not in ("BMP", "GIF"))
    kept |= {"iptc": name in ("JPEG", "PNG", "TIFF"), "texts": name == "PNG", "colour": name == "PNG"}
    names = {"icc_profile": "a colour profile", "exif": "EXIF data", "xmp": "XMP", "iptc": "IPTC", "texts": "texts"}
    lost = [words for field, words in names.items() if not kept[field] and getattr(photo, field)]
    texts = photo.texts if kept["texts"] else ()
    if name in ("JPEG", "GIF") and photo.texts:
        texts = tuple(pair for pair in photo.texts if pair[0] == "Comment")[:1]
        if len(texts) == len(photo.texts):
            lost.remove("texts")
    special = [chunk for chunk, content in photo.colour if _STANDARD_COLOUR.get(chunk, b"") not in (None, content)]
    if not kept["colour"] and special and not photo.icc_profile:
        lost.append(f"the colour description ({b', '.join(special).decode()})")
    notes = (*photo.notes, f"{name} cannot store {' or '.join(lost)}") if lost else photo.notes
    changes: dict[str, Any] = {field: None for field in ("icc_profile", "exif", "xmp", "iptc") if not kept[field]}
    return replace(photo, notes=notes, texts=texts, colour=photo.colour if kept["colour"] else (), **changes)


def _fit_jpeg(photo: Photo) -> Photo:
    """Removes metadata that exceeds the 64 KB of a JPEG marker."""
    exif, notes, changes = photo.exif, list(photo.notes), dict[str, Any]()
    while exif is not None and len(exif.tobytes()) > _MARKER:
        exif, what = _shed_largest(exif)
        notes.append(f"{what} left out, because JPEG stores only 64 KB of EXIF data")
    for name, words, limit in (("xmp", "XMP", _MARKER - 29), ("iptc", "IPTC", _MARKER - 28)):
        if len(getattr(photo, name) or b"") > limit:
            changes[name] = None
            notes.append(f"{words} left out, because JPEG stores only 64 KB of it")
    if any(len(text.encode("utf-8", "replace")) > _MARKER for _, text in photo.texts):
        changes["texts"] = ()
        notes.append("comment left out, because JPEG stores only 64 KB of it")
    return replace(photo, exif=exif, notes=tuple(notes), **changes)


def _shed_largest(exif: Image.Exif) -> tuple[Image.Exif | None, str]:
    """Returns EXIF data without the maker note, or else without the largest entry, and the name of what was removed."""
    copy = metadata.copy_exif(exif)
    details = copy.get(ExifTags.IFD.Exif, {})
    if ExifTags.Base.MakerNote in details:
        del details[ExifTags.Base.MakerNote]
        return copy, "maker note"
    places: list[tuple[Any, int]] = [(copy, tag) for tag, value in copy.items() if not isinstance(value, dict)]
    places += [(folder, tag) for folder in copy.values() if isinstance(folder, dict) for tag in folder]
    if not places:
        return None, "EXIF data"
    folder, tag = max(places, key=lambda place: _weigh(place[0][place[1]]))
    del folder[tag]
    return copy, f"EXIF entry {ExifTags.TAGS.get(tag, hex(tag))}"


def _weigh(value: Any) -> int:
    return len(value) * (1 if isinstance(value, bytes | str) else 8) if hasattr(value, "__len__") else 8


# === Encoders ===


def _encode_png(file: IO[bytes], photo: Photo) -> None:
    before = list(photo.colour)
    if photo.icc_profile:
        before = [(name, content) for name, content in before if name != b"sRGB"]
        before.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(photo.icc_profile)))
    if photo.dpi:
        dots = [min(round(number / 0.0254), 2**31 - 1) for number in photo.dpi]
        before.append((b"pHYs", b"".join(number.to_bytes(4, "big") for number in dots) + b"\1"))
    if photo.exif is not None:
        before.append((b"eXIf", photo.exif.tobytes().removeprefix(b"Exif\0\0")))
    if photo.xmp:
        before.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + photo.xmp))
    texts = [png.text_chunk(keyword, text) for keyword, text in photo.texts]
    if photo.iptc:
        texts.append(
            png.text_chunk("Raw profile type iptc", metadata.raw_profile("iptc", metadata.wrap_iptc(photo.iptc)))
        )
    png.write_png(file, photo.pixels, photo.alpha, [*before, *texts])


def _encode_tiff(file: IO[bytes], photo: Photo) -> None:
    tags: dict[int, Any] = dict((photo.exif or {}).items())
    types = {}
    if photo.dpi:
        tags |= {282: photo.dpi[0], 283: photo.dpi[1], 296: 2}
    for tag, content, kind in ((34675, photo.icc_profile, 7), (700, photo.xmp, 1), (33723, photo.iptc, 7)):
        if content:
            tags[tag], types[tag] = content, kind
    tiff.write_tiff(file, photo.pixels, photo.alpha, tags, types)


def _encode_with_pillow(file: IO[bytes], photo: Photo, suffix: str, quality: int | None) -> None:
    """Writes JPEG, WebP or BMP."""
    options: dict[str, Any] = dict(SAVE_OPTIONS[suffix])
    if suffix in WITH_QUALITY and quality is not None:
        options |= {"quality": quality, "lossless": False}
    exif = _with_resolution(photo) if options["format"] == "WEBP" else photo.exif
    if exif is not None:
        options["exif"] = exif.tobytes()
    options |= {"icc_profile": photo.icc_profile} if photo.icc_profile else {}
    options |= {"dpi": photo.dpi} if photo.dpi else {}
    if options["format"] == "JPEG":
        options["extra"] = _jpeg_markers(photo)
        options |= {"comment": photo.texts[0][1].encode("utf-8", "replace")} if photo.texts else {}
    elif photo.xmp:
        options["xmp"] = photo.xmp
    levels = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    Image.fromarray(np.ascontiguousarray(levels)).save(file, **options)


def _with_resolution(photo: Photo) -> Image.Exif | None:
    """Returns EXIF data with the resolution, which WebP can store nowhere else."""
    if not photo.dpi:
        return photo.exif
    exif = metadata.copy_exif(photo.exif)
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = photo.dpi
    exif[ExifTags.Base.ResolutionUnit] = 2
    return exif


def _jpeg_markers(photo: Photo) -> bytes:
    """Returns XMP and IPTC as JPEG markers, which Pillow 10 does not write."""
    markers = b""
    if photo.xmp:
        content = b"http://ns.adobe.com/xap/1.0/\0" + photo.xmp
        markers += b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    if photo.iptc:
        content = b"Photoshop 3.0\0" + metadata.wrap_iptc(photo.iptc)
        markers += b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content
    return markers
