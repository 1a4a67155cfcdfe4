"""Chooses the shipped model that suits a picture's file."""

import os
from typing import NamedTuple

from keras_psr.images.compression import Compression, read_compression
from keras_psr.inference.registry import default_model


class Choice(NamedTuple):
    """A model for a picture, and how the picture was compressed, on which the choice depends.

    Attributes:
        model: The model's name.
        compression: How the picture was compressed.
    """

    model: str
    compression: Compression


def choose_model(path: str | os.PathLike[str], scale: int = 4) -> Choice:
    """Chooses the shipped model that suits a picture's file, as `keras-psr upscale` does without `--model`.

    A file whose compression left artefacts (`compression.read_compression`) is for the model of the scale that was
    fitted to such pictures, if one is shipped, and every other file for the plain model of the scale.

    Args:
        path: Picture file.
        scale: The upscaling factor: 2, 4 or 8.

    Returns:
        The model's name, and what was found in the file.

    Raises:
        ImageFileError: The file is missing or not a picture.

    Example:
        model, compression = keras_psr.choose_model("photo.jpg")
        upscaler = keras_psr.load(model)
    """
    compression = read_compression(path)
    return Choice(default_model(scale, for_artefacts=compression.has_artefacts), compression)
