"""The files that films come in. Importing this does not import PyAV."""

from pathlib import Path

from keras_psr.environment import is_installed
from keras_psr.errors import ConfigError, InstallationError

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Maps the endings of films that can be written to FFmpeg's names of their formats."""

SUFFIXES = (
    *CONTAINERS,
    *(".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob"),
    *(".wmv", ".y4m"),
)
"""Endings, in lower case, of the files that are taken for films."""


LISTED_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != ".ts")
"""Endings of films that are found in folders: .ts is left out, because most such files are programs in TypeScript."""


def is_film(path: Path) -> bool:
    """Returns whether a file is taken for a film, by its ending.

    Example:
        >>> is_film(Path("clip.MP4"))
        True
    """
    return path.suffix.lower() in SUFFIXES


def can_read_films() -> bool:
    """Returns whether PyAV is installed."""
    return is_installed("av")


def require_video(path: Path) -> None:
    """Checks that films can be read.

    Args:
        path: The film, for the message.

    Raises:
        InstallationError: PyAV is not installed.
    """
    if not can_read_films():
        raise InstallationError(f"{path} is a film. To read it: pip install 'keras-psr[video]', or just av.")


def choose_ending(path: Path) -> str:
    """Returns the ending that is proposed for what is made from a film: its own, or else one that holds everything.

    Example:
        >>> choose_ending(Path("clip.avi"))
        '.mkv'
    """
    return path.suffix.lower() if path.suffix.lower() in CONTAINERS else ".mkv"


def find_container(path: Path) -> str:
    """Returns FFmpeg's name of the format for a result's ending.

    Raises:
        ConfigError: A film cannot be written with this ending.

    Example:
        >>> find_container(Path("clip.mkv"))
        'matroska'
    """
    if path.suffix.lower() not in CONTAINERS:
        raise ConfigError(f"cannot write the film {path}: expected an ending of {', '.join(CONTAINERS)}.")
    return CONTAINERS[path.suffix.lower()]
