import keras
import numpy as np
import pytest

from keras_psr.losses.functional import (
    PHASE_STRIDE,
    PHASE_WINDOW,
    TEXTURE_DEVIATION,
    chroma,
    gram_error,
    gram_matrix,
    haar_bands,
    mean_absolute_error,
    mean_squared_error,
    phase_error,
    relativistic_loss,
    spectral_norm,
    texture_map,
    total_variation,
    without_lattice,
)


def zeros(*shape):
    return np.zeros(shape, np.float32)


def phase_error_by_slices(output, target, scale):
    """The definition, phase by phase: averages over windows and over the whole crop, in float64."""
    error = output.astype(np.float64) - target
    phases = np.stack([error[:, i::scale, j::scale] for i in range(scale) for j in range(scale)])
    phases -= phases.mean(0)
    _, _, rows, columns, _ = phases.shape
    windows = [
        phases[:, :, top : top + PHASE_WINDOW, left : left + PHASE_WINDOW].mean(axis=(2, 3))
        for top in range(0, rows - PHASE_WINDOW + 1, PHASE_STRIDE)
        for left in range(0, columns - PHASE_WINDOW + 1, PHASE_STRIDE)
    ]
    return np.mean(np.square(windows)) + np.mean(np.square(phases.mean(axis=(2, 3))))


def test_mean_errors_of_a_hand_case():
    first, second = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), np.array([[1.0, 0.0], [0.0, 8.0]], np.float32)
    assert float(mean_absolute_error(first, second)) == (0 + 2 + 3 + 4) / 4
    assert float(mean_squared_error(first, second)) == (0 + 4 + 9 + 16) / 4


def test_total_variation_of_a_checkerboard_is_two():
    board = (np.indices((4, 6)).sum(0) % 2).astype(np.float32)[None, :, :, None]
    assert float(total_variation(board)) == 2
    assert float(total_variation(10 * board)) == 200
    assert float(total_variation(np.repeat(board, 3, 0))) == 2, "it depends on the size of the batch"


def test_chroma_of_known_colours():
    colours = np.float32([[[[90, 90, 90], [0, 0, 255], [255, 0, 0], [0, 255, 0]]]])
    expected = [[0, 0], [127.5, -20.7], [-43.0, 127.5], [-84.5, -106.8]]  # JFIF
    np.testing.assert_allclose(np.asarray(chroma(colours))[0, 0], expected, atol=0.05)


def test_total_variation_of_a_ramp_is_the_square_of_its_slopes():
    rows, columns = np.indices((5, 9))
    assert float(total_variation((2 * rows + 3 * columns).astype(np.float32)[None, :, :, None])) == 4 + 9
    assert float(total_variation(np.full((1, 5, 9, 3), 7, np.float32))) == 0


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_phase_error_is_zero_without_error_and_for_a_colour_shift(scale):
    target = np.random.default_rng(0).uniform(0, 255, (2, 8 * scale, 7 * scale, 3)).astype(np.float32)
    assert float(phase_error(target, target, scale)) == 0
    assert float(phase_error(target + np.float32([10, -20, 30]), target, scale)) < 1e-8


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_phase_error_of_one_bright_phase(scale):
    # One phase of s^2 is `a` too bright: less the mean a/s^2, that phase has a(1 - 1/s^2) and the others -a/s^2, whose
    # mean square is (a^2/s^2)(1 - 1/s^2). Windows and the whole crop see the same, so the sum is twice that.
    amplitude, output = 6.0, zeros(2, 9 * scale, 6 * scale, 3)
    output[:, 1::scale, ::scale] = amplitude
    expected = 2 * amplitude**2 / scale**2 * (1 - 1 / scale**2)
    assert float(phase_error(output, zeros(*output.shape), scale)) == pytest.approx(expected, rel=1e-5)


def test_phase_error_of_a_checkerboard_is_twice_its_power():
    board = (3 * (-1.0) ** np.indices((24, 24)).sum(0)).astype(np.float32)[None, :, :, None]
    assert float(phase_error(board, zeros(1, 24, 24, 1), 4)) == pytest.approx(2 * 9)


def test_phase_error_does_not_see_a_pattern_of_another_period():
    # Period 5 against a lattice of 4: of a window's six values in a phase five cancel, which leaves at most 1/6 of it.
    rows = np.arange(120)
    pattern = np.tile(np.sin(2 * np.pi * rows / 5)[:, None], (1, 24)).astype(np.float32)[None, :, :, None]
    on_lattice = np.tile(np.sin(2 * np.pi * rows / 4)[:, None], (1, 24)).astype(np.float32)[None, :, :, None]
    of_pattern, of_lattice = (float(phase_error(x, zeros(1, 120, 24, 1), 4)) for x in (pattern, on_lattice))
    assert of_lattice == pytest.approx(2 * 0.5, rel=1e-4)
    assert 0 < of_pattern <= 0.5 / 6**2


def test_phase_error_hardly_sees_a_smooth_ramp():
    # Slope g: a phase lies up to (s-1)/2 pixels off the middle, the variance of which is g^2 (s^2 - 1) / 12.
    slope, scale = 0.1, 4
    ramp = np.tile(slope * np.arange(24.0), (24, 1)).astype(np.float32)[None, :, :, None]
    expected = 2 * slope**2 * (scale**2 - 1) / 12
    assert float(phase_error(ramp, zeros(1, 24, 24, 1), scale)) == pytest.approx(expected, rel=1e-3)


def test_phase_error_takes_texture_away_as_its_windows_average():
    # Independent noise of variance v: a window of 36 leaves v/36, a crop of n leaves v/n, less the mean of phases.
    scale, rows = 4, 24
    noise = np.random.default_rng(0).normal(0, 10, (8, scale * rows, scale * rows, 3)).astype(np.float32)
    expected = 100 * (1 - 1 / scale**2) * (1 / PHASE_WINDOW**2 + 1 / rows**2)
    assert float(phase_error(noise, zeros(*noise.shape), scale)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (8, 13), (12, 9)])
def test_phase_error_is_its_definition_on_random_data(scale, rows, columns):
    generator = np.random.default_rng(0)
    output, target = generator.uniform(0, 255, (2, 2, scale * rows, scale * columns, 3)).astype(np.float32)
    expected = phase_error_by_slices(output, target, scale)
    assert float(phase_error(output, target, scale)) == pytest.approx(expected, rel=1e-4)


def test_gram_matrix_of_ones_is_one_over_the_channels():
    for height, width in ((1, 1), (2, 3), (7, 5)):
        gram = np.asarray(gram_matrix(np.ones((2, height, width, 4), np.float32)))
        np.testing.assert_array_equal(gram, np.full((2, 4, 4), 1 / 4))


def test_gram_matrix_of_a_hand_case():
    # Two places, two channels: (1, 2) and (3, 4). Products 1 + 9, 2 + 12, 4 + 16, over C H W = 4.
    responses = np.array([[[[1.0, 2.0], [3.0, 4.0]]]], np.float32)
    np.testing.assert_array_equal(gram_matrix(responses), [[[2.5, 3.5], [3.5, 5.0]]])


def test_gram_matrix_is_its_definition_on_random_data():
    responses = np.random.default_rng(0).normal(0, 3, (2, 6, 5, 7)).astype(np.float32)
    expected = np.zeros((2, 7, 7))
    for picture, row, column in np.ndindex(2, 6, 5):
        place = responses[picture, row, column].astype(np.float64)
        expected[picture] += np.outer(place, place) / (7 * 6 * 5)
    np.testing.assert_allclose(gram_matrix(responses), expected, rtol=1e-5, atol=1e-6)


def test_gram_matrix_does_not_see_where_features_are_nor_how_large_the_picture_is():
    generator = np.random.default_rng(0)
    responses = generator.normal(0, 1, (1, 6, 5, 3)).astype(np.float32)
    shuffled = generator.permutation(responses.reshape(30, 3)).reshape(1, 5, 6, 3)
    repeated = np.tile(responses, (1, 3, 2, 1))
    for other in (shuffled, repeated):
        np.testing.assert_allclose(gram_matrix(other), gram_matrix(responses), rtol=1e-5, atol=1e-6)


@pytest.mark.sixteen_bits
@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 0.01), ("float16", 0.001)])
def test_gram_matrix_of_16_bits_is_float32_and_does_not_overflow(dtype, error):
    responses = np.random.default_rng(0).uniform(0, 3000, (1, 64, 64, 8)).astype(np.float32)
    gram = gram_matrix(keras.ops.cast(responses, dtype))
    assert keras.backend.standardize_dtype(gram.dtype) == "float32"
    np.testing.assert_allclose(gram, gram_matrix(responses), rtol=error)


def test_gram_error_by_each_normalization():
    # Differences 1, 2, 2, 4: sum of squares 25. Target's squares: 9 + 0 + 0 + 16 = 25; a second picture is right.
    target = np.array([[[3.0, 0.0], [0.0, 4.0]]], np.float32)
    gram = np.concatenate([target + [[1, 2], [2, 4]], target]).astype(np.float32)
    assert float(gram_error(gram[:1], target, "paper")) == 25
    assert float(gram_error(gram[:1], target, "mean")) == 25 / 4
    assert float(gram_error(gram[:1], target, "energy")) == 1
    assert [float(gram_error(gram, target, name)) for name in ("paper", "mean", "energy")] == [12.5, 3.125, 0.5]
    assert float(gram_error(0 * target, target)) == 1, "without any response"


def test_relativistic_loss_of_a_hand_case():
    better, worse = np.float32([2.0, 0.0, -1.0]), np.float32([-1.0, 0.0, 3.0])
    expected = (np.log1p(np.exp(-3.0)) + np.log(2) + np.log1p(np.exp(4.0))) / 3
    assert float(relativistic_loss(better, worse)) == pytest.approx(expected, rel=1e-6)
    assert float(relativistic_loss(better + 7, worse + 7)) == pytest.approx(expected, rel=1e-5), (
        "only differences count"
    )


@pytest.mark.parametrize("shape", [(108, 32), (1152, 64), (5, 3), (3, 5), (288, 1)])
def test_the_spectral_norm_is_the_largest_singular_value_or_slightly_more(shape):
    matrix = np.random.default_rng(0).normal(0, 0.01, shape).astype(np.float32)
    largest = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[0]
    for factor in (1.0, 1e-6, 1e6):
        assert 1 - 1e-5 <= float(spectral_norm(factor * matrix)) / (factor * largest) <= shape[1] ** (1 / 128) + 1e-4
    equal = np.linalg.qr(matrix)[0]  # all singular values are 1
    assert float(spectral_norm(equal)) == pytest.approx(min(shape) ** (1 / 128), rel=1e-4)


def test_haar_bands_keep_the_energy_and_sort_patterns():
    image = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
    bands = np.asarray(haar_bands(image))
    assert bands.shape == (2, 3, 4, 12)
    assert (bands**2).sum() == pytest.approx((image**2).sum(), rel=1e-5)
    rows, columns = np.indices((6, 8))
    flat, stripes = np.ones((6, 8)), (-1.0) ** columns
    for band, pattern in enumerate((flat, stripes, (-1.0) ** rows, stripes * (-1.0) ** rows)):
        bands = np.asarray(haar_bands(np.float32(pattern)[None, :, :, None]))
        np.testing.assert_array_equal(bands, np.broadcast_to(2 * np.eye(4)[band], (1, 3, 4, 4)))


def test_texture_is_where_luma_varies():
    """The left half is flat, the right half a checkerboard."""
    rows, columns = np.indices((48, 96))
    for amplitude in (0.0, TEXTURE_DEVIATION, 100.0):
        grey = 128 + amplitude * (-1.0) ** (rows + columns) * (columns >= 48)
        texture = np.asarray(texture_map(np.repeat(np.float32(grey)[None, :, :, None], 3, axis=3)))
        assert texture.shape == (1, 48, 96, 1)
        np.testing.assert_allclose(texture[:, :, :48], 0, atol=1e-9)
        # Luma spans 219 of 256 levels, and a window of 5x5 leaves at most 1/25 of a checkerboard.
        expected = (amplitude * 219 / 255) ** 2 / ((amplitude * 219 / 255) ** 2 + TEXTURE_DEVIATION**2)
        np.testing.assert_allclose(texture[:, 8:-8, 60:-12], expected, atol=0.03)


def test_an_edge_between_smooth_areas_is_no_texture():
    rows, columns = np.indices((40, 40))
    for edge in (columns >= 20, rows + columns >= 40, columns == 20):
        texture = np.asarray(texture_map(np.repeat(np.where(edge, 250, 10).astype(np.float32)[None, :, :, None], 3, 3)))
        assert texture[:, 8:-8, 8:-8].max() < 1e-6


def test_a_lattice_is_removed_where_the_weights_allow_it():
    generator = np.random.default_rng(0)
    image = generator.normal(size=(2, 8, 12, 3)).astype(np.float32)
    weights = generator.random((2, 8, 12, 1)).astype(np.float32)
    weights[:, :4] = 0
    result = np.asarray(without_lattice(image, weights, 4))
    np.testing.assert_array_equal(result[:, :4], image[:, :4])
    np.testing.assert_allclose(result.reshape(2, 2, 4, 3, 4, 3).mean((1, 3)), 0, atol=1e-6)
    lattice = np.tile(generator.normal(size=(1, 4, 4, 3)), (2, 2, 3, 1)).astype(np.float32)
    np.testing.assert_allclose(without_lattice(lattice, np.ones_like(weights), 4), 0, atol=1e-6)
    np.testing.assert_allclose(without_lattice(result, weights, 4), result, atol=1e-6)


def test_two_lattices_that_cancel_out_over_the_picture_are_removed():
    """Rows with a lattice to the left, and its negative to the right: 24 cells, windows of 6."""
    lattice = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
    lattice -= lattice.mean(axis=(1, 2), keepdims=True)
    image = np.concatenate([np.tile(sign * lattice, (1, 8, 12, 1)) for sign in (1, -1)], axis=2)
    result = np.asarray(without_lattice(image, np.ones((1, 32, 96, 1), np.float32), 4))
    np.testing.assert_allclose(result[:, :, : 4 * 9], 0, atol=1e-6)
    np.testing.assert_allclose(result[:, :, 4 * 15 :], 0, atol=1e-6)
    assert np.abs(result[:, :, 4 * 9 : 4 * 15]).max() > 0.1


def test_weights_of_zero_leave_the_picture_as_it_is():
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(without_lattice(image, np.zeros((1, 8, 8, 1), np.float32), 4), image)
