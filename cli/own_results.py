"""Signs the pictures that keras-psr makes, so that they can be told from its inputs."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_psr.images.photo import Photo

SIGNATURE = "keras-psr"
"""First word of the EXIF entry in pictures made by keras-psr."""

UNSIGNED = (".bmp",)
"""Endings of formats without EXIF data."""


def sign(photo: "Photo", model: str, ending: str) -> "Photo":
    """Adds an EXIF entry that names the model.

    The entry is `Software`, or `ProcessingSoftware` if `Software` already names a camera or an editor.

    Args:
        photo: The photo as it will be written.
        model: Name of the model or painting.
        ending: Ending of the file, such as `.png`.

    Returns:
        The photo with the entry, if its format can store one.
    """
    from PIL import ExifTags, Image

    if ending.lower() in UNSIGNED:
        return photo
    signed = Image.Exif()
    for tag, value in (photo.exif or {}).items():
        signed[tag] = value
    others = signed.get(ExifTags.Base.Software)
    is_free = not others or _is_ours(others)
    signed[ExifTags.Base.Software if is_free else ExifTags.Base.ProcessingSoftware] = f"{SIGNATURE} {model}"
    return replace(photo, exif=signed)


def is_signed(path: Path, model: str = "") -> bool:
    """Returns whether EXIF data says that keras-psr, or a certain model of it, made a file; False for other files."""
    from PIL import ExifTags

    from keras_psr.errors import ImageFileError
    from keras_psr.images.decoding import read_exif

    try:
        exif = read_exif(path)
        entries = [exif.get(tag) for tag in (ExifTags.Base.Software, ExifTags.Base.ProcessingSoftware)]
        return any(_is_ours(entry, model) for entry in entries)
    except ImageFileError:
        return False


def _is_ours(entry: object, model: str = "") -> bool:
    text = entry.decode("latin-1") if isinstance(entry, bytes) else str(entry or "")
    return text == f"{SIGNATURE} {model}" if model else text.startswith(f"{SIGNATURE} ")
