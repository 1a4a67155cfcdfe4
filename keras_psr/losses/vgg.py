"""The frozen VGG16 whose responses define the feature loss, the style loss and the feature distance."""

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np

from keras_psr.errors import ConfigError, ModelError

CONVOLUTIONS = [
    (block, convolution)
    for block, num_convolutions in enumerate((2, 2, 3, 3, 3), start=1)
    for convolution in range(1, num_convolutions + 1)
]
"""Block and number of each convolution of VGG16. Each block except the last ends with a pooling layer."""

TAPS = {f"relu{block}_{convolution}": f"block{block}_conv{convolution}" for block, convolution in CONVOLUTIONS}
"""Maps the paper's names for responses to the layers of Keras Applications that compute them, ReLU included."""

BUNDLED_WEIGHTS = "vgg16_imagenet_conv1_1-conv4_3.npz"
BUNDLED_WEIGHTS_SHA256 = "dfb91d7b6c29923d85bb13e50a57855e63f1e1a51e37722a00f2dcc6d2f6835b"
"""ImageNet weights up to conv4_3 (Simonyan & Zisserman, CC BY 4.0); NOTICE lists the changes."""

STRIDES = {f"relu{block}_{convolution}": 2 ** (block - 1) for block, convolution in CONVOLUTIONS}
"""Maps the paper's names for responses to the distance between neighbouring responses, in pixels."""


def build_vgg(
    taps: Sequence[str], *, weights: str = "bundled", pooling: str = "max", dtype: str = "float32"
) -> keras.Model:
    """Builds the frozen feature extractor, cut off after the deepest requested tap.

    Args:
        taps: Responses to return, by the paper's names, such as `("relu2_2",)`.
        weights: `bundled`, `imagenet` (Keras downloads them), or a file: `.npz` with `blockB_convC/kernel` and
            `/bias`, or a `.weights.h5` saved from `keras.applications.VGG16(include_top=False)`.
        pooling: `max` is VGG16 as published; `average` replaces its pooling layers, which reduces the grid in pictures
            that are optimised for the responses (Distill, "Deconvolution and Checkerboard Artifacts", on the loss's own
            grid).
        dtype: Keras dtype policy of the convolutions, such as `float32` or `bfloat16`.

    Returns:
        A model from RGB (batch, height, width, 3) in [0, 255] to a dictionary of responses by tap, each (batch,
        height', width', channels). Preprocessing is included. No variable is trainable.

    Raises:
        ConfigError: A tap or the pooling is unknown.
        ModelError: The weights are missing or damaged, or do not include a tap.

    Example:
        vgg = build_vgg(["relu1_2", "relu2_2"])
        responses = vgg(images)["relu2_2"]
    """
    _check_taps(taps)
    if pooling not in ("max", "average"):
        raise ConfigError(f"pooling must be 'max' or 'average'. Received: {pooling!r}.")
    vgg = keras.applications.VGG16(include_top=False, weights="imagenet" if weights == "imagenet" else None)
    if weights.endswith(".h5"):
        _load_h5(vgg, Path(weights))
    cut = keras.Model(vgg.input, {tap: vgg.get_layer(TAPS[tap]).output for tap in taps})
    if weights != "imagenet" and not weights.endswith(".h5"):
        _load_npz(cut, _read_bundled() if weights == "bundled" else Path(weights))

    def copy_layer(layer: keras.Layer) -> keras.Layer:
        config = {**layer.get_config(), "dtype": dtype}
        if pooling == "average" and isinstance(layer, keras.layers.MaxPooling2D):
            return keras.layers.AveragePooling2D.from_config(config)
        return type(layer).from_config(config)

    responses = keras.models.clone_model(cut, clone_function=copy_layer)
    responses.set_weights(cut.get_weights())
    image = keras.Input((None, None, 3), name="image")
    extractor = keras.Model(image, responses(keras.applications.vgg16.preprocess_input(image)), name="vgg16")
    extractor.trainable = False
    return extractor


def pooling_stride(tap: str) -> int:
    """Returns the distance between neighbouring responses in pixels, such as 2 for `relu2_2`.

    Raises:
        ConfigError: The tap is unknown.
    """
    _check_taps([tap])
    return STRIDES[tap]


def _check_taps(taps: Sequence[str]) -> None:
    unknown = [tap for tap in taps if tap not in TAPS]
    if unknown or not taps:
        raise ConfigError(f"VGG16 layers must be among {', '.join(TAPS)}. Received: {', '.join(unknown) or 'none'}.")


def _read_bundled() -> Path:
    """Returns the path of the bundled weight file after verifying its checksum."""
    path = Path(str(files("keras_psr") / "losses" / "weights" / BUNDLED_WEIGHTS))
    if not path.is_file():
        raise ModelError(f"The bundled VGG16 weights are missing: {path}. Reinstall keras-psr.")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    if checksum != BUNDLED_WEIGHTS_SHA256:
        raise ModelError(
            f"The bundled VGG16 weights are damaged: sha256 of {path} is {checksum}, expected "
            f"{BUNDLED_WEIGHTS_SHA256}. Reinstall keras-psr."
        )
    return path


def _load_npz(model: keras.Model, path: Path) -> None:
    """Copies `LAYER/kernel` and `LAYER/bias` of an `.npz` file into the model's convolutions."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for layer in model.layers:
                if layer.weights:
                    layer.set_weights([arrays[f"{layer.name}/{part}"] for part in ("kernel", "bias")])
    except KeyError as error:
        raise ModelError(
            f"VGG16 weights in {path} do not include {error.args[0].split()[0]}. Choose earlier layers, or "
            "--vgg-weights imagenet."
        ) from error
    except (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile) as error:  # all come from NumPy
        raise ModelError(
            f"VGG16 weights must be 'bundled', 'imagenet', an .npz or a .weights.h5 file. Received: {path} ({error})."
        ) from error


def _load_h5(vgg: keras.Model, path: Path) -> None:
    try:
        vgg.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{path} does not contain weights of keras.applications.VGG16(include_top=False): {reason}"
        ) from error
