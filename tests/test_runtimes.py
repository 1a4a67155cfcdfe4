"""The oldest runtimes that docs/deploy.md states, by what the files themselves hold."""

import re
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_psr.inference.registry import shipped_folder
from keras_psr.inference.tflite_metadata import read_metadata, unpack

DEPLOY = Path(__file__).parents[1] / "docs" / "deploy.md"
FILES = sorted(shipped_folder().glob("*/*.tflite"))
NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def read_release(text):
    """(2, 5) of 2.5 and of 2.5.0."""
    return tuple(int(number) for number in text.split(".")[:2])


def read_table():
    """The rows: {("float32", "style transfer"): ((2, 1), {"ADD": 1, ...}), ...}."""
    text = DEPLOY.read_text(encoding="utf-8").split("<!-- runtimes -->")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().split("\n\n")[0].splitlines()
    ]
    table = {}
    for files, runtime, operators in rows[2:]:
        versions = {name: int(number) for name, number in re.findall(r"`(\w+)` (\d+)", operators)}
        variant, task = re.fullmatch(r"`(\w+)` of (.*)", files).groups()
        table[variant, task] = (read_release(runtime), versions)
    return table


TABLE = read_table()


def list_versions(content):
    """The operators of a file, each with its version."""
    return {NAMES[code.builtinCode]: code.version for code in unpack(content).operatorCodes}


def read_oldest_runtime(content):
    """What the converter wrote into a file: the release of TensorFlow Lite that first knew all its operators."""
    model = unpack(content)
    (entry,) = [entry for entry in model.metadata if entry.name == b"min_runtime_version"]
    return read_release(bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_needs_what_the_table_says(path):
    metadata, content = read_metadata(path), path.read_bytes()
    runtime, versions = TABLE[metadata["variant"], metadata["task"]]
    found = list_versions(content)
    assert found.items() <= versions.items()
    assert read_oldest_runtime(content) == runtime


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_the_table_names_nothing_that_no_file_needs(row, export_tflite):
    paths = [path for path in FILES if (read_metadata(path)["variant"], read_metadata(path)["task"]) == row]
    if row == ("int8", "super-resolution"):
        paths.append(export_tflite("int8"))  # of `residual`, of which no file is shipped
    needed = {name for path in paths for name in list_versions(path.read_bytes())}
    assert needed == set(TABLE[row][1])


@pytest.mark.parametrize("variant", ["float32", "float16", "int8"])
def test_files_that_are_exported_now_need_no_more(export_tflite, variant):
    runtime, versions = TABLE[variant, "super-resolution"]
    content = export_tflite(variant).read_bytes()
    assert list_versions(content).items() <= versions.items()
    assert read_oldest_runtime(content) <= runtime
