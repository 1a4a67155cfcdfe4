"""tools/mix_models.py on two small networks."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from keras_psr.inference.upscaler import load_keras
from keras_psr.networks.super_resolution import build_network


@pytest.fixture
def run(tmp_path):
    """A run folder whose config names another one as its beginning, with other weights and optional settings."""
    generator = np.random.default_rng(0)

    def write(name, init, num_filters=4):
        network = build_network("fast", scale=2, num_filters=num_filters, num_residual_blocks=1)
        network.set_weights([generator.normal(0, 0.1, weights.shape) for weights in network.get_weights()])
        (tmp_path / name).mkdir()
        network.save(tmp_path / name / "model.keras")
        (tmp_path / name / "log.jsonl").write_text('{"step": 50}\n', encoding="utf-8")
        config = {"architecture": "fast", "init": str(tmp_path / init) if init else ""}
        (tmp_path / name / "config.json").write_text(json.dumps({"config": config}), encoding="utf-8")
        return tmp_path / name

    return write


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_lie_between_the_beginning_and_the_end_of_a_fit(share, run, load_tool, tmp_path):
    start, end, out = run("start", None), run("end", "start"), tmp_path / "mixed"
    arguments = [str(end), str(out), "--share", str(share)]
    result = CliRunner().invoke(load_tool("mix_models").main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    before, after, mixed = (load_keras(folder).network.get_weights() for folder in (start, end, out))
    for first, last, found in zip(before, after, mixed, strict=True):
        np.testing.assert_allclose(found, first + share * (last - first), atol=1e-6)
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["share"] == share
    assert (out / "log.jsonl").exists()


@pytest.mark.parametrize(
    ("init", "message"), [(None, "RUN must be a fit with --init."), ("start", "RUN must have the layers of")]
)
def test_what_cannot_be_mixed_is_refused(init, message, run, load_tool, tmp_path):
    run("start", None)
    end = run("end", init, num_filters=8)
    result = CliRunner().invoke(load_tool("mix_models").main, [str(end), str(tmp_path / "out"), "--share", "0.5"])
    assert result.exit_code == 2 and message in result.output and not (tmp_path / "out").exists()
