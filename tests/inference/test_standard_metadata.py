"""TFLite Metadata as other programs read it: flatc of Google's FlatBuffers with the public schema, and LiteRT."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_psr.inference.registry import shipped_folder
from keras_psr.inference.standard_metadata import build_standard_metadata, describe_model, name_tensors
from keras_psr.inference.tflite_metadata import read_metadata, unpack

SCHEMA = Path(__file__).with_name("metadata_schema.fbs")
SHIPPED = sorted(shipped_folder().glob("*/*.tflite"))


@pytest.fixture
def read(tmp_path):
    """Reads TFLite Metadata with flatc: a function from bytes to a dictionary."""
    flatc = shutil.which("flatc")
    if not flatc:
        pytest.skip("no flatc: install flatbuffers-compiler")

    def read(content):
        (tmp_path / "metadata.bin").write_bytes(content)
        # Without --raw-binary, flatc checks the identifier M001 too.
        command = [flatc, "--json", "--strict-json", "-o", tmp_path, SCHEMA, "--", tmp_path / "metadata.bin"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads((tmp_path / "metadata.json").read_text(encoding="utf-8"))

    return read


def describe_image(size):
    """What the schema's JSON has for an RGB picture in [0, 255], of (width, height) or of any size."""
    sides = {"default_size": {"width": size[0], "height": size[1]}} if size else {}
    return {
        "content": {
            "content_properties_type": "ImageProperties",
            "content_properties": {"color_space": "RGB"} | sides,
        },
        "process_units": [{"options_type": "NormalizationOptions", "options": {"mean": [0.0], "std": [1.0]}}],
        "stats": {"max": [255.0], "min": [0.0]},
    }


def without_texts(tensor):
    return {key: value for key, value in tensor.items() if key not in ("name", "description")}


def test_another_program_reads_what_was_written(read):
    facts = {"name": "Größe", "scale": 4, "halo": 13, "licence": "CC0", "author": "A. U. Thor", "keras_psr": "1.2"}
    model = read(build_standard_metadata(facts, (1, 40, 30, 3), (1, 56, 16, 3)))
    assert (model["name"], model["author"], model["license"], model["version"]) == ("Größe", "A. U. Thor", "CC0", "1.2")
    assert model["min_parser_version"] == "1.0.0"
    assert model["description"].startswith("Größe enlarges pictures 4 times. Exported by keras-psr 1.2.")
    (graph,) = model["subgraph_metadata"]
    (given,), (result,) = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
    assert (given["name"], result["name"]) == ("image", "enlarged")
    assert "a halo of 13 pixels" in given["description"]
    assert without_texts(given) == describe_image((30, 40))
    assert without_texts(result) == describe_image((16, 56))


def test_the_task_says_whether_a_network_enlarges_or_paints():
    facts = {"name": "waves", "task": "style transfer", "scale": 1}
    assert describe_model(facts) == "waves paints pictures. Exported by keras-psr."
    assert name_tensors(facts) == ("image", "painted")
    facts = {"name": "same", "task": "super-resolution", "scale": 1}
    assert describe_model(facts) == "same enlarges pictures 1 times. Exported by keras-psr."
    assert name_tensors(facts) == ("image", "enlarged")


def test_what_is_unknown_is_left_out(read):
    model = read(build_standard_metadata({}, (1, -1, -1, 3), (1, -1, -1, 3)))
    assert set(model) == {"description", "subgraph_metadata", "min_parser_version"}
    assert model["description"].startswith("The network enlarges pictures. Exported by keras-psr.")
    (graph,) = model["subgraph_metadata"]
    assert without_texts(graph["input_tensor_metadata"][0]) == describe_image(None)
    assert graph["input_tensor_metadata"][0]["description"] == "RGB in [0, 255]: a picture of any size."
    assert graph["output_tensor_metadata"][0]["name"] == "enlarged"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_describes_itself_to_other_programs(read, path):
    metadata, model = read_metadata(path), unpack(path.read_bytes())
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    standard = read(model.buffers[entry.buffer].data.tobytes())
    (graph,) = standard["subgraph_metadata"]
    interpreter = Interpreter(model_path=str(path))
    tensors = zip(
        (*graph["input_tensor_metadata"], *graph["output_tensor_metadata"]),
        (*interpreter.get_input_details(), *interpreter.get_output_details()),
        strict=True,
    )
    for described, tensor in tensors:
        _, height, width, _ = map(int, tensor["shape"])
        assert described["name"] == tensor["name"]
        assert without_texts(described) == describe_image((width, height))
    assert standard["name"] == path.parent.name and standard["author"] == "The keras-psr authors"
    assert (standard["license"], standard["version"]) == (metadata["licence"], metadata["keras_psr"])
    assert metadata["variant"] in standard["description"]
    assert model.description.decode() == describe_model(metadata)
