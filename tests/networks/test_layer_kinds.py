from fractions import Fraction

import numpy as np
import pytest
from keras import layers

from keras_psr.errors import ModelError
from keras_psr.networks.layer_kinds import RULES, Kind, find_rule
from keras_psr.networks.style_transfer import ReflectionPadding2D

SIZE = 24
EXAMPLES = [
    layers.Conv2D(1, 1, padding="same"),
    layers.Conv2D(1, 4, padding="same"),
    layers.Conv2D(1, 5, padding="same", dilation_rate=2),
    layers.Conv2D(1, 3, padding="same", strides=2),
    layers.Conv2D(1, 4, padding="same", strides=3),
    layers.Conv2D(1, 3, padding="valid"),
    layers.Conv2DTranspose(1, 2, padding="same", strides=2),
    layers.Conv2DTranspose(1, 3, padding="same", strides=2),
    layers.Conv2DTranspose(1, 4, padding="same", strides=2),
    layers.Conv2DTranspose(1, 9, padding="same", strides=4),
    layers.UpSampling2D(3, interpolation="nearest"),
    layers.UpSampling2D(3, interpolation="bilinear"),
    layers.UpSampling2D(4, interpolation="bilinear"),
    layers.Cropping2D(2),
    ReflectionPadding2D(3),
    layers.BatchNormalization(),
    layers.Rescaling(2.0, offset=1.0),
    layers.Activation("tanh"),
    layers.LeakyReLU(),
    layers.ReLU(),
]


def find_moving(layer):
    """Which output rows move with each input row: a matrix (input rows, output rows)."""
    still = np.full((1, SIZE, SIZE, 1), 0.5, np.float32)
    layer(still)  # makes its weights
    for weight in layer.trainable_weights:
        weight.assign(np.full(weight.shape, weight.name in ("kernel", "gamma"), np.float32))
    before, moved = np.asarray(layer(still)), []
    for row in range(SIZE):
        changed = still.copy()
        changed[0, row] = 0.75
        moved.append(np.abs(np.asarray(layer(changed)) - before)[0].max(axis=(1, 2)) > 0)
    return np.array(moved)


@pytest.mark.parametrize("layer", EXAMPLES, ids=lambda layer: layer.name)
def test_a_layer_reads_what_moves_its_output(layer):
    moving, rule = find_moving(layer), find_rule(layer)
    checked = range(moving.shape[1] // 3, 2 * moving.shape[1] // 3)  # away from the borders
    for pixel in checked:
        rows = np.flatnonzero(moving[:, pixel])
        assert rule.reads(layer, (pixel, pixel)) == (rows.min(), rows.max())
    rows = np.flatnonzero(moving[:, checked].any(axis=1))
    assert rule.reads(layer, (checked[0], checked[-1])) == (rows.min(), rows.max())
    if rule.kind is not Kind.BORDER and getattr(layer, "padding", "same") == "same":
        assert rule.density(layer) == Fraction(moving.shape[1], SIZE)


def test_every_class_of_the_table_has_an_example():
    assert {type(layer) for layer in EXAMPLES} | {layers.Add, layers.InputLayer} == set(RULES)


def test_a_layer_derived_from_a_known_one_is_of_its_kind():
    class Convolution(layers.Conv2D):
        pass

    assert find_rule(Convolution(1, 3)).kind is Kind.CONVOLUTION


def test_a_layer_of_another_kind_is_named():
    with pytest.raises(ModelError, match="layer pool is of an unknown kind, MaxPooling2D. .* Add, BatchNormalization"):
        find_rule(layers.MaxPooling2D(2, name="pool"))
