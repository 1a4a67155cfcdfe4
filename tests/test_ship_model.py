"""What tools/ship_model.py writes into a card."""

import json

import pytest

from keras_psr.tasks.config import SuperResolutionConfig


def test_the_hours_of_a_fit_count_the_batch_of_each_stage(load_tool, tmp_path):
    tool = load_tool("ship_model")
    config = SuperResolutionConfig(steps=300, warmup_steps=200, warmup_batch_size=36, batch_size=9)
    record = {"command": ["keras-psr", "fit"], "config": config.to_json(), "versions": {}, "machine": {}, "git": None}
    # 200 steps of 36 crops and 100 of 9, at one crop a second: 2 hours and a quarter.
    lines = [{"step": step, "crops_per_second": 1.0} for step in (100, 200, 300)]
    lines[-1] |= {"val_psnr_y": 30.0}
    (tmp_path / "config.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    fit = tool.describe_fit(tmp_path)

    assert fit["wall_time_hours"] == pytest.approx(2.25)
    assert "removed_blocks" not in fit
    (tmp_path / "config.json").write_text(json.dumps(record | {"removed_blocks": [2]}), encoding="utf-8")
    assert tool.describe_fit(tmp_path)["removed_blocks"] == [2]
