"""Super-resolution and style transfer with perceptual losses (Johnson, Alahi, Fei-Fei 2016) in Keras.

Public names are resolved on first use, so that `import keras_psr` stays free of TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keras_psr.errors import KerasPSRError

if TYPE_CHECKING:
    from keras_psr.images.decoding import read_rgb
    from keras_psr.images.encoding import write_image
    from keras_psr.inference.choice import choose_model
    from keras_psr.inference.painting import Painter
    from keras_psr.inference.upscaler import Upscaler, load
    from keras_psr.networks.super_resolution import build_network
    from keras_psr.tasks.super_resolution.evaluation import evaluate
    from keras_psr.training.fit import fit

__version__ = "0.1.0"

__all__ = [
    "KerasPSRError",
    "Painter",
    "Upscaler",
    "build_network",
    "choose_model",
    "evaluate",
    "fit",
    "load",
    "read_rgb",
    "write_image",
]

_HOMES = {
    "Painter": "keras_psr.inference.painting",
    "Upscaler": "keras_psr.inference.upscaler",
    "build_network": "keras_psr.networks.super_resolution",
    "choose_model": "keras_psr.inference.choice",
    "evaluate": "keras_psr.tasks.super_resolution.evaluation",
    "fit": "keras_psr.training.fit",
    "load": "keras_psr.inference.upscaler",
    "read_rgb": "keras_psr.images.decoding",
    "write_image": "keras_psr.images.encoding",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from keras_psr.environment import explain

        raise explain(error, f"keras_psr.{name}") from error


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
