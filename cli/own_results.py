"""Signs the pictures that keras-psr makes, and tells them from those that it is to work on."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_psr.images.photo import Photo

SIGNATURE = "keras-psr"
"""Begins the EXIF entry of what was made by a model of ours."""

UNSIGNED = (".bmp",)
"""Endings of formats without EXIF data."""


def sign(photo: "Photo", model: str, ending: str) -> "Photo":
    """Adds an EXIF entry that names the model.

    It is `Software`; where a camera or an editor stands there, that is kept, and the entry is `ProcessingSoftware`.

    Args:
        photo: As it will be written.
        model: Name of the model or painting.
        ending: Of the file, such as `.png`.

    Returns:
        The photograph with the entry, where its format holds one.
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
    """Whether a picture's EXIF data say that a model of ours made it, or a certain one; False of what is no picture."""
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
