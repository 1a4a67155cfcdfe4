"""TFLite Metadata, the public format by which Android Studio and other tools know what a `.tflite` takes and gives.

The tables are those of `metadata_schema.fbs` (github.com/tensorflow/tflite-support). The two libraries that write them
are not used: tflite-support ended with Python 3.11, and mediapipe would bring 600 MB for a module that cannot be
imported in version 1.2.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import flatbuffers  # type: ignore[import-untyped]
import numpy as np

from keras_psr.constants import STYLE_TRANSFER

STANDARD_NAME = "TFLITE_METADATA"
FILE_IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"
"""The oldest version of the format that has all tables and fields that are written here."""

FIELDS = {
    "ModelMetadata": (
        *("name", "description", "version", "subgraph_metadata", "author", "license"),
        *("associated_files", "min_parser_version"),
    ),
    "SubGraphMetadata": ("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    "TensorMetadata": ("name", "description", "dimension_names", "content", "process_units", "stats"),
    "Content": ("content_properties_type", "content_properties"),
    "ImageProperties": ("color_space", "default_size"),
    "ImageSize": ("width", "height"),
    "ProcessUnit": ("options_type", "options"),
    "NormalizationOptions": ("mean", "std"),
    "Stats": ("max", "min"),
}
"""The fields of each table, in the order of the schema, up to the last one that is written here."""

IMAGE_PROPERTIES, NORMALIZATION_OPTIONS = np.uint8(2), np.uint8(1)
"""Numbers of tables in the schema's unions."""

RGB = np.uint8(1)
"""Number of the colour space in the schema."""

Shape: TypeAlias = tuple[int, ...]


class Table(NamedTuple):
    """A table of the schema: its kind, and the fields that have a value."""

    kind: str
    fields: dict[str, Any]


def describe_model(metadata: dict[str, Any]) -> str:
    """Returns a sentence that says what a file does.

    Args:
        metadata: The metadata of keras-psr; every key may be missing.
    """
    times = f" {metadata['scale']} times" if "scale" in metadata else ""
    effect = "paints pictures" if metadata.get("task") == STYLE_TRANSFER else f"enlarges pictures{times}"
    variant = f" ({metadata['variant']})" if "variant" in metadata else ""
    version = f" {metadata['keras_psr']}" if "keras_psr" in metadata else ""
    return f"{metadata.get('name') or 'The network'}{variant} {effect}. Exported by keras-psr{version}."


def name_tensors(metadata: dict[str, Any]) -> tuple[str, str]:
    """Returns the names of the input and the output of a file."""
    return "image", "painted" if metadata.get("task") == STYLE_TRANSFER else "enlarged"


def build_standard_metadata(metadata: dict[str, Any], input_shape: Shape, output_shape: Shape) -> bytes:
    """Returns TFLite Metadata for a network from picture to picture.

    Args:
        metadata: The metadata of keras-psr; every key may be missing.
        input_shape: (1, height, width, 3), where open sizes are -1.
        output_shape: The same for the output.

    Returns:
        A flatbuffer of the schema's `ModelMetadata`.
    """
    description, (given, result) = describe_model(metadata), name_tensors(metadata)
    rgb = "RGB in [0, 255]"
    tile = f"{rgb}: a picture of any size."
    if input_shape[1] > 0:
        tile = f"{rgb}: a tile, cut with a halo of {metadata.get('halo', 0)} pixels on each side that the output lacks."
    graph = Table(
        "SubGraphMetadata",
        {
            "name": metadata.get("name"),
            "description": description,
            "input_tensor_metadata": [_describe_image(given, tile, input_shape)],
            "output_tensor_metadata": [_describe_image(result, f"{rgb}.", output_shape)],
        },
    )
    model = Table(
        "ModelMetadata",
        {
            "name": metadata.get("name"),
            "description": f"{description} The entry keras_psr is JSON and says how to cut pictures into tiles.",
            "version": metadata.get("keras_psr"),
            "subgraph_metadata": [graph],
            "author": metadata.get("author"),
            "license": metadata.get("licence"),
            "min_parser_version": PARSER_VERSION,
        },
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, model), FILE_IDENTIFIER)
    return bytes(builder.Output())


def _describe_image(name: str, description: str, shape: Shape) -> Table:
    """Returns the description of a tensor that is an RGB picture in [0, 255], as it is: mean 0, deviation 1."""
    height, width = shape[1:3]
    size = Table("ImageSize", {"width": np.uint32(width), "height": np.uint32(height)}) if height > 0 else None
    image = Table("ImageProperties", {"color_space": RGB, "default_size": size})
    normalization = Table("NormalizationOptions", {"mean": np.array([0], np.float32), "std": np.array([1], np.float32)})
    return Table(
        "TensorMetadata",
        {
            "name": name,
            "description": description,
            "content": Table("Content", {"content_properties_type": IMAGE_PROPERTIES, "content_properties": image}),
            "process_units": [
                Table("ProcessUnit", {"options_type": NORMALIZATION_OPTIONS, "options": normalization}),
            ],
            "stats": Table("Stats", {"max": np.array([255], np.float32), "min": np.array([0], np.float32)}),
        },
    )


def _write(builder: flatbuffers.Builder, table: Table) -> int:
    """Writes a table and what it contains, and returns its place. Fields that are None are left out."""
    # Whatever a table refers to is written before it.
    values = {name: _write_value(builder, value) for name, value in table.fields.items() if value is not None}
    names = FIELDS[table.kind]
    builder.StartObject(len(names))
    for slot, name in enumerate(names):
        value = values.get(name)
        if isinstance(value, np.uint8):
            builder.PrependUint8Slot(slot, int(value), 0)
        elif isinstance(value, np.uint32):
            builder.PrependUint32Slot(slot, int(value), 0)
        elif value is not None:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def _write_value(builder: flatbuffers.Builder, value: Any) -> Any:
    """Writes a text, an array, a table or a list of tables, and returns its place; returns a number itself."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, Table):
        return _write(builder, value)
    if isinstance(value, list):
        return _write_list(builder, [_write(builder, table) for table in value])
    return value


def _write_list(builder: flatbuffers.Builder, places: Sequence[int]) -> int:
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()
