from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_psr.losses.perceptual
from keras_psr.constants import CHROMA_WEIGHTS
from keras_psr.errors import ConfigError
from keras_psr.losses.functional import phase_error
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.losses.terms import (
    LEAST_CHROMA_VARIATION,
    Term,
    chroma_loss,
    feature_loss,
    painting_grams,
    phase_loss,
    pixel_loss,
    stability_loss,
    style_loss,
    total_variation_loss,
)
from keras_psr.losses.vgg import build_vgg, pooling_stride

vgg_of = cache(build_vgg)
"""The network with which losses are compared, built once for each set of arguments."""

ALL = [pixel_loss(2.0), feature_loss(0.001, "relu2_2"), phase_loss(5.0, period=4), total_variation_loss(0.25)]
WEIGHTS = {"pixel_loss": 2.0, "feature_loss": 0.001, "phase_loss": 5.0, "total_variation": 0.25}


@pytest.fixture(scope="module")
def pictures():
    """Output and target, (2, 24, 24, 3)."""
    return np.random.default_rng(0).uniform(0, 255, (2, 2, 24, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def loss():
    return PerceptualLoss(ALL)


def expected_terms(output, target):
    """The terms by NumPy, but for the phase error, which has tests of its own, and VGG16's responses."""
    vgg = vgg_of(("relu2_2",))
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
    terms = loss.compute(*pictures)
    assert list(terms) == list(expected)
    assert numbers(terms) == pytest.approx(expected, rel=1e-4)
    weighted = sum(WEIGHTS[name] * value for name, value in expected.items())
    assert float(loss.total(terms)) == pytest.approx(weighted, rel=1e-4)


def test_equal_pictures_cost_nothing_but_their_total_variation(loss, pictures):
    terms = numbers(loss.compute(pictures[0], pictures[0]))
    assert terms.pop("total_variation") > 0
    assert set(terms.values()) == {0.0}


def test_the_papers_pixel_loss_is_squared(pictures):
    terms = PerceptualLoss([pixel_loss(1.0, "l2")]).compute(*pictures)
    expected = ((pictures[0].astype(np.float64) - pictures[1]) ** 2).mean()
    assert numbers(terms) == {"pixel_loss": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize("left_out", WEIGHTS)
def test_a_term_of_weight_zero_is_left_out(left_out, pictures):
    loss = PerceptualLoss([replace(term, weight=0.0) if term.name == left_out else term for term in ALL])
    kept = {name: weight for name, weight in WEIGHTS.items() if name != left_out}
    assert loss.weights == kept and list(loss.compute(*pictures)) == list(kept)


def test_a_term_of_another_kind_needs_nothing_but_a_function(pictures):
    """Compares the mean brightness, and the mean response of one layer."""
    brightness = Term("brightness", 3.0, lambda pair: abs(ops.mean(pair.output) - ops.mean(pair.target)))
    response = Term(
        "response", 1.0, lambda pair: ops.mean(pair.found["relu1_1"] - pair.wanted["relu1_1"]), ("relu1_1",)
    )
    loss = PerceptualLoss([brightness, response])
    terms = numbers(loss.compute(*pictures))
    assert terms["brightness"] == pytest.approx(abs(pictures[0].mean() - pictures[1].mean()), rel=1e-3)
    first, second = (np.asarray(vgg_of(("relu1_1",))(image)["relu1_1"], np.float64) for image in pictures)
    assert terms["response"] == pytest.approx((first - second).mean(), rel=1e-3)
    assert float(loss.total(terms)) == pytest.approx(3 * terms["brightness"] + terms["response"])


def test_vgg_is_not_built_without_a_term_that_compares_responses(monkeypatch):
    monkeypatch.setattr(keras_psr.losses.perceptual, "build_vgg", None)
    assert PerceptualLoss([pixel_loss(1.0), phase_loss(1.0, period=4), feature_loss(0.0, "relu2_2")]).encoder is None


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.sixteen_bits)])
def test_the_settings_of_vgg_are_passed_on(dtype, pictures):
    loss = PerceptualLoss([feature_loss(1.0, "relu1_2")], vgg_pooling="average", vgg_dtype=dtype)
    (error,) = loss.compute(*pictures).values()
    vgg = vgg_of(("relu1_2",))  # no pooling before it
    responses = [np.asarray(vgg(image)["relu1_2"]) for image in pictures]
    assert loss.encoder(pictures[0])["relu1_2"].dtype == dtype and error.dtype == tf.float32
    assert float(error) == pytest.approx(((responses[0] - responses[1]) ** 2).mean(), rel=0.02)
    with pytest.raises(ConfigError, match="must be among"):
        PerceptualLoss([feature_loss(1.0, "relu6_1")])


def test_average_pooling_gives_another_loss(pictures):
    losses = [
        float(PerceptualLoss([feature_loss(1.0, "relu2_2")], vgg_pooling=pooling).compute(*pictures)["feature_loss"])
        for pooling in ("max", "average")
    ]
    vgg = vgg_of(("relu2_2",), pooling="average")
    responses = [np.asarray(vgg(image)["relu2_2"]) for image in pictures]
    assert losses[1] == pytest.approx(((responses[0] - responses[1]) ** 2).mean(), rel=1e-5)
    assert abs(losses[0] - losses[1]) > 0.1 * losses[1]


@pytest.mark.parametrize("layer", ["relu1_2", "relu2_2", "relu3_3"])
def test_the_pooling_grid_takes_every_shift_in_turn(layer, pictures):
    period = {"relu1_2": 1, "relu2_2": 2, "relu3_3": 4}[layer]  # of the poolings before it
    assert pooling_stride(layer) == period
    loss = PerceptualLoss([feature_loss(1.0, layer)], shift_period=period)
    still = PerceptualLoss([feature_loss(1.0, layer)])
    assert loss.encoder(pictures[0])[layer].shape[1] == 24 // period
    in_graph = tf.function(lambda step: loss.compute(*map(tf.constant, pictures), step)["feature_loss"])
    expected = {}
    for step in range(period**2 + 1):
        rows, columns = step % period, step // period % period
        expected[step] = float(still.compute(*pictures[:, :, rows:, columns:])["feature_loss"])
        assert float(in_graph(tf.constant(step))) == pytest.approx(expected[step], rel=1e-4)
    assert len({round(value, 4) for value in expected.values()}) == period**2, "each shift has another loss"


STYLE_LAYERS = ("relu1_2", "relu2_1")


def grams_of(painting):
    return painting_grams(painting, STYLE_LAYERS, weights="bundled", pooling="max")


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
    responses = vgg_of(tuple(layers))(images)
    features = {layer: np.asarray(responses[layer], np.float64) for layer in layers}
    return {layer: np.einsum("nhwc,nhwd->ncd", x, x) / x[0].size for layer, x in features.items()}


@pytest.mark.parametrize("normalization", ["energy", "paper", "mean"])
def test_the_style_loss_is_that_of_numpy_and_vgg(normalization, pictures):
    painting = np.random.default_rng(1).integers(0, 256, (20, 33, 3), np.uint8)
    grams = grams_by_numpy(painting[None].astype(np.float32), STYLE_LAYERS)
    loss = PerceptualLoss([style_loss(2.0, STYLE_LAYERS, normalization, grams_of(painting))])
    terms = loss.compute(*pictures)
    expected = style_loss_by_numpy(pictures[0], grams, normalization)
    assert numbers(terms) == {"style_loss": pytest.approx(expected, rel=1e-3)}
    assert float(loss.total(terms)) == pytest.approx(2 * expected, rel=1e-3)


def test_the_painting_itself_has_its_style_at_any_place(pictures):
    painting = np.tile(np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8), (8, 8, 1))
    loss = PerceptualLoss([style_loss(2.0, STYLE_LAYERS, grams=grams_of(painting))])
    same = painting[None].astype(np.float32)
    assert float(loss.compute(same, same)["style_loss"]) == pytest.approx(0, abs=1e-8)
    assert float(loss.compute(pictures[0], same)["style_loss"]) > 0.01


def test_without_a_painting_each_original_is_its_own_style(pictures):
    loss = PerceptualLoss([style_loss(2.0, STYLE_LAYERS)])
    expected = style_loss_by_numpy(pictures[0], grams_by_numpy(pictures[1], STYLE_LAYERS), "energy")
    assert numbers(loss.compute(*pictures)) == {"style_loss": pytest.approx(expected, rel=1e-3)}
    assert numbers(loss.compute(pictures[1], pictures[1])) == {"style_loss": 0.0}


def test_chroma_is_relative_to_the_paintings(pictures):
    painting = np.random.default_rng(1).integers(0, 256, (20, 33, 3), np.uint8)
    image = painting[None].astype(np.float32)
    (own,) = numbers(PerceptualLoss([chroma_loss(1.0, painting)]).compute(image, image)).values()
    assert own == pytest.approx(1, rel=1e-5)
    paler = image.mean(axis=-1, keepdims=True) + 0.5 * (image - image.mean(axis=-1, keepdims=True))
    loss = PerceptualLoss([chroma_loss(1.0, painting)])
    assert numbers(loss.compute(paler, image)) == {"chroma_loss": pytest.approx(0.25, rel=1e-4)}
    grey = np.repeat(pictures[0][..., :1], 3, axis=-1)
    assert numbers(loss.compute(grey, grey))["chroma_loss"] == pytest.approx(0, abs=1e-6)
    colourless = PerceptualLoss([chroma_loss(1.0, grey[0].astype(np.uint8))])
    (variation,) = numbers(colourless.compute(image, image)).values()
    weights = np.array(CHROMA_WEIGHTS).T
    steps = [np.diff(image.astype(np.float64) @ weights, axis=axis) for axis in (1, 2)]
    assert variation == pytest.approx(sum((step**2).mean() for step in steps) / LEAST_CHROMA_VARIATION, rel=1e-4)


def test_two_frames_are_compared_only_if_there_are_two(pictures):
    image, other = pictures
    loss = PerceptualLoss([pixel_loss(1.0), stability_loss(0.5)])
    terms = loss.compute(image, image, twin=other)
    assert numbers(terms) == {
        "pixel_loss": 0,
        "stability_loss": pytest.approx(np.square(image.astype(np.float64) - other).mean(), rel=1e-5),
    }
    assert float(loss.total(terms)) == pytest.approx(0.5 * float(terms["stability_loss"]), rel=1e-6)
    assert set(loss.compute(image, image)) == {"pixel_loss"}
    assert loss.needs_twin and not PerceptualLoss([pixel_loss(1.0), stability_loss(0.0)]).needs_twin


def test_relative_features_are_divided_by_the_originals(pictures):
    loss = PerceptualLoss([feature_loss(1.0, "relu2_2", "energy")])
    first, second = (np.asarray(vgg_of(("relu2_2",))(image)["relu2_2"], np.float64) for image in pictures)
    expected = ((first - second) ** 2).mean() / (second**2).mean()
    assert numbers(loss.compute(*pictures)) == {"feature_loss": pytest.approx(expected, rel=1e-4)}


def test_known_responses_give_the_same_terms_without_the_original(pictures):
    loss = PerceptualLoss([feature_loss(1.0, "relu2_2"), style_loss(2.0, STYLE_LAYERS)])
    expected = numbers(loss.compute(*pictures))
    blank = np.zeros_like(pictures[1])
    terms = loss.compute(pictures[0], blank, wanted=loss.responses(pictures[1]))
    assert numbers(terms) == pytest.approx(expected, rel=1e-6)


def test_feature_and_style_loss_share_one_pass_of_vgg(pictures, monkeypatch):
    loss = PerceptualLoss([feature_loss(1.0, "relu2_2"), style_loss(2.0, STYLE_LAYERS)])
    passes, vgg = [], loss.encoder
    monkeypatch.setattr(loss, "encoder", lambda image: passes.append(image) or vgg(image))
    loss.compute(*pictures)
    assert len(passes) == 2, "the output's and the original's"


def test_a_style_loss_of_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="must be one of energy, paper, mean. Received: 'l2'"):
        style_loss(1.0, STYLE_LAYERS, "l2")
    with pytest.raises(ConfigError, match="must be among"):
        PerceptualLoss([style_loss(1.0, ("relu1_9",))])


def test_measure_gives_terms_and_their_weighted_sum(pictures):
    images = [image[0].astype(np.uint8) for image in pictures]
    loss = PerceptualLoss([style_loss(2.0, STYLE_LAYERS), total_variation_loss(0.5)])
    measured = loss.measure(*images)
    expected = numbers(loss.compute(*(image[None].astype(np.float32) for image in images)))
    assert measured.pop("loss") == pytest.approx(2 * expected["style_loss"] + 0.5 * expected["total_variation"])
    assert measured == pytest.approx(expected)
