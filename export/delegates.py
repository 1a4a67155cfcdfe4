"""Finds out which of a model's operators XNNPACK and GPUs can run."""

import contextlib
import io
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_psr.inference.gpu import GpuError, GpuNetwork
from keras_psr.inference.litert import TileInterpreter
from keras_psr.inference.tflite_metadata import read_flatbuffer, unpack

BUILTIN_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


GPU_OPERATORS = frozenset(
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE LEAKY_RELU LOGISTIC MAXIMUM "
    "MAX_POOL_2D MINIMUM MUL PAD PADV2 PRELU QUANTIZE RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR SLICE SPACE_TO_DEPTH STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV".split()
)
"""The operators in tensorflow/lite/tools/versioning/gpu_compatibility.cc that our networks can contain."""


@dataclass(frozen=True)
class Delegation:
    """How much of a model XNNPACK, LiteRT's default on CPUs, runs.

    Attributes:
        partitions: Number of parts of the graph that it runs; 1 with nothing outside is best.
        share: Share of the operators that it runs, not counting those that only unpack constants.
        outside: Operators left to LiteRT's own kernels, with the reason, such as {"2 QUANTIZE": "..."}.
    """

    partitions: int
    share: float
    outside: dict[str, str]


def list_operators(content: bytes) -> list[tuple[str, bool]]:
    """Lists the operators of a model in order of execution, each with whether it is a TFLite builtin.

    Raises:
        ModelError: `content` is not a TFLite model.

    Example:
        names = [name for name, is_builtin in list_operators(content) if not is_builtin]
    """
    model = read_flatbuffer(content)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    found = []
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for place in range(graph.OperatorsLength()):
            code = codes[graph.Operators(place).OpcodeIndex()]
            custom = code.CustomCode()
            builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            found.append((custom.decode() if custom else BUILTIN_NAMES[builtin], not custom))
    return found


def operator_name(model: Any, operator: Any) -> str:
    """Returns the builtin name of an operator of an unpacked model."""
    code = model.operatorCodes[operator.opcodeIndex]
    return BUILTIN_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]


def measure_xnnpack(content: bytes) -> Delegation:
    """Measures how much of a model LiteRT delegates to XNNPACK.

    LiteRT lists the delegate's partitions together with the operators that they replace. These are found by following
    a partition's outputs back to its inputs.

    Args:
        content: A TFLite flatbuffer.

    Returns:
        The number of partitions, and the operators outside them.

    Example:
        share = measure_xnnpack(Path("x4_int8.tflite").read_bytes()).share
    """
    nodes = TileInterpreter(content).describe_operators()
    partitions = [node for node in nodes if node["op_name"] == "DELEGATE"]
    makers = {tensor: node["index"] for node in nodes if node["op_name"] != "DELEGATE" for tensor in node["outputs"]}
    inside: set[int] = set()
    for partition in partitions:
        borders = set(partition["inputs"])
        pending = list(partition["outputs"])
        while pending:
            tensor = pending.pop()
            maker = makers.get(tensor)
            if tensor in borders or maker is None or maker in inside:
                continue
            inside.add(maker)
            pending.extend(nodes[maker]["inputs"])
    # DEQUANTIZE of a constant is done once, when the model is loaded.
    counted = [
        node
        for node in nodes
        if node["op_name"] != "DELEGATE"
        and not (node["op_name"] == "DEQUANTIZE" and not any(tensor in makers for tensor in node["inputs"]))
    ]
    outside = Counter((node["op_name"], _reason(node)) for node in counted if node["index"] not in inside)
    return Delegation(
        partitions=len(partitions),
        share=1 - outside.total() / max(1, len(counted)),
        outside={f"{count} {name}": reason for (name, reason), count in outside.items()},
    )


def _reason(node: dict[str, Any]) -> str:
    """Returns why XNNPACK does not run an operator, as far as its tensors show."""
    types = {*node["operand_types"], *node["result_types"]}
    if np.int16 in types:
        return "XNNPACK has no int16 arithmetic"
    if node["op_name"] == "QUANTIZE" and np.uint8 in types:
        return "XNNPACK does not convert between uint8 and int8, which costs LiteRT next to nothing"
    return "XNNPACK does not support it, or needs sizes that are known in advance"


def check_gpu(content: bytes, *, exact: bool = True) -> dict[str, Any]:
    """Checks whether GPUs can run a model, by the rules for its operators and by running it if there is a GPU.

    Args:
        content: A TFLite flatbuffer.
        exact: As for `GpuNetwork`.

    Returns:
        A dictionary for JSON: `refusals`, from `find_gpu_refusals`; `adapter`, the GPU that ran it, or None; with a
        GPU, `is_hardware`, `max_difference` from the CPU on a tile of noise, in grey levels, and `milliseconds` for
        the tile; without one, the `reason`.

    Example:
        refusals = check_gpu(Path("x4_float16.tflite").read_bytes(), exact=False)["refusals"]
    """
    refusals = find_gpu_refusals(content)
    report: dict[str, Any] = {"refusals": refusals, "adapter": None}
    if any("open size" in refusal for refusal in refusals):
        return report | {"reason": "its size is open"}
    try:
        gpu = GpuNetwork(content, exact=exact)
    except GpuError as error:
        return report | {"reason": str(error)}
    tile = np.random.default_rng(0).integers(0, 256, gpu.shape[1:], np.uint8)
    try:
        difference = np.abs(gpu(tile).astype(np.float32) - TileInterpreter(content)(tile))
        return report | {
            "adapter": gpu.adapter,
            "is_hardware": gpu.is_hardware,
            "max_difference": float(difference.max()),
            "milliseconds": 1e3 * gpu.time(),
        }
    except GpuError as error:
        return report | {"reason": f"{gpu.adapter} failed: {error}"}
    finally:
        gpu.close()


def find_gpu_refusals(content: bytes) -> list[str]:
    """Finds operators that a GPU delegate would refuse, with TensorFlow's analyzer and `GPU_OPERATORS`.

    The analyzer of TensorFlow 2.21 calls everything compatible, even SEGMENT_SUM, because its rules are left out of
    that build. Therefore this function also checks the rules that matter here.

    Args:
        content: A TFLite flatbuffer.

    Returns:
        One line per refusal, such as "2 GATHER: not supported"; empty if the whole model can run on a GPU.

    Example:
        refusals = find_gpu_refusals(Path("x4_int8.tflite").read_bytes())
    """
    import tensorflow as tf

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        tf.lite.experimental.Analyzer.analyze(model_content=content, gpu_compatibility=True)
    found = Counter(re.findall(r"GPU COMPATIBILITY WARNING: (.*)", text.getvalue()))
    model = unpack(content)
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = operator_name(model, operator)
            tensors = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
            if name not in GPU_OPERATORS:
                found[f"{name}: not supported"] += 1
            elif any(tensor.type == schema.TensorType.INT16 for tensor in tensors):
                found[f"{name}: int16 is not supported"] += 1
            elif any(tensor.shapeSignature is not None and -1 in tensor.shapeSignature for tensor in tensors):
                found[f"{name}: an open size is not supported"] += 1
    return [f"{count} {refusal}" for refusal, count in found.items()]
