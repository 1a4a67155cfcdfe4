"""Errors that a user can act on; the command line prints their text as one line and hides the traceback."""


class KerasPSRError(Exception):
    """Base class of all errors raised on purpose. The text says what was expected, what was received and the remedy.

    Example:
        try:
            upscaler = keras_psr.load("x3")
        except keras_psr.KerasPSRError as error:
            print(error)
    """


class ConfigError(KerasPSRError):
    """An option or argument has a value that cannot be used."""


class ImageFileError(KerasPSRError):
    """A picture file is missing, broken or in an unknown format."""


class DataError(KerasPSRError):
    """A source of pictures is missing, empty or contains no usable picture."""


class ModelError(KerasPSRError):
    """A model file is missing, damaged or does not fit the task."""


class InstallationError(KerasPSRError, ImportError):
    """A command or function needs libraries that the light installation leaves out."""


class TrainingError(KerasPSRError):
    """A fit cannot start or continue."""
