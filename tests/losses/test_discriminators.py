import keras
import numpy as np
import pytest
from keras import ops

from keras_psr.losses.discriminators import (
    JUDGED_LAYERS,
    PICTURE,
    NormalizedConvolution,
    build_discriminators,
    picture_bands,
)
from keras_psr.losses.vgg import build_vgg


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(0, 255, (2, 24, 32, 3)).astype(np.float32)


def test_the_kernel_of_a_convolution_has_a_spectral_norm_of_at_most_one():
    layer = NormalizedConvolution(8, 3)
    layer.build((None, None, None, 4))
    kernel = np.random.default_rng(0).normal(0, 3, (3, 3, 4, 8)).astype(np.float32)
    layer.kernel.assign(kernel)
    layer.bias.assign(np.arange(8))
    # The response to an impulse of each channel is the kernel, turned by 180 degrees.
    impulses = np.zeros((4, 5, 5, 4), np.float32)
    impulses[range(4), 2, 2, range(4)] = 1
    used = np.asarray(layer(impulses))[:, 3:0:-1, 3:0:-1].transpose(1, 2, 0, 3) - np.arange(8)
    norm = np.linalg.svd(used.reshape(-1, 8), compute_uv=False)[0]
    assert 0.95 < norm <= 1 + 1e-5
    np.testing.assert_allclose(used / norm, kernel / np.linalg.svd(kernel.reshape(-1, 8))[1][0], atol=1e-5)


def test_each_discriminator_decides_at_each_of_its_positions(image):
    discriminators = build_discriminators()
    responses = build_vgg(JUDGED_LAYERS)(image)
    decisions = discriminators({PICTURE: picture_bands(image), **responses})
    shapes = {name: tuple(decision.shape) for name, decision in decisions.items()}
    assert shapes == {PICTURE: (2, 12, 16, 1), "relu2_2": (2, 12, 16, 1), "relu3_3": (2, 6, 8, 1)}
    changed = discriminators({PICTURE: picture_bands(255 - image), **responses})
    assert [name for name in decisions if not np.array_equal(decisions[name], changed[name])] == [PICTURE]
    for layer in JUDGED_LAYERS:
        changed = discriminators({PICTURE: picture_bands(image), **responses, layer: 2 * responses[layer]})
        assert [name for name in decisions if not np.array_equal(decisions[name], changed[name])] == [layer]


def test_the_gradient_of_the_discriminator_of_pictures_has_no_grid():
    """With convolutions that take means, all pixels of a flat picture matter equally, but for those at the border."""
    import tensorflow as tf

    discriminators = build_discriminators()
    for layer in discriminators.layers:
        if isinstance(layer, NormalizedConvolution):
            layer.kernel.assign(np.ones(layer.kernel.shape))
    flat = tf.fill((1, 96, 96, 3), 200.0)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        bands = picture_bands(flat)
        unused = {
            name: ops.zeros((1, 1, 1, channels)) for name, channels in zip(JUDGED_LAYERS, (128, 256), strict=True)
        }
        total = tf.reduce_sum(discriminators({PICTURE: bands, **unused})[PICTURE])
    sums = np.asarray(tape.gradient(total, flat))[0].reshape(48, 2, 48, 2, 3).sum((1, 3))[20:28, 20:28]
    np.testing.assert_allclose(sums, sums.mean(), rtol=1e-3)


def test_hidden_layers_compute_in_the_given_precision():
    policies = {layer.dtype_policy.name for layer in build_discriminators("mixed_bfloat16").layers if layer.weights}
    assert policies == {"mixed_bfloat16", "float32"}
    assert all(variable.dtype == "float32" for variable in build_discriminators("mixed_bfloat16").variables)
    assert keras.config.dtype_policy().name == "float32"
