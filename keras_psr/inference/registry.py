"""Finds models: shipped ones, run folders and files."""

import hashlib
import json
import re
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from keras_psr.constants import STYLE_TRANSFER, SUPER_RESOLUTION
from keras_psr.errors import ModelError

MODEL_FILE = "model.keras"
CARD_FILE = "card.json"
RUN_FILE = "config.json"

RUNS_FOLDER = "runs"
"""The folder in which `keras-psr fit` creates run folders."""

DEFAULT_VARIANT = "float32"
"""The variant that a shipped model's name alone means: its pixels are the Keras network's own."""


def shipped_folder() -> Path:
    """Returns the folder that contains one folder per shipped model."""
    return Path(str(files("keras_psr.saved_models")))


def shipped_models() -> dict[str, dict[str, Any]]:
    """Returns the cards of all shipped models, sorted by name.

    Example:
        scores = shipped_models()["x4"]["scores"]["Set5"]
    """
    cards = sorted(shipped_folder().glob(f"*/{CARD_FILE}"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in cards}


def model_names(*, task: str | None = None, variants: bool = True) -> list[str]:
    """Returns the names of the shipped models, each followed by those of its `.tflite` files: x4, x4_float16, ...

    Args:
        task: Return only models whose card states this task; None for all.
        variants: Whether to include the names of the `.tflite` files.

    Example:
        >>> model_names(task="style transfer", variants=False)
        ['great-wave', 'starry-night', 'the-scream']
    """
    names: list[str] = []
    for name, card in shipped_models().items():
        if task in (None, card.get("task")):
            names += [name, *(_variants(name) if variants else [])]
    return names


def default_model(scale: int, *, for_artefacts: bool = False) -> str:
    """Returns the name of the shipped model that is used for a scale when no model is named.

    Args:
        scale: The upscaling factor.
        for_artefacts: Whether the pictures have artefacts of compression. Then this is the largest model of the scale
            whose card says that it was fitted to such pictures, if there is one.

    Example:
        >>> default_model(4, for_artefacts=True)
        'x4-photo'
    """
    fitted = {
        name: card["parameters"]
        for name, card in shipped_models().items()
        if for_artefacts and card.get("scale") == scale and removes_artefacts(card)
    }
    return max(fitted, key=lambda name: fitted[name], default=f"x{scale}")


def removes_artefacts(card: dict[str, Any]) -> bool:
    """Returns whether a model was fitted to pictures with artefacts of compression, according to its card."""
    return card.get("fit", {}).get("config", {}).get("degradation") == "photo"


def _variants(name: str) -> list[str]:
    return sorted(path.stem for path in (shipped_folder() / name).glob(f"{name}_*.tflite"))


def find_model(model: str | Path) -> Path:
    """Finds the `.keras` file of a model.

    Args:
        model: A shipped model's name, a run folder, or a `.keras` file. An existing path takes precedence over a name.

    Returns:
        Its path. A shipped model's checksum has been verified.

    Raises:
        ModelError: There is no such model, or a shipped file is damaged.

    Example:
        path = find_model("x4")
    """
    path = Path(model)
    if path.is_dir():
        if not (path / MODEL_FILE).is_file():
            raise ModelError(f"The folder {path} contains no {MODEL_FILE}. Give a run folder of `keras-psr fit`.")
        return path / MODEL_FILE
    if path.is_file():
        return path
    if str(model) in shipped_models():
        return _verified(shipped_folder() / str(model) / MODEL_FILE)
    base = str(model).rpartition("_")[0]
    if str(model) in _variants(base):
        raise ModelError(f"{model} is a .tflite file, which can only be run. Give the network itself: {base}.")
    raise _unknown(str(model), variants=False)


def _unknown(model: str, *, variants: bool) -> ModelError:
    """Returns an error that suggests the closest name and lists all names, with or without those of `.tflite` files."""
    names = model_names(variants=False)
    endings = sorted({file.removeprefix(name) for name in names for file in _variants(name)}) if variants else []
    plain = {_plain(name): name for name in model_names(variants=variants)}
    near = get_close_matches(_plain(model), plain, n=1, cutoff=0.7)
    hint = f" Did you mean {plain[near[0]]}?" if near else ""
    return ModelError(
        f"No model {model!r}.{hint} Expected a run folder, a .keras or .tflite file, or a shipped model: "
        f"{', '.join(names) or 'none'}"
        f"{'; each also with ' + ', '.join(endings) + f' ({names[-1]}{endings[0]})' if endings else ''}."
    )


def _plain(name: str) -> str:
    """Returns a name in lower case without punctuation, where people make mistakes."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_runnable(model: str | Path) -> Path:
    """Finds the file to run for a model: a `.tflite` if there is one, because it does not need TensorFlow.

    Args:
        model: A shipped model's name, which means its float32 `.tflite`; the name of one of its `.tflite` files
            (`x4_int8`); a run folder; or a `.tflite` or `.keras` file.

    Returns:
        Its path, a `.tflite` or a `.keras` file. A shipped file's checksum has been verified.

    Raises:
        ModelError: There is no such model, or a shipped file is damaged.

    Example:
        path = find_runnable("x4_int8")
    """
    name, _, variant = str(model).partition("_")
    if not Path(model).exists() and (shipped_folder() / name / CARD_FILE).is_file():
        file = shipped_folder() / name / f"{name}_{variant or DEFAULT_VARIANT}.tflite"
        if file.is_file():
            return _verified(file)
    if not Path(model).exists() and str(model) not in shipped_models():
        raise _unknown(str(model), variants=True)
    return find_model(model)


def find_tflite(model: str | Path) -> Path:
    """Finds the `.tflite` file of a model, given as for `find_runnable`.

    Raises:
        ModelError: There is no such model, or it has no `.tflite`.

    Example:
        path = find_tflite("x4_int8")
    """
    path = find_runnable(model)
    if path.suffix != ".tflite":
        raise ModelError(f"{model} is not a .tflite file. Make one: keras-psr export {model} --tflite")
    return path


def fit_settings(model: str | Path) -> dict[str, Any]:
    """Returns the settings that a model was fitted with, from its card or its run folder.

    Args:
        model: As for `find_runnable`.

    Returns:
        Settings by name; empty if they are not recorded.

    Raises:
        ModelError: There is no such model.

    Example:
        steps = fit_settings("x4")["steps"]
    """
    folder = find_runnable(model).parent
    try:
        if (folder / CARD_FILE).is_file():
            return json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))["fit"]["config"]
        return json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def named_task(path: Path) -> str | None:
    """Returns the task that the card or run folder next to a `.keras` file states; None if neither states one."""
    for name in (CARD_FILE, RUN_FILE):
        try:
            record = json.loads((path.parent / name).read_text(encoding="utf-8"))
            task = record.get("config", record).get("task")
        except (OSError, ValueError, AttributeError):
            continue
        if task in (SUPER_RESOLUTION, STYLE_TRANSFER):
            return task
    return None


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 checksum of a file, in hexadecimal.

    Example:
        checksum = file_sha256(Path("x4_int8.tflite"))
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _verified(path: Path) -> Path:
    """Returns the path of a shipped file after comparing its checksum with the card's."""
    expected = json.loads((path.parent / CARD_FILE).read_text(encoding="utf-8"))["sha256"].get(path.name, "nothing")
    received = file_sha256(path)
    if received != expected:
        raise ModelError(f"{path} is damaged: its sha256 is {received}, its card says {expected}. Reinstall keras-psr.")
    return path
