"""States the scales of quantized flatbuffers: of raw bytes, of known ranges, and of another file's tensors."""

from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_psr.errors import ModelError
from keras_psr.export.delegates import operator_name
from keras_psr.inference.tflite_metadata import pack, unpack

RESCALING = ("ADD", "SUB", "MUL", "CONV_2D")
"""Operators whose output can have any scale."""

MOVING = ("DEPTH_TO_SPACE", "STRIDED_SLICE", "SLICE")
"""Operators that only move pixels, so that their output has the scale of their input."""

TYING = (*MOVING, "CONCATENATION", "PAD", "MIRROR_PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
"""Operators whose inputs and output have one scale."""


def with_quantization_of(content: bytes, measured: bytes) -> bytes:
    """Copies the scales of a quantized model to a model of the same network with another tile size.

    Small tiles are enough for calibration, for which TensorFlow uses slow kernels, but a model's tile size cannot be
    changed afterwards.

    Args:
        content: The model with the right tile size.
        measured: The model with the right scales, and therefore the right weights.

    Returns:
        The first model with the scales and weights of the second.

    Raises:
        ModelError: The models have different graphs.
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


def with_raw_bytes(content: bytes) -> bytes:
    """Makes the input and output of a fully quantized model raw RGB bytes: uint8, scale exactly 1, zero point 0.

    The output's range was measured on an unclipped output and is slightly too wide. The operator that computes it
    derives its factors from the scales in the file, so it is enough to state [0, 255], which also clips. Operators
    after it may only move pixels.

    Args:
        content: A flatbuffer whose input and output are uint8.

    Returns:
        The flatbuffer with the new output scale.

    Raises:
        ModelError: The input has another scale, or the output comes from an operator whose scale cannot be chosen.
    """
    model = unpack(content)
    graph = model.subgraphs[0]
    makers = _find_makers(graph)
    cast = makers[graph.outputs[0]]
    pixels = _trace_moves(model, makers, cast.inputs[0])
    maker = operator_name(model, makers[pixels[-1]])
    if operator_name(model, cast) != "QUANTIZE" or maker not in RESCALING:
        raise ModelError(f"The network must end in one of {', '.join(RESCALING)} to be quantized. Received: {maker}.")
    for tensor, zero_point in ((graph.outputs[0], 0), *((tensor, -128) for tensor in pixels)):
        _set_scale(graph.tensors[tensor].quantization, 1, zero_point)
    first = graph.tensors[graph.inputs[0]].quantization
    if list(first.scale) != [1] or list(first.zeroPoint) != [0]:
        raise ModelError(f"The input's scale is {first.scale}, not 1: no calibration tile contains both 0 and 255.")
    return pack(model)


def with_ranges(content: bytes, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """States the ranges of an int8 network's responses, outside which they are cut off.

    What is concatenated with the picture gets the picture's steps of 1.

    Args:
        content: A flatbuffer as from `with_raw_bytes`.
        ranges: The smallest value, at most 0, and the largest, at least 0, as coded, by the scope in the names of the
            tensors. Other tensors keep their ranges.

    Returns:
        The flatbuffer with the new scales, and with biases for them.
    """
    model = unpack(content)
    graph = model.subgraphs[0]
    made = {output: operator_name(model, operator) for output, operator in _find_makers(graph).items()}
    shares: dict[int, float] = {}
    for group in _find_tied(model):
        scopes = [graph.tensors[one].name.decode().split("/")[0] for one in group if made[one] in RESCALING]
        covered = [ranges[scope] for scope in scopes if scope in ranges]
        low, high = min((low for low, _ in covered), default=0), max((high for _, high in covered), default=0)
        if low == high:
            continue
        with_picture = "SUB" in {made[tensor] for tensor in group}  # subtracts the centre from the picture
        scale = 1.0 if with_picture else (high - low) / 255
        zero_point = 0 if with_picture else round(-128 - low / scale)
        shares |= dict.fromkeys(group, scale / float(graph.tensors[group[0]].quantization.scale[0]))
        for tensor in group:
            _set_scale(graph.tensors[tensor].quantization, scale, zero_point)
    _rescale_biases(model, shares)
    return pack(model)


def _find_tied(model: schema.ModelT) -> list[list[int]]:
    """Returns the int8 tensors that operators make, in groups that must have one scale."""
    graph = model.subgraphs[0]
    groups: dict[int, list[int]] = {}
    for operator in graph.operators:
        group = [tensor for tensor in operator.outputs if graph.tensors[tensor].type == schema.TensorType.INT8]
        if operator_name(model, operator) in TYING:
            for tied in [groups[tensor] for tensor in operator.inputs if tensor in groups]:
                group += [tensor for tensor in tied if tensor not in group]
        groups |= dict.fromkeys(group, group)
    return list({id(group): group for group in groups.values()}.values())


def _rescale_biases(model: schema.ModelT, shares: Mapping[int, float]) -> None:
    """Divides biases, which are integers, by what the steps of a convolution's input were multiplied by."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if operator_name(model, operator) == "CONV_2D" and operator.inputs[0] in shares:
            bias, share = graph.tensors[operator.inputs[2]], shares[operator.inputs[0]]
            buffer = model.buffers[bias.buffer]
            values = np.rint(np.frombuffer(bytes(buffer.data), np.int32) / share).astype(np.int32)
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            bias.quantization.scale = np.asarray(bias.quantization.scale, np.float32) * np.float32(share)


def _find_makers(graph: schema.SubGraphT) -> dict[int, schema.OperatorT]:
    """Maps each tensor to the operator that makes it."""
    return {output: operator for operator in graph.operators for output in operator.outputs}


def _trace_moves(model: schema.ModelT, makers: dict[int, schema.OperatorT], tensor: int) -> list[int]:
    """Returns a tensor, and before it in the graph those from which its pixels were only moved."""
    tensors = [tensor]
    while operator_name(model, makers[tensors[-1]]) in MOVING:
        tensors.append(makers[tensors[-1]].inputs[0])
    return tensors


def _set_scale(quantization: schema.QuantizationParametersT, scale: float, zero_point: int) -> None:
    quantization.scale, quantization.zeroPoint = np.array([scale], np.float32), np.array([zero_point], np.int64)
    quantization.min = quantization.max = None
