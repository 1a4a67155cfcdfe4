"""Converts networks to TFLite flatbuffers: float32, float16, dynamic-range int8, full int8 and int16x8."""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_psr.errors import ConfigError, ModelError
from keras_psr.export.delegates import list_operators
from keras_psr.export.quantization import Quantization
from keras_psr.export.scales import with_quantization_of, with_ranges, with_raw_bytes
from keras_psr.export.tile_graph import TileGraph
from keras_psr.export.whole_graph import apply_rearranged
from keras_psr.images.atomic import temporary_folder
from keras_psr.networks.receptive_field import measure_geometry

VARIANTS = ("float32", "float16", "dynamic", "int8", "int16x8")
CALIBRATED = ("int8", "int16x8")
"""Variants whose responses are quantized, with ranges measured on calibration tiles."""

ROUNDING_INTERVAL = 4
"""Weights are rounded with the responses to each fourth calibration tile, which are enough."""

OnTile = Callable[[int], None]
"""Called before each calibration tile with the number of tiles done."""


def convert(
    network: keras.Model,
    variant: str,
    tile: int | None,
    calibration: Sequence[np.ndarray] = (),
    on_tile: OnTile = lambda done: None,
) -> bytes:
    """Converts a network to a TFLite flatbuffer.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged or painted picture, RGB in [0, 255].
        variant: One of `VARIANTS`.
        tile: Height and width of the input; None leaves them open.
        calibration: For `CALIBRATED` variants, square uint8 tiles (side, side, 3), the last of which contains both 0
            and 255 (`calibration_tiles`). Their side may be smaller than `tile`, which is much faster.
        on_tile: Called before each calibration tile with the number of tiles done.

    Returns:
        A TFLite flatbuffer of builtin operators, with the signature `serving_default` from `image` to `image`: uint8
        with scale 1 and zero point 0 for `int8`, float32 in [0, 255] for the others.

    Raises:
        ConfigError: The variant is unknown, or lacks the tile or the calibration tiles that it needs.
        ModelError: The network cannot be converted to builtin operators.

    Example:
        content = convert(network, "float16", tile=128)
    """
    if variant not in VARIANTS:
        raise ConfigError(f"quantize must be one of {', '.join(VARIANTS)}. Received: {variant!r}.")
    if variant in CALIBRATED and (not calibration or tile is None):
        raise ConfigError(f"{variant} needs calibration tiles and a static tile.")
    quantization = measure_quantization(network, calibration) if variant in CALIBRATED else None
    content = _convert(network, variant, tile, calibration, on_tile, quantization)
    if variant in CALIBRATED and tile is not None and calibration[0].shape[0] != tile:
        ramp = np.resize(calibration[-1], (tile, tile, 3))
        other = _convert(network, variant, tile, [ramp], lambda done: None, quantization)
        content = with_quantization_of(other, content)
    if quantization and variant == "int8":
        content = with_ranges(with_raw_bytes(content), quantization.ranges)
    refuse_custom_operators(content)
    return content


def measure_quantization(network: keras.Model, tiles: Sequence[np.ndarray]) -> Quantization:
    """Returns the weights of all convolutions of a file with 8 bits.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged or painted picture.
        tiles: Calibration tiles, as for `convert`.

    Example:
        graph = TileGraph(network, geometry, tile, measure_quantization(network, tiles))
    """
    quantization = Quantization(network, tiles)
    graph = TileGraph(network, measure_geometry(network), tiles[0].shape[0], quantization)
    graph(tf.constant(np.stack(tiles[::ROUNDING_INTERVAL]), tf.float32))
    return quantization


def _convert(
    network: keras.Model,
    variant: str,
    tile: int | None,
    calibration: Sequence[np.ndarray],
    on_tile: OnTile,
    quantization: Quantization | None,
) -> bytes:
    """Runs TensorFlow's converter. The input of a calibrated variant has the size of its calibration tiles."""

    def feed_tiles() -> Iterator[list[np.ndarray]]:
        for done, image in enumerate(calibration):
            on_tile(done)
            yield [image[None].astype(np.float32)]

    side = calibration[0].shape[0] if variant in CALIBRATED else tile
    function = export_function(network, side, clip=variant != "int8", quantization=quantization)
    with temporary_folder() as folder:
        module = tf.Module()
        module.upscale = function
        tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        SETTINGS[variant](converter)
        if variant in CALIBRATED:
            converter.representative_dataset = feed_tiles
        try:
            return converter.convert()
        except Exception as error:  # the converter raises many kinds, with long texts
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"The network cannot be converted to {variant} with TFLite builtins: {reason}") from error


def export_function(
    network: keras.Model, tile: int | None, *, clip: bool = True, quantization: Quantization | None = None
) -> tf.types.experimental.GenericFunction:
    """Returns the network as a TensorFlow function to convert.

    With a fixed tile, the function returns the middle of the tile, without its halo, and computes only what the middle
    depends on: convolutions are not padded, and nothing is computed only to be cropped. Its pixels are therefore the
    same as those of a larger picture around the tile.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged picture.
        tile: Height and width of the input, in pixels, more than twice the halo; None leaves them open.
        clip: Whether to clip to [0, 255]. int8 does not need it, because the range of the output's type clips.
        quantization: Weights for 8 bits, for a fixed tile; None for plain weights.

    Returns:
        A function of `image`, float32 (1, tile, tile, 3), that returns {"image": float32 (1, side, side, 3)} with
        side = scale * (tile - 2 * halo), or scale times the input's sides if they are open.

    Raises:
        ConfigError: The tile is not larger than its halo, or not a multiple of the grid.
        ModelError: The network has a layer of an unknown kind.

    Example:
        concrete = export_function(network, tile=128, clip=True).get_concrete_function()
    """
    tile_graph = TileGraph(network, measure_geometry(network), tile, quantization) if tile else None

    @tf.function(input_signature=[tf.TensorSpec((1, tile, tile, 3), tf.float32, name="image")], autograph=False)
    def upscale(image: tf.Tensor) -> dict[str, tf.Tensor]:
        output = tile_graph(image) if tile_graph else apply_rearranged(network, image)
        # RELU fuses into the addition before it; MAXIMUM would not.
        return {"image": tf.minimum(tf.nn.relu(output), 255.0) if clip else output}

    return upscale


def refuse_custom_operators(content: bytes) -> None:
    """Checks that a model has only builtin operators, because phones may lack others.

    Raises:
        ModelError: The model has other operators, which the message names.
    """
    others = sorted({name for name, builtin in list_operators(content) if not builtin})
    if others:
        raise ModelError(f"The model has operators that are not TFLite builtins: {', '.join(others)}.")


def _set_float32(converter: tf.lite.TFLiteConverter) -> None:
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]


def _set_dynamic(converter: tf.lite.TFLiteConverter) -> None:
    _set_float32(converter)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _set_float16(converter: tf.lite.TFLiteConverter) -> None:
    _set_dynamic(converter)
    converter.target_spec.supported_types = [tf.float16]


def _set_int8(converter: tf.lite.TFLiteConverter) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8


def _set_int16x8(converter: tf.lite.TFLiteConverter) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]


SETTINGS: dict[str, Callable[[tf.lite.TFLiteConverter], None]] = {
    "float32": _set_float32,
    "float16": _set_float16,
    "dynamic": _set_dynamic,
    "int8": _set_int8,
    "int16x8": _set_int16x8,
}
