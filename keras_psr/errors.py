"""Errors that a user can act on; the command line prints their text as one line and hides the traceback."""


class KerasPSRError(Exception):
    """Base of all errors raised on purpose; the text names what was received, what was expected and the remedy."""


class ConfigError(KerasPSRError):
    """An option or argument has a value that cannot be used."""


class ImageFileError(KerasPSRError):
    """A picture file is missing, broken or of an unknown kind."""


class DataError(KerasPSRError):
    """A source of pictures is missing, empty or holds nothing usable."""


class ModelError(KerasPSRError):
    """A model file is missing, damaged or does not fit the task."""


class InstallationError(KerasPSRError, ImportError):
    """A command or function needs libraries that an installation for running models leaves out."""


class TrainingError(KerasPSRError):
    """A fit cannot start or go on."""
