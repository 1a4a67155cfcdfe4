"""Reads and writes keras-psr's metadata in `.tflite` files, from which apps learn how to tile, without TensorFlow."""

import json
import struct
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_psr.errors import ModelError
from keras_psr.inference.standard_metadata import STANDARD_NAME, build_standard_metadata, describe_model, name_tensors

METADATA_NAME = "keras_psr"
FILE_IDENTIFIER = b"TFL3"


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns the metadata of a `.tflite` file: tile, halo, scale, value range, licence, measured loss and more.

    Args:
        path: The file.

    Returns:
        The metadata that `export` wrote; docs/deploy.md lists the keys.

    Raises:
        ModelError: The file is not a `.tflite`, or was not exported by keras-psr.

    Example:
        tile = read_metadata("x4.tflite")["tile"]
    """
    try:
        model = read_flatbuffer(Path(path).read_bytes())
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == METADATA_NAME.encode():
                return json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}. Give a .tflite file.") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (struct.error, ValueError, IndexError, TypeError, AttributeError) as error:  # offsets that point nowhere
        raise ModelError(f"{path} is damaged or cut off. Export or download it again.") from error
    raise ModelError(f"{path} has no keras-psr metadata. Make the file with `keras-psr export --tflite`.")


def with_metadata(content: bytes, metadata: dict[str, Any]) -> bytes:
    """Returns a copy of a model with metadata set, replacing any that it had.

    The same facts are written as JSON for keras-psr and as TFLite Metadata for other tools, and name the model and its
    tensors.

    Args:
        content: A TFLite flatbuffer of a network from picture to picture.
        metadata: A dictionary that can be written as JSON.

    Returns:
        The new flatbuffer.

    Raises:
        ModelError: `content` is not a TFLite model.

    Example:
        content = with_metadata(content, {"scale": 4, "tile": 128, "halo": 13})
    """
    model = unpack(content)
    graph = model.subgraphs[0]
    given, result = (graph.tensors[indices[0]] for indices in (graph.inputs, graph.outputs))
    given.name, result.name = name_tensors(metadata)
    model.description = describe_model(metadata)
    _set_entry(model, METADATA_NAME, json.dumps(metadata).encode())
    _set_entry(model, STANDARD_NAME, build_standard_metadata(metadata, _read_shape(given), _read_shape(result)))
    return pack(model)


def _set_entry(model: schema.ModelT, name: str, content: bytes) -> None:
    """Sets a named entry of a model's metadata."""
    entries = model.metadata or []
    entry = next((entry for entry in entries if entry.name == name.encode()), None)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name.encode(), len(model.buffers)
        model.buffers.append(schema.BufferT())
        model.metadata = [*entries, entry]
    model.buffers[entry.buffer].data = np.frombuffer(content, np.uint8)


def _read_shape(tensor: schema.TensorT) -> tuple[int, ...]:
    """Returns a tensor's shape, where open sizes are -1."""
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return tuple(int(side) for side in shape)


def read_flatbuffer(content: bytes) -> schema.Model:
    """Returns the root of a TFLite flatbuffer, for reading.

    Raises:
        ModelError: `content` is not a TFLite model.

    Example:
        operators = read_flatbuffer(content).OperatorCodesLength()
    """
    if content[4:8] != FILE_IDENTIFIER:
        raise ModelError("not a TFLite model: the file identifier TFL3 is missing. Give a .tflite file.")
    return schema.Model.GetRootAs(content, 0)


def unpack(content: bytes) -> schema.ModelT:
    """Returns a TFLite flatbuffer as objects that can be changed.

    Raises:
        ModelError: `content` is not a TFLite model.

    Example:
        subgraph = unpack(content).subgraphs[0]
    """
    return schema.ModelT.InitFromObj(read_flatbuffer(content))


def pack(model: schema.ModelT) -> bytes:
    """Returns the TFLite flatbuffer of a model given as objects.

    Example:
        content = pack(unpack(content))
    """
    builder = _AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


class _AlignedBuilder(flatbuffers.Builder):
    """Puts bytes at multiples of 16, as the schema asks for weights, which the generated code ignores."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803
        """Begins a vector."""
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)
