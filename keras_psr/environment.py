"""What this process can use: the machine's cores, and the libraries that are installed."""

import os
from importlib.util import find_spec

from keras_psr.errors import InstallationError

LEFT_OUT = {
    "keras": "keras",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "tensorboard": "tensorboard",
    "tensorflow": "tensorflow",
    "tensorflow_datasets": "tensorflow-datasets",
}
"""Maps each module that the light installation leaves out (requirements-runtime.txt) to its package on PyPI."""


def available_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_everything(what: str) -> None:
    """Checks that Keras and TensorFlow are installed, without importing them.

    Args:
        what: The command or function that needs them, for the message.

    Raises:
        InstallationError: One of them is not installed.
    """
    if not (is_installed("keras") and is_installed("tensorflow")):
        raise InstallationError(describe_missing(what))


def describe_missing(what: str) -> str:
    """Returns a message that says what is not installed, and how to install it."""
    missing = [package for module, package in LEFT_OUT.items() if not is_installed(module)]
    return (
        f"{what} needs more than this installation, which only runs models. "
        f"Install the rest: pip install {' '.join(missing)}"
    )


def explain(error: ModuleNotFoundError, what: str) -> ImportError:
    """Returns the error to raise for a failed import: an `InstallationError` for a library left out, else `error`."""
    module = (error.name or "").partition(".")[0]
    return InstallationError(describe_missing(what)) if module in LEFT_OUT and not is_installed(module) else error


def is_installed(module: str) -> bool:
    """Returns whether a module of this name can be imported, without importing it."""
    return find_spec(module) is not None
