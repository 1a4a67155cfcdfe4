"""Fitted networks as functions from picture to picture."""

import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_psr.errors import ConfigError, ModelError
from keras_psr.networks import network_scale
from keras_psr.pixels import to_uint8
from keras_psr.registry import find_model


class Upscaler:
    """Enlarges pictures with a network.

    Attributes:
        network: The Keras model.
        scale: Its upscaling factor.
    """

    def __init__(self, network: keras.Model) -> None:
        """Wraps a network.

        Args:
            network: A model from (batch, height, width, 3) to an enlarged picture, RGB in [0, 255].
        """
        self.network = network
        self.scale = network_scale(network)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Enlarges one picture.

        Args:
            image: uint8 RGB (height, width, 3).

        Returns:
            uint8 RGB (scale * height, scale * width, 3).

        Raises:
            ConfigError: `image` is of another shape or dtype.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ConfigError(
                f"image must be uint8 RGB of shape (height, width, 3). Received: {image.dtype} of shape {image.shape}."
            )
        output = self.network(image[None].astype(np.float32), training=False)
        return to_uint8(np.asarray(output)[0])


def load(model: str | Path) -> Upscaler:
    """Loads a fitted network.

    Args:
        model: A shipped model's name (`x4`), a run folder, or a `.keras` file.

    Returns:
        The network as a function of pictures.

    Raises:
        ModelError: There is no such model, or it is not a super-resolution network.
    """
    path = find_model(model)
    network = load_network(path)
    if network.output_shape != (None, None, None, 3) or network.input_shape != (None, None, None, 3):
        raise ModelError(
            f"{path} is not a super-resolution network: it goes from {network.input_shape} to {network.output_shape}, "
            "expected (None, None, None, 3) for both."
        )
    return Upscaler(network)


def load_network(path: Path) -> keras.Model:
    """Loads a `.keras` file without executing anything in it (`safe_mode`).

    Args:
        path: The file.

    Returns:
        The model, not compiled.

    Raises:
        ModelError: It is not a Keras model file.
    """
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):  # Keras would also open .h5, without `safe_mode`
        raise ModelError(f"{path} is not a .keras file. Give a run folder of `keras-psr fit` or its model.keras.")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises ValueError, KeyError, TypeError, OSError and zipfile's kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path} is not a usable Keras model file: {reason}") from error
