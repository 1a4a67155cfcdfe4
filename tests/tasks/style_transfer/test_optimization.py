import numpy as np
import pytest

from keras_psr.errors import ConfigError, DataError
from keras_psr.images.metrics import chroma_noise, lattice_ratio
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import keep_colors, rgb_to_y
from keras_psr.inference.photos import upscale_photo
from keras_psr.inference.upscaler import Upscaler
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.losses.terms import feature_loss, painting_grams, style_loss, total_variation_loss
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.tasks.style_transfer.evaluation import BASELINE_ITERATIONS, evaluate_style, square
from keras_psr.tasks.style_transfer.optimization import PixelOptimizer, optimize, white_noise


@pytest.fixture(scope="module")
def photograph():
    return np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)


@pytest.fixture(scope="module")
def loss():
    painting = np.random.default_rng(1).integers(0, 60, (40, 40, 3), np.uint8)
    layers = ("relu1_2", "relu2_1")
    return PerceptualLoss(
        [
            feature_loss(1, "relu2_1", "energy"),
            style_loss(2, layers, "energy", painting_grams(painting, layers, weights="bundled", pooling="max")),
            total_variation_loss(1e-5),
        ]
    )


def follow(photograph, loss, iterations, **options):
    """The result of an optimisation, and the objective after each iteration."""
    followed = []
    image = optimize(photograph, loss, iterations, on_iteration=lambda *report: followed.append(report), **options)
    return image, followed


@pytest.mark.parametrize("from_noise", [False, True])
def test_the_objective_falls_and_pixels_stay_in_range(photograph, loss, from_noise):
    start = white_noise(photograph.shape) if from_noise else None
    image, followed = follow(photograph, loss, 8, start=start)
    assert [iteration for iteration, _, _ in followed] == list(range(1, 9))
    objectives = [objective for _, objective, _ in followed]
    assert all(later < earlier for earlier, later in zip(objectives, objectives[1:], strict=False))
    first = photograph.astype(np.float32) if start is None else start
    terms = loss.compute(first[None], photograph[None].astype(np.float32))
    assert objectives[-1] < 0.8 * float(loss.total(terms))
    assert image.shape == photograph.shape and image.min() >= 0 and image.max() <= 255


def test_the_objective_that_is_told_is_that_of_the_picture(photograph, loss):
    _, followed = follow(photograph, loss, 3)
    for _, objective, image in followed:
        terms = loss.compute(image[None], photograph[None].astype(np.float32))
        assert objective == pytest.approx(float(loss.total(terms)), rel=1e-4)


def test_without_a_style_the_photograph_comes_back_from_noise(photograph):
    pixels_only = PerceptualLoss([feature_loss(1, "relu1_1")])
    image, _ = follow(photograph, pixels_only, 60, start=white_noise(photograph.shape))
    error, noise = (np.abs(x - photograph.astype(float)).mean() for x in (image, white_noise(photograph.shape)))
    assert error < 0.2 * noise


def test_what_cannot_be_optimised_is_refused(loss):
    for shape in ((15, 100, 3), (2000, 1001, 3)):
        with pytest.raises(ConfigError, match="at least 16 pixels on each side, and at most 2 million in all"):
            optimize(np.zeros(shape, np.uint8), loss, 1)
    with pytest.raises(ConfigError, match="iterations must be at least 1. Received: 0"):
        optimize(np.zeros((20, 20, 3), np.uint8), loss, 0)
    with pytest.raises(ConfigError, match="16 bits"):
        PixelOptimizer(loss, 1)(np.zeros((20, 20, 3), np.uint16))


def test_an_optimizer_paints_photographs_as_a_network_does(photograph, loss):
    pixels, told = [], []
    optimizer = PixelOptimizer(loss, 2, on_iteration=lambda iteration, objective: told.append(iteration))
    alpha = np.tile(np.uint8([255, 0]), (20, 12))
    painted = upscale_photo(optimizer, Photo(photograph, alpha=alpha), on_pixels=pixels.append)
    assert painted.pixels.shape == photograph.shape and painted.pixels.dtype == np.uint8
    np.testing.assert_array_equal(painted.alpha, alpha)
    assert pixels == [480, 480] and told == [1, 2]
    grey = optimizer(photograph[..., 0])
    assert grey.shape == (20, 24) and grey.dtype == np.uint8
    np.testing.assert_array_equal(optimizer(photograph, strength=0.0), photograph)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_kept_colours_change_in_brightness_only(dtype):
    top = np.iinfo(dtype).max
    generator = np.random.default_rng(0)
    photograph, image = generator.integers(top // 3, top // 2, (2, 300, 7, 3)).astype(dtype)
    kept = keep_colors(image, photograph)
    change = kept.astype(int) - photograph
    assert kept.dtype == dtype and np.ptp(change, axis=-1).max() <= 1, (
        "the same change in each channel, but for rounding"
    )
    lumas = [rgb_to_y(x * (255 / top)) for x in (kept, image)]
    assert np.abs(lumas[0] - lumas[1]).max() < 1
    np.testing.assert_array_equal(keep_colors(image[..., 0], photograph[..., 0]), image[..., 0])


def test_evaluation_of_a_style(loss, tmp_path, monkeypatch):
    from PIL import Image

    photograph = np.random.default_rng(0).integers(0, 256, (60, 72, 3), np.uint8)
    for name in ("a", "b"):
        Image.fromarray(photograph if name == "a" else photograph[::-1]).save(tmp_path / f"{name}.png")
    Image.new("RGB", (8, 90)).save(tmp_path / "small.png")
    monkeypatch.setattr("keras_psr.tasks.style_transfer.evaluation.BASELINE_ITERATIONS", (2, 4))
    stylizer = Upscaler(build_style_network(num_filters=2, num_residual_blocks=1))
    result = evaluate_style(stylizer, loss, [str(tmp_path)], painting=photograph[:56, :60], size=56, iterations=4)
    assert [picture["name"][-5:] for picture in result["pictures"]] == ["a.png", "b.png"]
    assert [row["reason"] for row in result["skipped"]] == ["8x90 is smaller than 56x56"]
    assert result["weights"] == {"feature_loss": 1, "style_loss": 2, "total_variation": 1e-5}
    assert list(result["summary"]) == ["photograph", "painting", "model", "L-BFGS 2", "L-BFGS 4"]
    surface = {
        "chroma_noise": chroma_noise(photograph[:56, :60]),
        "lattice_ratio": lattice_ratio(photograph[:56, :60], 4),
    }
    assert result["summary"]["painting"] == surface
    for method, scores in result["summary"].items():
        if method == "painting":
            continue
        terms = scores["feature_loss"] + 2 * scores["style_loss"] + 1e-5 * scores["total_variation"]
        assert scores["loss"] == pytest.approx(terms, rel=1e-4)
        for term, mean in scores.items():
            assert mean == pytest.approx(np.mean([row["scores"][method][term] for row in result["pictures"]])), (
                "the median of two pictures is their mean"
            )
    assert result["summary"]["photograph"]["feature_loss"] == 0
    assert result["summary"]["L-BFGS 4"]["loss"] < result["summary"]["L-BFGS 2"]["loss"]
    objectives = np.mean([picture["objectives"] for picture in result["pictures"]], axis=0)
    assert len(objectives) == 4
    matching = [number for number, mean in enumerate(objectives, 1) if mean <= result["summary"]["model"]["loss"]]
    assert result["iterations_to_match"] == (matching[0] if matching else None)
    painted = stylizer(square(photograph, 56))
    expected = loss.measure(painted, square(photograph, 56))
    expected |= {"chroma_noise": chroma_noise(painted), "lattice_ratio": lattice_ratio(painted, 4)}
    assert result["pictures"][0]["scores"]["model"].items() >= expected.items()


def test_pictures_too_small_for_a_lattice_are_evaluated_without(photograph, loss, tmp_path):
    from PIL import Image

    Image.fromarray(photograph).save(tmp_path / "photograph.png")
    stylizer = Upscaler(build_style_network(num_filters=2, num_residual_blocks=1))
    summary = evaluate_style(stylizer, loss, [str(tmp_path)], painting=photograph, size=16)["summary"]
    assert np.isnan(summary["model"]["lattice_ratio"]) and np.isfinite(summary["model"]["loss"])


def test_evaluation_without_a_usable_picture_is_refused(loss, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 30)).save(tmp_path / "small.png")
    stylizer = Upscaler(build_style_network(num_filters=2, num_residual_blocks=1))
    with pytest.raises(DataError, match="None of the 1 pictures.*small.png: 8x30 is smaller than 256x256"):
        evaluate_style(stylizer, loss, [str(tmp_path)], painting=np.zeros((32, 32, 3), np.uint8))


def test_the_baseline_is_looked_at_where_the_paper_does():
    assert BASELINE_ITERATIONS == (50, 100, 300, 500)


def test_a_square_is_the_middle_as_large_as_it_can_be():
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 200
    assert square(image, 20).shape == (20, 20, 3) and (square(image, 20) == 200).all()
