"""What tools/ship_model.py writes into a card."""

import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from keras_psr.inference.upscaler import Upscaler
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
    (tmp_path / "config.json").write_text(json.dumps(record | {"removed_blocks": [2], "share": 0.5}), encoding="utf-8")
    fit = tool.describe_fit(tmp_path)
    assert (fit["removed_blocks"], fit["share"]) == ([2], 0.5)


@pytest.mark.usefixtures("few_patches")
def test_a_card_has_the_texture_distance_of_sets_with_enough_patches(load_tool, random_network, tmp_path):
    tool = load_tool("ship_model")
    for name, side in (("large", 96), ("small", 40)):
        (tmp_path / name).mkdir()
        Image.fromarray(skimage.data.astronaut()[:side, 180 : 180 + side]).save(tmp_path / name / "astronaut.png")

    upscaler = Upscaler(random_network)
    facts = tool.measure_super_resolution(
        upscaler, SuperResolutionConfig(), [str(tmp_path / "large"), str(tmp_path / "small")]
    )

    scores = facts["scores"]
    expected = tool.evaluate(upscaler, str(tmp_path / "large"))["summary"]
    for method in ("bicubic", "lanczos", "model"):
        assert scores["large"][method]["texture_distance"] == np.round(expected[method]["texture_distance"], 4) > 0
        assert "texture_distance" not in scores["small"][method]  # it has one patch, and the least is two here
    assert "texture_distance" in facts["protocol"]


def test_a_card_says_that_an_adversarial_loss_invents_textures(load_tool):
    tool = load_tool("ship_model")
    plain, adversarial = (
        tool.describe_limits(SuperResolutionConfig(adversarial_weight=weight).to_json()) for weight in (0.0, 0.5)
    )
    assert tool.ADVERSARIAL_LIMITS in adversarial and tool.ADVERSARIAL_LIMITS not in plain
    assert all(tool.LIMITS["bicubic"] in limits and tool.LIMITS_OF_ALL in limits for limits in (plain, adversarial))
