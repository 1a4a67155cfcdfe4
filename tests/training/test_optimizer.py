"""The steps that networks are fitted with, against singular values by NumPy and against Keras's Adam."""

import keras
import numpy as np
import pytest

from keras_psr.tasks.config import FitConfig
from keras_psr.training.optimizer import ITERATIONS, MOMENTUM, NEWTON_SCHULZ, Muon, build_optimizer, orthogonalize

RANDOM = np.random.default_rng(0)


def orthogonalize_by_svd(matrix):
    """What the iteration does to the singular values, each by itself."""
    left, values, right = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(ITERATIONS):
        values = sum(factor * values**power for factor, power in zip(NEWTON_SCHULZ, (1, 3, 5), strict=True))
    return left @ np.diag(values) @ right


@pytest.mark.parametrize("shape", [(27, 8), (8, 27), (16, 16)])
def test_orthogonalize_changes_singular_values_only(shape):
    matrix = RANDOM.normal(size=shape).astype("float32")
    np.testing.assert_allclose(orthogonalize(matrix), orthogonalize_by_svd(matrix), atol=1e-4)


def test_orthogonalize_makes_directions_about_equally_long():
    values = np.linalg.svd(orthogonalize(RANDOM.normal(size=(576, 64)).astype("float32")), compute_uv=False)
    assert 0.5 < values.min() < values.max() < 1.3


def test_a_kernel_without_gradient_stays():
    kernel = keras.Variable(np.ones((3, 3, 2, 4), "float32"))
    Muon(0.1).apply([np.zeros((3, 3, 2, 4), "float32")], [kernel])
    np.testing.assert_array_equal(kernel.numpy(), 1)


def test_steps_of_a_kernel():
    kernel = keras.Variable(np.zeros((3, 3, 2, 4), "float32"))
    optimizer, expected, momentum = Muon(0.01), np.zeros((18, 4)), np.zeros((18, 4))
    for _ in range(3):
        gradient = RANDOM.normal(size=(3, 3, 2, 4)).astype("float32")
        optimizer.apply([gradient], [kernel])
        flat = gradient.reshape(18, 4)  # what each of the 4 outputs sees
        momentum = MOMENTUM * momentum + flat
        expected -= 0.01 * np.sqrt(18) * orthogonalize_by_svd(flat + MOMENTUM * momentum)
    np.testing.assert_allclose(kernel.numpy().reshape(18, 4), expected, atol=1e-5)


def test_biases_take_the_steps_of_adam():
    ours, theirs = (keras.Variable(np.zeros(5, "float32")) for _ in range(2))
    muon, adam = Muon(0.01), keras.optimizers.Adam(0.01)
    for _ in range(3):
        gradient = RANDOM.normal(size=5).astype("float32")
        muon.apply([gradient], [ours])
        adam.apply([gradient], [theirs])
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(("settings", "kind"), [({}, Muon), ({"optimizer": "adam"}, keras.optimizers.Adam)])
def test_the_optimizer_of_a_fit(settings, kind):
    assert type(build_optimizer(FitConfig.from_json(settings))) is kind


def test_float16_scales_the_loss():
    optimizer = build_optimizer(FitConfig.from_json({"precision": "float16"}))
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer) and isinstance(optimizer.inner_optimizer, Muon)
