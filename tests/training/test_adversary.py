import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_psr.losses.functional import texture_map
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.losses.terms import adversarial_loss, feature_loss, pixel_loss
from keras_psr.tasks.config import SuperResolutionConfig
from keras_psr.training.adversary import LEARNING_RATE, Adversary
from keras_psr.training.trainer import Trainer

STAGE = SuperResolutionConfig(steps=40, warmup_steps=20).stages()[-1]


@pytest.fixture(scope="module")
def loss():
    return PerceptualLoss([pixel_loss(1.0), feature_loss(1e-3, "relu2_2"), adversarial_loss(1.0)])


@pytest.fixture
def pictures():
    """Blurred outputs and originals, (4, 48, 48, 3); the upper half of the originals is flat."""
    originals = np.random.default_rng(0).normal(128, 40, (4, 48, 48, 3)).astype(np.float32)
    originals[:, :24] = 90
    outputs = originals.mean((1, 2), keepdims=True) * 0.5 + originals * 0.5
    return outputs.astype(np.float32), originals


def take_step(adversary, loss, outputs, originals, step=0):
    """The gradients at the output of the other terms and of all terms, and what a step of learning returns."""
    outputs = tf.constant(outputs)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(outputs)
        comparison = adversary.judge(loss.compare(outputs, originals, step), step)
        terms = loss.errors(comparison)
        total = loss.total(terms)
    at_output = np.asarray(adversary.gradient_at_output(tape, total, comparison))
    return np.asarray(tape.gradient(total, outputs)), at_output, terms | adversary.learn(tape, comparison)


@pytest.mark.parametrize("weight", [0.25, 2.0])
def test_the_gradient_is_as_strong_as_asked_for_and_only_where_there_is_texture(weight, loss, pictures, monkeypatch):
    monkeypatch.setattr("keras_psr.losses.functional.PHASE_WINDOW", 24)  # covers all 12 cells from any of them
    of_others, at_output, _ = take_step(Adversary(weight, 4, STAGE), loss, *pictures)
    added = at_output - of_others
    assert np.linalg.norm(added) == pytest.approx(weight * np.linalg.norm(of_others), rel=1e-3)
    texture = np.asarray(texture_map(pictures[1]))
    assert texture[:, :24].max() < 1e-9 and texture[:, 32:].min() > 0.9
    assert np.abs(added[:, :24]).max() < 1e-4 * np.abs(added).max()
    phases = added.reshape(4, 12, 4, 12, 4, 3).mean((1, 3))
    assert np.abs(phases).max() < 1e-4 * np.abs(added).max(), "it asks for no grid"


def test_smaller_windows_remove_most_of_a_grid_over_the_whole_picture(loss, pictures, monkeypatch):
    def measure_grid():
        """The mean of each phase over the pictures, relative to the gradient."""
        of_others, at_output, _ = take_step(Adversary(1.0, 4, STAGE), loss, *pictures)
        added = at_output - of_others
        return np.abs(added.reshape(4, 12, 4, 12, 4, 3).mean((1, 3))).max() / np.abs(added).max()

    keras.utils.set_random_seed(0)
    grid = measure_grid()
    monkeypatch.setattr("keras_psr.training.adversary.without_lattice", lambda image, weights, period: image)
    keras.utils.set_random_seed(0)
    assert grid < 0.5 * measure_grid()


def test_the_gradient_raises_the_decisions_of_both_kinds_of_discriminators(loss, pictures):
    outputs, originals = pictures
    adversary = Adversary(1.0, 4, STAGE)
    of_others, at_output, _ = take_step(adversary, loss, outputs, originals)
    added = at_output - of_others
    moved = outputs - 0.5 * added / np.abs(added).mean()
    before, after = (
        adversary.judge(loss.compare(tf.constant(image), originals), tf.constant(0)).verdict.generator_losses
        for image in (outputs, moved)
    )
    assert float(after["picture"]) < float(before["picture"])
    assert float(after["relu2_2"] + after["relu3_3"]) < float(before["relu2_2"] + before["relu3_3"])


def test_other_terms_and_their_sum_stay_what_they_are_without_discriminators(loss, pictures):
    _, _, terms = take_step(Adversary(1.0, 4, STAGE), loss, *pictures)
    assert list(terms) == [
        "pixel_loss",
        "feature_loss",
        "adversarial_loss",
        "discriminator_loss",
        "discriminator_accuracy",
    ]
    plain = PerceptualLoss([pixel_loss(1.0), feature_loss(1e-3, "relu2_2")])
    expected = plain.compute(*pictures)
    assert list(loss.compute(*pictures)) == list(expected), "the term needs a verdict"
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-5)
    assert float(loss.total(terms)) == pytest.approx(float(plain.total(expected)), rel=1e-5)


def test_discriminators_learn_to_tell_two_kinds_of_pictures_apart(loss, pictures):
    adversary = Adversary(1.0, 4, STAGE)
    numbers = [take_step(adversary, loss, *pictures, number)[2] for number in range(10)]
    accuracies, losses = (
        [float(one[name]) for one in numbers] for name in ("discriminator_accuracy", "discriminator_loss")
    )
    assert accuracies[0] < 0.8 and min(accuracies[-3:]) > 0.9
    assert losses[-1] < 0.5 * losses[0]
    assert float(numbers[-1]["adversarial_loss"]) > float(numbers[0]["adversarial_loss"])


def test_pictures_that_are_the_same_cannot_be_told_apart(loss, pictures):
    verdict = Adversary(1.0, 4, STAGE).judge(loss.compare(pictures[1], pictures[1]), tf.constant(0)).verdict
    assert float(verdict.accuracy) == 0, "equal decisions prefer neither"
    assert float(verdict.discriminator_loss) == pytest.approx(np.log(2), rel=1e-5)


def test_the_learning_rate_decays_over_the_stage():
    optimizer = Adversary(1.0, 4, STAGE).optimizer
    for step, expected in ((0, 1), (10, 0.5), (20, 0)):
        optimizer.iterations.assign(step)
        assert float(optimizer.learning_rate) == pytest.approx(LEARNING_RATE * expected, abs=1e-9)


def test_the_network_takes_the_step_of_the_whole_gradient(loss, pictures):
    """A network that adds a bias to each channel moves by the sum of the gradient at its output."""
    outputs, originals = pictures
    network = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 1)])
    network.set_weights([np.eye(3, dtype=np.float32)[None, None], np.zeros(3, np.float32)])
    keras.utils.set_random_seed(0)
    _, at_output, _ = take_step(Adversary(1.0, 4, STAGE), loss, outputs, originals)
    keras.utils.set_random_seed(0)
    trainer = Trainer(network, loss, Adversary(1.0, 4, STAGE))
    trainer.compile(optimizer=keras.optimizers.SGD(1e-3), jit_compile=False)
    trainer.train_step((tf.constant(outputs), tf.constant(originals)))
    bias = np.asarray(network.layers[-1].bias)
    np.testing.assert_allclose(bias, -1e-3 * at_output.sum((0, 1, 2)), rtol=0.02, atol=1e-8)
