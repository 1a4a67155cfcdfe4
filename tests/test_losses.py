import numpy as np
import pytest
import tensorflow as tf

import keras_psr.losses
from keras_psr.errors import ConfigError
from keras_psr.functional import phase_error
from keras_psr.losses import PerceptualLoss
from keras_psr.vgg import build_vgg

ALL = {"pixel_weight": 2.0, "feature_weight": 0.001, "phase_weight": 5.0, "total_variation_weight": 0.25}


@pytest.fixture(scope="module")
def pictures():
    """Output and target, (2, 24, 24, 3)."""
    return np.random.default_rng(0).uniform(0, 255, (2, 2, 24, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def loss():
    return PerceptualLoss(phase_period=4, **ALL)


def expected_terms(output, target):
    """The terms by NumPy, but for the phase error, which has tests of its own, and VGG16's responses."""
    vgg = build_vgg(("relu2_2",))
    responses = [np.asarray(vgg(image)["relu2_2"], np.float64) for image in (output, target)]
    rows, columns = np.diff(output.astype(np.float64), axis=1), np.diff(output.astype(np.float64), axis=2)
    return {
        "pixel_loss": np.abs(output.astype(np.float64) - target).mean(),
        "feature_loss": ((responses[0] - responses[1]) ** 2).mean(),
        "phase_loss": float(phase_error(output, target, 4)),
        "total_variation": (rows**2).mean() + (columns**2).mean(),
    }


def numbers(terms):
    return {name: float(term) for name, term in terms.items()}


def test_terms_are_those_of_numpy_and_vgg(loss, pictures):
    expected = expected_terms(*pictures)
    terms = loss.terms(*pictures, step=0)
    assert list(terms) == list(expected)
    assert numbers(terms) == pytest.approx(expected, rel=1e-4)
    weighted = sum(ALL[name.replace("_loss", "") + "_weight"] * value for name, value in expected.items())
    assert float(loss.total(terms)) == pytest.approx(weighted, rel=1e-4)


def test_equal_pictures_cost_nothing_but_their_total_variation(loss, pictures):
    terms = numbers(loss.terms(pictures[0], pictures[0], step=0))
    assert terms.pop("total_variation") > 0
    assert set(terms.values()) == {0.0}


def test_the_papers_pixel_loss_is_squared(pictures):
    terms = PerceptualLoss(phase_period=4, pixel_norm="l2").terms(*pictures, step=0)
    expected = ((pictures[0].astype(np.float64) - pictures[1]) ** 2).mean()
    assert numbers(terms) == {"pixel_loss": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize("left_out", ALL)
def test_a_term_of_weight_zero_is_left_out(left_out, pictures):
    loss = PerceptualLoss(phase_period=4, **{**ALL, left_out: 0})
    kept = {weight.removesuffix("_weight") for weight in ALL if weight != left_out}
    assert {name.removesuffix("_loss") for name in loss.weights} == kept
    assert list(loss.terms(*pictures, step=0)) == list(loss.weights)


def test_vgg_is_not_built_without_a_feature_loss(monkeypatch):
    monkeypatch.setattr(keras_psr.losses, "build_vgg", None)
    assert PerceptualLoss(phase_period=4, pixel_weight=1, phase_weight=1).vgg is None


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.sixteen_bits)])
def test_the_settings_of_vgg_are_passed_on(dtype, pictures):
    options = {"phase_period": 4, "pixel_weight": 0, "feature_weight": 1}
    loss = PerceptualLoss(**options, feature_layer="relu1_2", vgg_pooling="average", vgg_dtype=dtype)
    (feature_loss,) = loss.terms(*pictures, step=0).values()
    responses = [
        np.asarray(build_vgg(("relu1_2",))(image)["relu1_2"]) for image in pictures
    ]  # no pooling before relu1_2
    assert loss.vgg(pictures[0])["relu1_2"].dtype == dtype and feature_loss.dtype == tf.float32
    assert float(feature_loss) == pytest.approx(((responses[0] - responses[1]) ** 2).mean(), rel=0.02)
    with pytest.raises(ConfigError, match="must be among"):
        PerceptualLoss(**options, feature_layer="relu6_1")


def test_average_pooling_gives_another_loss(pictures):
    options = {"phase_period": 4, "pixel_weight": 0, "feature_weight": 1}
    losses = [
        float(PerceptualLoss(**options, vgg_pooling=pooling).vgg_terms(*pictures)["feature_loss"])
        for pooling in ("max", "average")
    ]
    vgg = build_vgg(("relu2_2",), pooling="average")
    responses = [np.asarray(vgg(image)["relu2_2"]) for image in pictures]
    assert losses[1] == pytest.approx(((responses[0] - responses[1]) ** 2).mean(), rel=1e-5)
    assert abs(losses[0] - losses[1]) > 0.1 * losses[1]


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1)])
def test_a_shifted_feature_loss_is_that_of_pictures_cut_at_the_top_and_left(shift, loss, pictures):
    expected = loss.vgg_terms(*pictures[:, :, shift[0] :, shift[1] :])["feature_loss"]
    assert float(loss.vgg_terms(*pictures, shift)["feature_loss"]) == pytest.approx(float(expected), rel=1e-6)
    assert float(expected) != float(loss.vgg_terms(*pictures)["feature_loss"])


@pytest.mark.parametrize("layer", ["relu1_2", "relu2_2", "relu3_3"])
def test_the_pooling_grid_takes_every_shift_in_turn(layer, pictures):
    period = {"relu1_2": 1, "relu2_2": 2, "relu3_3": 4}[layer]  # of the poolings before it
    loss = PerceptualLoss(phase_period=4, pixel_weight=0, feature_weight=1, feature_layer=layer, shift_pooling=True)
    assert loss.vgg(pictures[0])[layer].shape[1] == 24 // period
    in_graph = tf.function(lambda step: loss.terms(*map(tf.constant, pictures), step)["feature_loss"])
    for step in range(period**2 + 1):
        shift = (step % period, step // period % period)
        expected = float(loss.vgg_terms(*pictures, shift)["feature_loss"])
        assert float(in_graph(tf.constant(step))) == pytest.approx(expected, rel=1e-4)


STYLE = {"pixel_weight": 0, "style_weight": 2.0, "style_layers": ("relu1_2", "relu2_1")}


def style_loss_by_numpy(output, grams, normalization):
    """The mean over pictures of the sum over layers; `grams` by layer, of one painting or of each original."""
    total = 0.0
    for layer, target in grams.items():
        gram = grams_by_numpy(output, [layer])[layer]
        squares = ((gram - target) ** 2).sum(axis=(1, 2)).mean()
        channels, energy = gram.shape[1], (target**2).sum(axis=(1, 2)).mean()
        total += squares / {"paper": 1, "mean": channels**2, "energy": energy}[normalization]
    return total


def grams_by_numpy(images, layers):
    responses = build_vgg(layers)(images)
    features = {layer: np.asarray(responses[layer], np.float64) for layer in layers}
    return {layer: np.einsum("nhwc,nhwd->ncd", x, x) / x[0].size for layer, x in features.items()}


@pytest.mark.parametrize("normalization", ["energy", "paper", "mean"])
def test_the_style_loss_is_that_of_numpy_and_vgg(normalization, pictures):
    painting = np.random.default_rng(1).integers(0, 256, (20, 33, 3), np.uint8)
    grams = grams_by_numpy(painting[None].astype(np.float32), STYLE["style_layers"])
    loss = PerceptualLoss(**STYLE, style_normalization=normalization, painting=painting)
    terms = loss.terms(*pictures, step=0)
    expected = style_loss_by_numpy(pictures[0], grams, normalization)
    assert numbers(terms) == {"style_loss": pytest.approx(expected, rel=1e-3)}
    assert float(loss.total(terms)) == pytest.approx(2 * expected, rel=1e-3)


def test_the_painting_itself_has_its_style_at_any_place(pictures):
    painting = np.tile(np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8), (8, 8, 1))
    loss = PerceptualLoss(**STYLE, painting=painting)
    same = painting[None].astype(np.float32)
    assert float(loss.terms(same, same, step=0)["style_loss"]) == pytest.approx(0, abs=1e-8)
    assert float(loss.terms(pictures[0], same, step=0)["style_loss"]) > 0.01


def test_without_a_painting_each_original_is_its_own_style(pictures):
    loss = PerceptualLoss(phase_period=4, **STYLE)
    expected = style_loss_by_numpy(pictures[0], grams_by_numpy(pictures[1], STYLE["style_layers"]), "energy")
    assert numbers(loss.terms(*pictures, step=0)) == {"style_loss": pytest.approx(expected, rel=1e-3)}
    assert numbers(loss.terms(pictures[1], pictures[1], step=0)) == {"style_loss": 0.0}


def test_relative_features_are_divided_by_the_originals(pictures):
    loss = PerceptualLoss(pixel_weight=0, feature_weight=1, relative_features=True)
    first, second = (np.asarray(build_vgg(("relu2_2",))(image)["relu2_2"], np.float64) for image in pictures)
    expected = ((first - second) ** 2).mean() / (second**2).mean()
    assert numbers(loss.terms(*pictures, step=0)) == {"feature_loss": pytest.approx(expected, rel=1e-4)}


def test_known_responses_give_the_same_terms_without_the_original(pictures):
    loss = PerceptualLoss(**{**STYLE, "painting": None}, feature_weight=1)
    expected = numbers(loss.terms(*pictures, step=0))
    blank = np.zeros_like(pictures[1])
    terms = loss.terms(pictures[0], blank, step=0, expected=loss.responses(pictures[1]))
    assert numbers(terms) == pytest.approx(expected, rel=1e-6)


def test_feature_and_style_loss_share_one_pass_of_vgg(pictures, monkeypatch):
    loss = PerceptualLoss(**STYLE, feature_weight=1)
    passes, vgg = [], loss.vgg
    monkeypatch.setattr(loss, "vgg", lambda image: passes.append(image) or vgg(image))
    loss.terms(*pictures, step=0)
    assert len(passes) == 2, "the output's and the original's"


def test_a_style_loss_of_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="must be one of energy, paper, mean. Received: 'l2'"):
        PerceptualLoss(**STYLE, style_normalization="l2")
    with pytest.raises(ConfigError, match="must be among"):
        PerceptualLoss(**{**STYLE, "style_layers": ("relu1_9",)})


def test_measure_gives_terms_and_their_weighted_sum(pictures):
    images = [image[0].astype(np.uint8) for image in pictures]
    loss = PerceptualLoss(**STYLE, total_variation_weight=0.5)
    measured = loss.measure(*images)
    expected = numbers(loss.terms(*(image[None].astype(np.float32) for image in images), step=0))
    assert measured.pop("loss") == pytest.approx(2 * expected["style_loss"] + 0.5 * expected["total_variation"])
    assert measured == pytest.approx(expected)
