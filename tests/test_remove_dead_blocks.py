"""tools/remove_dead_blocks.py on a network with a block whose units never fire."""

import json

import numpy as np
from click.testing import CliRunner

from keras_psr.inference.upscaler import load_keras
from keras_psr.networks.super_resolution import build_network


def test_a_dead_block_is_removed_and_pictures_stay(load_tool, tmp_path):
    generator, tool = np.random.default_rng(0), load_tool("remove_dead_blocks")
    network = build_network("fast", scale=2, num_filters=8, num_residual_blocks=4)
    for layer in network.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([generator.normal(0, 0.1, kernel.shape), generator.normal(0, 0.1, bias.shape)])
    dead, after = network.get_layer("block3_conv1"), network.get_layer("block3_conv2")
    dead.set_weights([dead.get_weights()[0], np.full(8, -1e3)])
    after.set_weights([after.get_weights()[0], np.full(8, 2.0)])
    run, short = tmp_path / "run", tmp_path / "short"
    run.mkdir()
    network.save(run / "model.keras")
    (run / "log.jsonl").write_text('{"step": 50}\n', encoding="utf-8")
    config = {"architecture": "fast", "num_residual_blocks": 4}
    (run / "config.json").write_text(json.dumps({"config": config}), encoding="utf-8")

    result = CliRunner().invoke(tool.main, [str(run), str(short)], catch_exceptions=False)

    assert "without block 3: 0.0000 grey levels" in result.output
    record = json.loads((short / "config.json").read_text(encoding="utf-8"))
    assert record == {"config": config | {"num_residual_blocks": 3}, "removed_blocks": [3]}
    picture = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    before, now = load_keras(run)(picture).astype(int), load_keras(short)(picture).astype(int)
    assert np.abs(before - now).max() <= 1  # rounding
    assert load_keras(short).network.count_params() < network.count_params()
