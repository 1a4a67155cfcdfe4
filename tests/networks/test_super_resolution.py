import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_psr.errors import ConfigError
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.super_resolution import ARCHITECTURES, build_network

SIZES = [(1, 1), (3, 7), (17, 9)]


def tiny(architecture, scale=4, **options):
    return build_network(architecture, scale=scale, num_filters=4, num_residual_blocks=2, **options)


def shaken(network):
    """The network with random weights, so that no part of it is zero or one."""
    generator = np.random.default_rng(1)
    network.set_weights([w + generator.uniform(0, 0.05, w.shape).astype(w.dtype) for w in network.get_weights()])
    return network


def picture(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def count_trainable(network):
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


def bilinear_weights(size, scale):
    """Matrix that enlarges one axis linearly, pixels' centres at half coordinates, the border pixel repeated."""
    matrix = np.zeros((size * scale, size))
    for row in range(size * scale):
        position = (row + 0.5) / scale - 0.5
        below = int(np.floor(position))
        for tap, weight in ((below, 1 - (position - below)), (below + 1, position - below)):
            matrix[row, min(max(tap, 0), size - 1)] += weight
    return matrix


@pytest.mark.parametrize(
    ("scale", "num_residual_blocks", "published"),
    [(4, 4, 401_859), (8, 4, 438_915), (4, 5, 475_971), (8, 5, 513_027), (2, 5, 438_915)],
)
def test_johnson2016_has_the_parameters_of_the_papers_table(scale, num_residual_blocks, published):
    network = build_network("johnson2016", scale=scale, num_residual_blocks=num_residual_blocks)
    assert count_trainable(network) == published


@pytest.mark.parametrize(("scale", "num_filters", "num_residual_blocks"), [(4, 64, 5), (8, 64, 5), (2, 6, 3)])
def test_residual_has_the_parameters_that_its_description_gives(scale, num_filters, num_residual_blocks):
    f, num_upsamplings = num_filters, {2: 1, 4: 2, 8: 3}[scale]
    entry, exit_ = 81 * 3 * f + f, 81 * f * 3 + 3
    expected = entry + num_residual_blocks * 2 * (9 * f * f + f) + num_upsamplings * (16 * f * f + f) + exit_
    network = build_network("residual", scale=scale, num_filters=num_filters, num_residual_blocks=num_residual_blocks)
    assert count_trainable(network) == expected == network.count_params()


@pytest.mark.parametrize(
    ("scale", "num_filters", "num_residual_blocks", "by_hand"),
    [(4, 32, 5, 101_059), (2, 32, 5, 96_451), (8, 32, 5, 119_491), (4, 1, 1, 76 + 20 + 195)],
)
def test_fast_has_the_parameters_that_its_description_gives(scale, num_filters, num_residual_blocks, by_hand):
    # x4: entry 75 * 32 + 32 = 2,432; ten convolutions of 9 * 32 * 32 + 32 = 9,248; exit 64 * 32 * 3 + 3 = 6,147.
    network = build_network("fast", scale=scale, num_filters=num_filters, num_residual_blocks=num_residual_blocks)
    assert count_trainable(network) == by_hand == network.count_params()


def test_fast_has_one_layer_with_weights_after_the_low_resolution_grid():
    network = tiny("fast", scale=8)
    kernels = {layer.name: tuple(layer.kernel.shape) for layer in network.layers if hasattr(layer, "kernel")}
    blocks = {f"block{block}_conv{conv}": (3, 3, 4, 4) for block in (1, 2) for conv in (1, 2)}
    assert kernels == {"entry": (5, 5, 3, 4), **blocks, "exit": (16, 16, 3, 4)}
    sized = keras.models.clone_model(network, keras.Input((5, 6, 3)))
    assert {layer.name for layer in sized.layers if layer.output.shape[1:3] != (5, 6)} == {"exit", "enlarged", "output"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_any_size_is_enlarged_by_the_scale(architecture, scale):
    network = tiny(architecture, scale)
    assert measure_geometry(network).scale == scale
    for height, width in SIZES:
        output = network(picture(2, height, width, 3), training=False)
        assert output.shape == (2, scale * height, scale * width, 3)
        assert np.isfinite(output).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pictures_of_a_batch_do_not_influence_each_other(architecture):
    network, batch = shaken(tiny(architecture)), picture(3, 7, 5, 3)
    together = network(batch, training=False)
    alone = [network(batch[i : i + 1], training=False)[0] for i in range(3)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-3)


@pytest.mark.parametrize("architecture", ["residual", "fast"])
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_an_unfitted_network_is_bilinear_enlargement(architecture, scale, height, width):
    image = picture(1, height, width, 3)
    rows, columns = bilinear_weights(height, scale), bilinear_weights(width, scale)
    expected = np.einsum("yi,xj,bijc->byxc", rows, columns, image)
    output = tiny(architecture, scale)(image, training=False)
    np.testing.assert_allclose(output, expected, atol=1e-3)


def test_johnson2016_stays_within_pixel_values_whatever_the_weights():
    network = tiny("johnson2016")
    network.set_weights([100 * np.abs(weight) for weight in network.get_weights()])
    network.get_layer("exit").kernel.assign(np.where(picture(9, 9, 4, 3) > 127, 10.0, -10.0))
    output = np.asarray(network(picture(2, 9, 9, 3), training=False))
    assert output.min() >= 0 and output.max() <= 255
    assert output.max() - output.min() > 200, "the test does not reach the ends of the range"


def test_johnson2016_with_a_silent_exit_gives_mid_grey():
    network = tiny("johnson2016")
    network.get_layer("exit").kernel.assign(np.zeros((9, 9, 4, 3)))
    np.testing.assert_allclose(network(picture(1, 4, 4, 3), training=False), 127.5)


def test_johnson2016_is_the_papers_sequence_of_layers():
    network = build_network("johnson2016", scale=4, num_residual_blocks=4)
    kernels = {layer.name: tuple(layer.kernel.shape) for layer in network.layers if hasattr(layer, "kernel")}
    blocks = {f"block{block}_conv{conv}": (3, 3, 64, 64) for block in range(1, 5) for conv in (1, 2)}
    upsampling = {f"upsample{index}": (3, 3, 64, 64) for index in (1, 2)}
    assert kernels == {"entry": (9, 9, 3, 64), **blocks, **upsampling, "exit": (9, 9, 64, 3)}
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("BatchNormalization") == 1 + 2 * 4 + 2  # after each convolution but the last
    assert kinds.count("ReLU") == 1 + 4 + 2  # none after the second of a block, none after the addition
    assert not any("Pooling" in kind for kind in kinds)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_there_is_no_layer_that_would_execute_saved_code(architecture):
    assert not [layer for layer in tiny(architecture).layers if isinstance(layer, keras.layers.Lambda)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.sixteen_bits)])
def test_config_round_trip_gives_the_same_function(architecture, dtype):
    network = shaken(tiny(architecture, dtype=dtype))
    again = keras.Model.from_config(network.get_config())
    again.set_weights(network.get_weights())
    image = picture(1, 5, 6, 3)
    np.testing.assert_array_equal(again(image, training=False), network(image, training=False))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("scale", [2, 8])
def test_a_saved_network_loads_in_safe_mode_and_is_the_same_function(architecture, scale, tmp_path):
    network = shaken(tiny(architecture, scale))
    network.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    image = picture(1, 5, 6, 3)
    np.testing.assert_array_equal(again(image, training=False), network(image, training=False))
    assert measure_geometry(again).scale == scale


@pytest.mark.sixteen_bits
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_mixed_precision_computes_inside_in_bfloat16_and_gives_float32(architecture):
    before = keras.config.dtype_policy().name
    network = tiny(architecture, dtype="mixed_bfloat16")
    assert keras.config.dtype_policy().name == before
    assert network.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in network.variables} == {"float32"}
    assert network(picture(1, 4, 4, 3), training=False).dtype == tf.float32


@pytest.mark.sixteen_bits
def test_mixed_precision_stays_near_float32():
    image = picture(1, 8, 8, 3)
    full, mixed = (shaken(tiny("residual", dtype=dtype)) for dtype in ("float32", "mixed_bfloat16"))
    mixed.set_weights(full.get_weights())
    difference = np.abs(mixed(image, training=False) - full(image, training=False))
    detail = np.abs(full(image, training=False) - tiny("residual")(image, training=False))
    assert difference.max() < 0.05 * detail.max()  # bfloat16 has 8 bits: 0.4% a rounding


def gradients(network):
    image, target = picture(2, 6, 6, 3), picture(2, 24, 24, 3, seed=1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(network(image, training=True) - target))
    variables = network.trainable_variables
    return {v.path: g for v, g in zip(variables, tape.gradient(loss, variables), strict=True)}


def test_every_variable_of_johnson2016_has_a_gradient():
    # A bias before batch norm is taken away again with the mean, so it has none that counts.
    after_norm = [
        path
        for path, gradient in gradients(tiny("johnson2016")).items()
        if not np.abs(gradient).max() > 1e-4 and not path.endswith("bias")
    ]
    assert after_norm == []


@pytest.mark.parametrize("architecture", ["residual", "fast"])
def test_the_silent_exit_learns_first_and_then_all_do(architecture):
    network = tiny(architecture)
    moved = {path for path, gradient in gradients(network).items() if np.abs(gradient).max() > 0}
    assert moved == {path for path in gradients(network) if path.startswith("exit/")}
    exit_kernel = network.get_layer("exit").kernel
    exit_kernel.assign(0.01 * picture(*exit_kernel.shape) / 255)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients(network).values())


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("johnson2016", {"scale": 3}, r"scale must be one of 2, 4, 8 \(a power of two\)\. Received: 3\."),
        ("johnson", {}, r"architecture must be one of johnson2016, residual, fast\. Received: 'johnson'\."),
        ("residual", {"num_filters": 0}, r"num_filters must be at least 1\. Received: 0\."),
        ("residual", {"num_residual_blocks": 0}, r"num_residual_blocks must be at least 1\. Received: 0\."),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(architecture, options, message):
    with pytest.raises(ConfigError, match=message):
        build_network(architecture, **options)


def test_a_failed_build_leaves_the_dtype_policy_alone(monkeypatch):
    def broken(**options):
        raise RuntimeError(keras.config.dtype_policy().name)

    before = keras.config.dtype_policy().name
    monkeypatch.setitem(ARCHITECTURES, "residual", broken)
    with pytest.raises(RuntimeError, match="mixed_bfloat16"):
        build_network("residual", dtype="mixed_bfloat16")
    assert keras.config.dtype_policy().name == before
