import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_psr.errors import ModelError
from keras_psr.inference.tflite_metadata import pack, read_metadata, unpack, with_metadata


def test_metadata_round_trip(tmp_path, empty_tflite):
    metadata = {"tile": 128, "halo": 16, "licence": "\N{COPYRIGHT SIGN} CC BY 4.0", "drop": {"psnr_y": 0.01}}
    path = tmp_path / "x4.tflite"
    path.write_bytes(with_metadata(empty_tflite, metadata))
    assert read_metadata(path) == metadata


def test_metadata_is_replaced_and_the_rest_is_kept(tmp_path, empty_tflite):
    other = schema.MetadataT()
    other.name, other.buffer = b"min_runtime_version", 0
    model = unpack(empty_tflite)
    model.metadata = [other]
    path = tmp_path / "x4.tflite"
    once = with_metadata(pack(model), {"tile": 1})
    path.write_bytes(with_metadata(once, {"tile": 2}))
    assert read_metadata(path) == {"tile": 2}
    assert path.stat().st_size == len(once)
    written = unpack(path.read_bytes())
    names = [entry.name for entry in written.metadata]
    assert names == [b"min_runtime_version", b"keras_psr", b"TFLITE_METADATA"]
    assert written.version == 3


def test_weights_begin_at_multiples_of_16_bytes(empty_tflite):
    model = unpack(empty_tflite)
    for length in (1, 3, 17, 64):
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = np.arange(length, dtype=np.uint8)
    content = with_metadata(pack(model), {"tile": 8})
    read = schema.Model.GetRootAs(content, 0)
    held = [read.Buffers(index).DataAsNumpy() for index in range(1, read.BuffersLength())]
    assert [len(data) for data in held[:4]] == [1, 3, 17, 64]
    start = np.frombuffer(content, np.uint8).ctypes.data
    assert all((data.ctypes.data - start) % 16 == 0 for data in held)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"PK\x03\x04zip"])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "x4.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="x4.tflite: not a TFLite model"):
        read_metadata(path)


def test_a_model_of_others_is_refused(tmp_path, empty_tflite):
    path = tmp_path / "x4.tflite"
    path.write_bytes(empty_tflite)
    with pytest.raises(ModelError, match="has no keras-psr metadata"):
        read_metadata(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="x4.tflite cannot be read: No such file"):
        read_metadata(tmp_path / "x4.tflite")


def test_reading_needs_no_tensorflow(tmp_path):
    code = "import sys, keras_psr.inference.tflite_metadata; print({'tensorflow', 'keras'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize("kept", [8, 20, 40])
def test_a_file_that_is_cut_off_is_refused(tmp_path, kept, empty_tflite):
    path = tmp_path / "x4.tflite"
    path.write_bytes(with_metadata(empty_tflite, {"tile": 1})[:kept])
    with pytest.raises(ModelError, match=r"x4\.tflite is damaged or cut off\. Export or download it again\."):
        read_metadata(path)
