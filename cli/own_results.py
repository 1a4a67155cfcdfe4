"""Signs the pictures that keras-psr makes, so that they can be told from its inputs."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_psr.images.photo import Photo

SIGNATURE = "keras-psr"
"""First word of the metadata entry that marks a file as made by keras-psr."""

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
    if ending.lower() == ".gif":
        return replace(photo, texts=(*photo.texts, ("Comment", f"{SIGNATURE} {model}")))
    signed = Image.Exif()
    for tag, value in (photo.exif or {}).items():
        signed[tag] = value
    others = signed.get(ExifTags.Base.Software)
    is_free = not others or _is_ours(others)
    signed[ExifTags.Base.Software if is_free else ExifTags.Base.ProcessingSoftware] = f"{SIGNATURE} {model}"
    return replace(photo, exif=signed)


def is_signed(path: Path, model: str = "") -> bool:
    """Returns whether metadata says that keras-psr, or a certain model of it, made a file; False for other files."""
    from keras_psr.errors import KerasPSRError
    from keras_psr.films.formats import can_read_films, is_film

    try:
        if is_film(path):
            return can_read_films() and _is_film_signed(path, model)
        return any(_is_ours(entry, model) for entry in _read_entries(path))
    except KerasPSRError:
        return False


def _is_film_signed(path: Path, model: str) -> bool:
    from keras_psr.films.writing import read_signature

    return _is_ours(read_signature(path).partition(" #")[0], model)


def _read_entries(path: Path) -> list[object]:
    """Returns the texts in a picture that may be a signature: entries of EXIF data, or the comments of a GIF."""
    from PIL import ExifTags

    from keras_psr.images.decoding import read_comments, read_exif

    if path.suffix.lower() == ".gif":
        return list(read_comments(path))
    exif = read_exif(path)
    return [exif.get(tag) for tag in (ExifTags.Base.Software, ExifTags.Base.ProcessingSoftware)]


def _is_ours(entry: object, model: str = "") -> bool:
    text = entry.decode("latin-1") if isinstance(entry, bytes) else str(entry or "")
    return text == f"{SIGNATURE} {model}" if model else text.startswith(f"{SIGNATURE} ")
