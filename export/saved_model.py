"""Exports a network as a TensorFlow SavedModel, which loads without Keras and keras-psr."""

import shutil
from pathlib import Path

import keras
import tensorflow as tf

from keras_psr.errors import ModelError
from keras_psr.export.whole_graph import apply_rearranged
from keras_psr.images.atomic import temporary_folder
from keras_psr.networks.receptive_field import measure_geometry

SAVED_MODEL_FILE = "saved_model.pb"


def save_saved_model(network: keras.Model, folder: Path) -> None:
    """Writes a SavedModel with two signatures, both from `image` to `image` of any size.

    `serving_default` takes and returns float32 RGB in [0, 255], (batch, height, width, 3); `uint8` takes and returns
    uint8, rounded half to even.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged or painted picture.
        folder: Folder to write to; created if missing. A SavedModel in it is replaced once the new one is complete.

    Raises:
        ModelError: The SavedModel cannot be written.

    Example:
        save_saved_model(load_keras("x4").network, Path("x4_saved_model"))
    """
    shape, geometry = (None, None, None, 3), measure_geometry(network)
    scale = geometry.scale

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")], autograph=False)
    def upscale(image: tf.Tensor) -> dict[str, tf.Tensor]:
        height, width = tf.shape(image)[1], tf.shape(image)[2]
        rows, columns = (_filled(length, geometry.grid) for length in (height, width))
        output = apply_rearranged(network, tf.gather(tf.gather(image, rows, axis=1), columns, axis=2))
        return {"image": tf.clip_by_value(output[:, : scale * height, : scale * width], 0.0, 255.0)}

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, name="image")], autograph=False)
    def upscale_bytes(image: tf.Tensor) -> dict[str, tf.Tensor]:
        output = upscale(tf.cast(image, tf.float32))["image"]
        return {"image": tf.cast(tf.round(output), tf.uint8)}

    module = tf.Module()
    signatures = {"serving_default": upscale, "uint8": upscale_bytes}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as unfinished:
            tf.saved_model.save(module, str(unfinished), signatures=signatures)
            for part in sorted(unfinished.iterdir(), key=lambda part: part.name == SAVED_MODEL_FILE):
                if part.is_dir():
                    shutil.rmtree(folder / part.name, ignore_errors=True)
                part.replace(folder / part.name)
    except (OSError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"Cannot write a SavedModel to {folder}: {reason}. Check the folder and its space.") from error


def _filled(length: tf.Tensor, grid: int) -> tf.Tensor:
    """Returns the positions along a side that is extended to a multiple of `grid` by repeating the last pixel."""
    return tf.minimum(tf.range(length + -length % grid), length - 1)
