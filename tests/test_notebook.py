"""The notebook of examples/, run from top to bottom with few steps."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from keras_psr.inference.tflite_metadata import read_metadata

NOTEBOOK = Path(__file__).parents[1] / "examples" / "fit_your_own.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None), cell.id


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    (choices,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    for old, new in {"STEPS = 600": "STEPS = 4", "SAVE_EVERY = 100": "SAVE_EVERY = 2"}.items():
        assert old in choices.source
        choices.source = choices.source.replace(old, new)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = {
        cell.id: sum("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    assert {name: number for name, number in pictures.items() if number} == {
        "data": 2,
        "plot": 1,
        "sheet": 1,
        "enlarge": 1,
    }
    metadata = read_metadata(tmp_path / "export" / "mine_int8.tflite")
    assert (metadata["name"], metadata["scale"], metadata["variant"]) == ("mine", 4, "int8")
