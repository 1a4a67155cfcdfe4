"""What an installation that only runs models leaves out (requirements-runtime.txt), and the line that says so."""

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
"""Names in `import`, each with that in `pip install`."""


def require_everything(what: str) -> None:
    """Checks that Keras and TensorFlow are installed, without importing them.

    Args:
        what: Who needs them, for the message.

    Raises:
        InstallationError: They are not.
    """
    if not (is_installed("keras") and is_installed("tensorflow")):
        raise InstallationError(describe_missing(what))


def describe_missing(what: str) -> str:
    """The line for who needs what is not installed: what that is, and how to get it."""
    missing = [package for module, package in LEFT_OUT.items() if not is_installed(module)]
    return (
        f"{what} needs more than this installation holds, which is made for running models. "
        f"Install the rest: pip install {' '.join(missing)}"
    )


def explain(error: ModuleNotFoundError, what: str) -> ImportError:
    """What to raise in place of an import's error: an `InstallationError` for libraries left out, else the error."""
    module = (error.name or "").partition(".")[0]
    return InstallationError(describe_missing(what)) if module in LEFT_OUT and not is_installed(module) else error


def is_installed(module: str) -> bool:
    """Whether an import would find a module of this name."""
    return find_spec(module) is not None
