"""A network to TFLite flatbuffers: float32, float16, dynamic-range int8, full int8, int16x8."""

import tempfile
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_psr.errors import ConfigError, ModelError
from keras_psr.export.delegates import list_operators, operator_name
from keras_psr.export.tile_graph import TileGraph
from keras_psr.export.whole_graph import apply_rearranged
from keras_psr.inference.tflite_metadata import pack, unpack
from keras_psr.networks.receptive_field import measure_geometry

VARIANTS = ("float32", "float16", "dynamic", "int8", "int16x8")
CALIBRATED = ("int8", "int16x8")
"""Variants whose activations are quantized, by ranges measured on calibration tiles."""

RESCALING = ("ADD", "SUB", "MUL", "CONV_2D")
"""Operators that can give their result at any scale."""

MOVING = ("DEPTH_TO_SPACE", "STRIDED_SLICE", "SLICE")
"""Operators that only move pixels, and give them at the scale at which they get them."""


def convert(network: keras.Model, variant: str, tile: int | None, calibration: Sequence[np.ndarray] = ()) -> bytes:
    """Converts a network.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged picture, RGB in [0, 255].
        variant: One of `VARIANTS`.
        tile: Rows and columns of the input; None leaves them open.
        calibration: For `CALIBRATED` variants square uint8 tiles (side, side, 3), the last of which holds both 0 and
            255 (`calibration_tiles`). Their side may be smaller than `tile`, which is much faster.

    Returns:
        A TFLite flatbuffer of builtin operators, with the signature `serving_default` from `image` to `image`: uint8
        with scale 1 and zero point 0 for `int8`, float32 in [0, 255] for the others.

    Raises:
        ConfigError: The variant is unknown, or has no tile or calibration that it needs.
        ModelError: The network cannot be converted to builtin operators.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"quantize must be one of {', '.join(VARIANTS)}. Received: {variant!r}.")
    if variant in CALIBRATED and (not calibration or tile is None):
        raise ConfigError(f"{variant} needs calibration tiles and a static tile.")
    content = _convert(network, variant, tile, calibration)
    if variant in CALIBRATED and tile is not None and calibration[0].shape[0] != tile:
        ramp = np.resize(calibration[-1], (tile, tile, 3))
        content = with_quantization_of(_convert(network, variant, tile, [ramp]), content)
    refuse_others_than_builtins(content)
    return with_raw_bytes(content) if variant == "int8" else content


def _convert(network: keras.Model, variant: str, tile: int | None, calibration: Sequence[np.ndarray]) -> bytes:
    """Runs TensorFlow's converter; a calibrated variant gets the calibration tiles' size."""
    side = calibration[0].shape[0] if variant in CALIBRATED else tile
    function = export_function(network, side, clip=variant != "int8")
    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        module.upscale = function
        tf.saved_model.save(module, folder, signatures={"serving_default": function})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        SETTINGS[variant](converter)
        if variant in CALIBRATED:
            converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in calibration)
        try:
            return converter.convert()
        except Exception as error:  # the converter raises many kinds, with pages of text
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"The network cannot be converted to {variant} with TFLite builtins: {reason}") from error


def export_function(
    network: keras.Model, tile: int | None, *, clip: bool = True
) -> tf.types.experimental.GenericFunction:
    """Returns the network as a TensorFlow function that is ready to be converted.

    A function of tiles gives the middle of a tile, without its halo, and computes only what that needs: convolutions
    are not padded, and what a layer gives beyond that is never made. So its pixels are those of a picture of which the
    tile is a part, and nothing is computed that would be cut off.

    Args:
        network: A functional model from (batch, height, width, 3) to an enlarged picture.
        tile: Rows and columns of the input, in pixels, more than twice the halo; None leaves them open.
        clip: Clip to [0, 255]. Off for int8, where the range of the output's type does that.

    Returns:
        A function of `image`, float32 (1, tile, tile, 3), that returns {"image": float32 (1, side, side, 3)}, its side
        scale * (tile - 2 * halo); of an open size, scale times the input's sides.

    Raises:
        ConfigError: The tile is all halo, or not a multiple of the grid.
        ModelError: The network has a layer of an unknown kind.
    """
    tile_graph = TileGraph(network, measure_geometry(network), tile) if tile else None

    @tf.function(input_signature=[tf.TensorSpec((1, tile, tile, 3), tf.float32, name="image")], autograph=False)
    def upscale(image: tf.Tensor) -> dict[str, tf.Tensor]:
        output = tile_graph(image) if tile_graph else apply_rearranged(network, image)
        # RELU fuses into the addition before it, where a MAXIMUM would not.
        return {"image": tf.minimum(tf.nn.relu(output), 255.0) if clip else output}

    return upscale


def with_quantization_of(content: bytes, measured: bytes) -> bytes:
    """Gives a quantized model the scales of another one of the same network, whose tile has another size.

    TensorFlow calibrates with its slow kernels, for which small tiles are enough. But the size of a model's tile cannot
    be changed later.

    Args:
        content: The model with the right size.
        measured: The model with the right scales, and so the right weights.

    Returns:
        The first model with the scales and weights of the second.
    """
    target, source = unpack(content), unpack(measured)
    pairs = list(zip(target.subgraphs[0].tensors, source.subgraphs[0].tensors, strict=True))
    for tensor, other in pairs:
        if (tensor.name, tensor.type) != (other.name, other.type):
            raise ModelError(f"The converter gave two graphs for two sizes: {tensor.name!r} against {other.name!r}.")
        if other.quantization is not None and other.quantization.scale is not None:
            tensor.quantization = other.quantization
            target.buffers[tensor.buffer].data = source.buffers[other.buffer].data
    return pack(target)


def refuse_others_than_builtins(content: bytes) -> None:
    """Raises ModelError if a model has an operator that phones may lack, and names it."""
    others = sorted({name for name, builtin in list_operators(content) if not builtin})
    if others:
        raise ModelError(f"The model has operators that are no TFLite builtins: {', '.join(others)}.")


def with_raw_bytes(content: bytes) -> bytes:
    """Makes raw RGB bytes the input and output of a fully quantized model: uint8, scale exactly 1, zero point 0.

    The output's range was measured on an unclipped output and is a little too wide. The operator that gives it computes
    its factors from the scales that the file states, so stating [0, 255] is enough, and clips on the way. Operators
    after it may only move pixels.

    Args:
        content: A flatbuffer whose input and output are uint8.

    Returns:
        The same with another scale of the output.

    Raises:
        ModelError: The input has another scale, or the output comes from an operator whose scale is not free.
    """
    model = unpack(content)
    graph = model.subgraphs[0]
    makers = {output: operator for operator in graph.operators for output in operator.outputs}
    cast = makers[graph.outputs[0]]
    pixels = [cast.inputs[0]]
    while (maker := operator_name(model, makers[pixels[-1]])) in MOVING:
        pixels.append(makers[pixels[-1]].inputs[0])
    if operator_name(model, cast) != "QUANTIZE" or maker not in RESCALING:
        raise ModelError(f"The network must end in one of {', '.join(RESCALING)} to be quantized. Received: {maker}.")
    for tensor, zero_point in ((graph.outputs[0], 0), *((tensor, -128) for tensor in pixels)):
        quantization = graph.tensors[tensor].quantization
        quantization.scale, quantization.zeroPoint = np.ones(1, np.float32), np.array([zero_point], np.int64)
        quantization.min = quantization.max = None
    first = graph.tensors[graph.inputs[0]].quantization
    if list(first.scale) != [1] or list(first.zeroPoint) != [0]:
        raise ModelError(f"The input's scale is {first.scale}, not 1: no calibration tile holds both 0 and 255.")
    return pack(model)


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
