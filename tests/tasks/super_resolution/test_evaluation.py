import json
import math

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import zoom
from skimage import data

from keras_psr.data.degradation import named_degradation
from keras_psr.errors import ConfigError, DataError, ModelError
from keras_psr.images.metrics import block_ratio, color_block_ratio, lattice_ratio, psnr_rgb, psnr_y, ssim_y
from keras_psr.images.pixels import make_low_res, resize_bicubic
from keras_psr.inference.upscaler import Upscaler
from keras_psr.losses.vgg import build_vgg
from keras_psr.networks.super_resolution import build_network
from keras_psr.tasks.super_resolution.evaluation import (
    DEGRADED_PROTOCOL,
    FEATURE_TAP,
    LPIPS_TAPS,
    PROTOCOL,
    evaluate,
    interpolations,
    score_picture,
    summarize,
)
from keras_psr.tasks.super_resolution.texture import PatchStatistics, describe_patches, texture_distance

SCORES = {"psnr_y", "ssim_y", "psnr_rgb", "feature_distance", "lpips_vgg", "lattice_ratio"}


@pytest.fixture(scope="module")
def vgg():
    return build_vgg(LPIPS_TAPS)


@pytest.fixture(scope="module")
def pair():
    """A picture of 64x72 and the same with noise."""
    original = data.astronaut()[:64, 180:252]
    noise = np.random.default_rng(0).normal(0, 10, original.shape)
    return np.clip(original + noise, 0, 255).astype(np.uint8), original


@pytest.fixture(scope="module")
def bilinear():
    """An unfitted network: bilinear enlargement."""
    return Upscaler(build_network(num_filters=4, num_residual_blocks=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pictures whose sides are not multiples of four."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(data.astronaut()[:67, 180:253]).save(folder / "astronaut.png")
    Image.fromarray(data.coffee()[100:165, 200:264]).save(folder / "coffee.png")
    return folder


@pytest.fixture(scope="module")
def result(folder, bilinear):
    return evaluate(bilinear, str(folder))


def responses(vgg, image):
    return {tap: np.asarray(value[0], np.float64) for tap, value in vgg(image[None].astype(np.float32)).items()}


def lpips_by_numpy(first, second):
    """Zhang et al. 2018, equation 1 with all weights 1: pixel by pixel the squared chord of two unit vectors."""
    total = 0.0
    for tap in LPIPS_TAPS:
        lengths = [np.sqrt((r[tap] ** 2).sum(-1)) for r in (first, second)]
        cosine = (first[tap] * second[tap]).sum(-1) / (lengths[0] * lengths[1])
        total += (2 - 2 * cosine).mean()
    return total


def test_equal_pictures_have_no_distance(vgg, pair):
    scores = score_picture(pair[1], pair[1], 4, vgg)
    assert set(scores) == SCORES == set(PROTOCOL) - {"low_res", "texture_distance"}
    assert scores["psnr_y"] == scores["psnr_rgb"] == math.inf and scores["ssim_y"] == pytest.approx(1)
    assert scores["feature_distance"] == scores["lpips_vgg"] == 0


def test_scores_are_the_metrics_and_the_distances_of_vggs_responses(vgg, pair):
    scores = score_picture(*pair, 4, vgg)
    assert scores["psnr_y"] == psnr_y(*pair, 4) and scores["psnr_rgb"] == psnr_rgb(*pair, 4)
    assert scores["ssim_y"] == ssim_y(*pair, 4) and scores["lattice_ratio"] == lattice_ratio(pair[0], 4)
    first, second = (responses(vgg, image) for image in pair)
    distance = ((first[FEATURE_TAP] - second[FEATURE_TAP]) ** 2).mean()
    assert scores["feature_distance"] == pytest.approx(distance, rel=1e-4)
    assert scores["lpips_vgg"] == pytest.approx(lpips_by_numpy(first, second), rel=1e-4)


def test_without_the_taps_of_lpips_it_is_left_out(pair):
    assert set(score_picture(*pair, 4, build_vgg((FEATURE_TAP,)))) == SCORES - {"lpips_vgg"}


def row(psnr, distance, lattice):
    return {"psnr_y": psnr, "feature_distance": distance, "lattice_ratio": lattice}


def test_the_summary_of_a_hand_case():
    pictures = [
        {"bicubic": row(20.0, 10.0, 1.0), "model": row(22.0, 1.0, 7.0)},
        {"bicubic": row(30.0, 30.0, 1.5), "model": row(32.0, 9.0, math.nan)},
        {"bicubic": row(25.0, 20.0, 9.0), "model": row(30.0, 5.0, 1.0)},
    ]
    summary = summarize(pictures)
    assert summary["bicubic"] == pytest.approx(
        {"psnr_y": 25, "feature_distance": 20, "lattice_ratio": 1.5, "feature_distance_ratio": 1}
    )
    # The ratio is of means, 5 / 20, not the mean of ratios, (.1 + .3 + .25) / 3; the median is of 1 and 7.
    assert summary["model"] == pytest.approx(
        {"psnr_y": 28, "feature_distance": 5, "lattice_ratio": 4, "feature_distance_ratio": 0.25}
    )


def test_a_summary_without_a_lattice_or_a_difference_has_no_ratio():
    flat = [{"bicubic": row(math.inf, 0.0, math.nan), "model": row(30.0, 2.0, math.nan)}]
    summary = summarize(flat)
    assert math.isnan(summary["model"]["lattice_ratio"]) and math.isnan(summary["model"]["feature_distance_ratio"])


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_interpolations_enlarge_by_the_scale(scale):
    # A smooth picture: both kernels, and SciPy's cubic spline, agree away from the border.
    rows, columns = np.mgrid[:12, :16] / 16
    smooth = np.stack([80 + 60 * np.sin(2 * rows), 120 + 50 * np.cos(2 * columns), 100 + 90 * rows * columns], -1)
    smooth = np.rint(smooth).astype(np.uint8)
    expected = zoom(smooth.astype(float), (scale, scale, 1), order=3, grid_mode=True, mode="grid-mirror")
    inner = np.s_[3 * scale : -3 * scale, 3 * scale : -3 * scale]
    methods = interpolations(scale)
    assert list(methods) == ["bicubic", "lanczos"]
    for enlarge in methods.values():
        enlarged = enlarge(smooth)
        assert enlarged.shape == (12 * scale, 16 * scale, 3) and enlarged.dtype == np.uint8
        assert np.abs(enlarged[inner] - expected[inner]).max() <= 2


def test_evaluate_follows_the_protocol(result, folder, bilinear, vgg):
    assert result["scale"] == 4 and result["skipped"] == [] and result["protocol"] == PROTOCOL
    sizes = [(row["name"], row["height"], row["width"]) for row in result["pictures"]]
    assert sizes == [(str(folder / "astronaut.png"), 64, 72), (str(folder / "coffee.png"), 64, 64)]
    for row in result["pictures"]:
        assert list(row["scores"]) == ["bicubic", "lanczos", "model"]
        original = np.asarray(Image.open(row["name"]))[: row["height"], : row["width"]]
        low_res = make_low_res(original, 4)
        enlarged = {"bicubic": resize_bicubic(low_res, *original.shape[:2]), "model": bilinear(low_res)}
        for method, image in enlarged.items():
            assert row["scores"][method] == pytest.approx(score_picture(image, original, 4, vgg))
    assert result["summary"]["model"]["psnr_y"] == pytest.approx(
        np.mean([row["scores"]["model"]["psnr_y"] for row in result["pictures"]])
    )
    assert result["summary"]["bicubic"]["psnr_y"] > result["summary"]["model"]["psnr_y"]


def test_degraded_pictures_are_scored_against_the_same_originals(bilinear, tmp_path, vgg):
    original = data.astronaut()[:200, 100:300]
    Image.fromarray(original).save(tmp_path / "astronaut.png")
    degraded = evaluate(bilinear, str(tmp_path), degradation="jpeg:50")
    assert degraded["degradation"] == "jpeg:50" and degraded["protocol"] == PROTOCOL | DEGRADED_PROTOCOL
    image = bilinear(named_degradation("jpeg:50")(original, 4))
    expected = score_picture(image, original, 4, vgg)
    expected |= {"block_ratio": block_ratio(image, 4), "color_block_ratio": color_block_ratio(image, 4)}
    assert degraded["pictures"][0]["scores"]["model"] == pytest.approx(expected, nan_ok=True)
    assert set(expected) == set(degraded["protocol"]) - {"low_res", "texture_distance"}
    with pytest.raises(ConfigError, match="Received: 'rain'"):
        evaluate(bilinear, str(tmp_path), degradation="rain")


def test_too_few_patches_leave_out_only_the_texture_distance(result):
    assert all("texture_distance" not in scores and "psnr_y" in scores for scores in result["summary"].values())
    (reason,) = result["missing"].values()
    # 64x72 and 64x64 pixels have 2x2 patches of 32x32 each, and the rest is left out.
    assert list(result["missing"]) == ["texture_distance"] and "2,000 patches" in reason and "Received: 8." in reason


def test_the_texture_distance_is_of_whole_pictures_and_all_methods(folder, bilinear, vgg, few_patches):
    result = evaluate(bilinear, str(folder))
    methods = {**interpolations(4), "model": bilinear}
    gathered = {name: PatchStatistics() for name in ("original", *methods)}
    for row in result["pictures"]:
        original = np.asarray(Image.open(row["name"]))[: row["height"], : row["width"]]
        images = {"original": original, **{name: method(make_low_res(original, 4)) for name, method in methods.items()}}
        for name, image in images.items():
            gathered[name].add(describe_patches(responses(vgg, image)["relu3_3"]))
    for name in methods:
        expected = texture_distance(gathered[name], gathered["original"], at_least=2)
        assert result["summary"][name]["texture_distance"] == pytest.approx(expected, rel=1e-4) and expected > 1
        assert all("texture_distance" not in row["scores"][name] for row in result["pictures"])
    assert result["missing"] == {}


def test_the_result_is_json(result):
    assert json.loads(json.dumps(result)) == result


def test_a_saved_network_and_several_sources_can_be_named(bilinear, folder, result, tmp_path):
    bilinear.network.save(tmp_path / "model.keras")
    seen = []
    sources = [str(folder / "coffee.png"), str(folder / "astronaut.png")]
    again = evaluate(tmp_path, sources, on_picture=lambda *progress: seen.append(progress))
    assert seen == [(sources[0], 0, 2), (sources[1], 1, 2)]
    assert again["pictures"] == result["pictures"][::-1]
    with pytest.raises(ModelError, match="No model 'nothing'"):
        evaluate("nothing", sources)


def test_pictures_that_cannot_be_scored_are_skipped_and_named(bilinear, folder, result, tmp_path, caplog):
    (tmp_path / "astronaut.png").write_bytes((folder / "astronaut.png").read_bytes())
    for size in (1, 12):
        Image.new("RGB", (size, size), "red").save(tmp_path / f"small{size}.png")
    (tmp_path / "truncated.png").write_bytes((folder / "coffee.png").read_bytes()[:2000])
    partly = evaluate(bilinear, str(tmp_path))
    assert [row["scores"] for row in partly["pictures"]] == [result["pictures"][0]["scores"]]
    reasons = {entry["name"].rsplit("/")[-1]: entry["reason"] for entry in partly["skipped"]}
    assert set(reasons) == {"small1.png", "small12.png", "truncated.png"}
    assert all("image must have at least" in reasons[name] for name in ("small1.png", "small12.png"))
    (warning,) = caplog.messages
    assert warning.startswith("3 pictures left out:") and all(name in warning for name in reasons)


def test_nothing_to_score_is_refused(bilinear, tmp_path):
    with pytest.raises(DataError, match="no pictures in"):
        evaluate(bilinear, str(tmp_path))
    Image.new("RGB", (3, 3)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match="None of the 1 pictures can be scored.* .*small.png: "):
        evaluate(bilinear, str(tmp_path))


def test_flat_pictures_are_scored(bilinear, tmp_path):
    Image.new("RGB", (64, 64), (10, 200, 30)).save(tmp_path / "flat.png")
    summary = evaluate(bilinear, str(tmp_path))["summary"]
    assert summary["bicubic"]["feature_distance"] == 0 and summary["model"]["psnr_y"] == math.inf
