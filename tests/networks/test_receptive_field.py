import keras
import numpy as np
import pytest
from keras import layers

from keras_psr.errors import ModelError
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.networks.super_resolution import build_network


def make_positive(network):
    """Weights with which a grey picture gives zeros, and no change of it cancels or vanishes in a ReLU."""
    for weight in network.trainable_weights:
        weight.assign(np.full(weight.shape, weight.name in ("kernel", "gamma"), np.float32))
    return network


def measure_halo(network, scale, size=61):
    """Changes the pixel in the middle and finds the low-resolution pixels whose enlarged pixels move."""
    image = np.full((1, size, size, 3), 127.5, np.float32)
    changed = image.copy()
    middle = size // 2
    changed[0, middle, middle] = 255
    moved = np.abs(np.asarray(network(changed)) - np.asarray(network(image)))[0].max(axis=-1) > 0
    rows, columns = (np.flatnonzero(moved.any(axis=axis)) // scale for axis in (1, 0))
    reach = {middle - rows.min(), rows.max() - middle, middle - columns.min(), columns.max() - middle}
    return max(reach)


@pytest.mark.parametrize("architecture", ["residual", "fast"])
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("num_residual_blocks", [1, 3])
def test_halo_is_what_moves(architecture, scale, num_residual_blocks):
    network = build_network(architecture, scale=scale, num_filters=2, num_residual_blocks=num_residual_blocks)
    assert measure_geometry(network).halo == measure_halo(make_positive(network), scale)


def test_halo_of_the_papers_network():
    network = build_network("johnson2016", scale=4, num_filters=2, num_residual_blocks=1)
    halo = measure_geometry(network).halo
    network.get_layer("tanh").activation = keras.activations.linear  # tanh is flat in float32 where much arrives
    assert halo == measure_halo(make_positive(network), 4)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2DTranspose(3, 2, strides=2, padding="same"),
        layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
        layers.Conv2DTranspose(3, 4, strides=2, padding="same"),
        layers.Conv2DTranspose(3, 5, strides=2, padding="same"),
        layers.Conv2DTranspose(3, 6, strides=2, padding="same"),
        layers.Conv2DTranspose(3, 8, strides=4, padding="same"),
        layers.Conv2DTranspose(3, 9, strides=4, padding="same"),
        layers.UpSampling2D(2, interpolation="nearest"),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.UpSampling2D(4, interpolation="bilinear"),
    ],
    ids=lambda layer: layer.name,
)
def test_halo_of_one_upsampling_layer_after_a_convolution(layer):
    image = keras.Input((None, None, 3))
    scale = (layer.strides if hasattr(layer, "strides") else layer.size)[0]
    network = keras.Model(image, layer(layers.Conv2D(3, 5, padding="same", dilation_rate=2)(image)))
    assert measure_geometry(network).halo == measure_halo(make_positive(network), scale)


def test_halo_of_the_default_network():
    # By hand: entry 4, ten 3x3 convolutions 10, and 2 for the upsampling and the 9x9 exit, which reads pixels
    # -4 to 7 of its own grid, so -3 to 4 of the middle one, so -2 to 2 of the input.
    assert measure_geometry(build_network()).halo == 4 + 10 + 2


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_halo_of_the_network_for_phones(scale):
    # By hand: entry 2, ten 3x3 convolutions 10, and the neighbour that the exit reads.
    assert measure_geometry(build_network("fast", scale=scale, num_filters=1)).halo == 2 + 10 + 1


def test_unknown_layers_are_named():
    image = keras.Input((None, None, 3))
    network = keras.Model(image, layers.UpSampling2D(2)(layers.MaxPooling2D(3, 1, "same", name="pool")(image)))
    with pytest.raises(ModelError, match="layer pool is of an unknown kind, MaxPooling2D.*Conv2DTranspose"):
        measure_geometry(network)


def test_a_network_that_makes_pictures_smaller_is_refused():
    image = keras.Input((None, None, 3))
    network = keras.Model(image, layers.Conv2D(3, 4, strides=2, padding="same")(image), name="half")
    with pytest.raises(ModelError, match="network half must not make pictures smaller. Its scale is 1/2"):
        measure_geometry(network)


def test_a_model_that_is_not_functional_is_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ModelError, match="must be a functional Keras model"):
        measure_geometry(Subclassed())


def test_a_layer_called_twice_is_refused():
    image = keras.Input((None, None, 3))
    layer = layers.Conv2D(3, 3, padding="same")
    with pytest.raises(ModelError, match="must call each layer once"):
        measure_geometry(keras.Model(image, layers.UpSampling2D(2)(layer(layer(image)))))


def linear(network):
    """Without ReLU and tanh, so that every change arrives."""
    for layer in network.layers:
        if hasattr(layer, "activation"):
            layer.activation = keras.activations.linear
    return network


def measure_block_halo(network, size=200):
    """Changes each pixel of one block of 4x4 in turn, and finds how far from their own blocks output pixels move."""
    reach, middle = 0, size // 2
    image = np.full((1, size, size, 3), 127.5, np.float32)
    still = np.asarray(network(image))
    for place in range(middle, middle + 4):
        changed = image.copy()
        changed[0, place, place] = 255
        moved = np.abs(np.asarray(network(changed)) - still)[0].max(axis=-1) > 0
        for axis in (0, 1):
            pixels = np.flatnonzero(moved.any(axis=axis)) // 4 * 4
            reach = max(reach, *(first - place for first in pixels), *(place - (first + 3) for first in pixels))
    return reach


@pytest.mark.parametrize("architecture", ["style", "johnson2016-style"])
def test_halo_and_grid_of_style_networks_are_what_moves(architecture):
    network = build_style_network(architecture, num_filters=1, num_residual_blocks=2)
    geometry = measure_geometry(network)
    assert (geometry.scale, geometry.grid) == (1, 4)
    measured = measure_block_halo(linear(make_positive(network)))
    assert geometry.halo % 4 == 0 and geometry.halo - 4 < measured <= geometry.halo


def test_networks_without_strides_have_a_grid_of_one():
    assert measure_geometry(build_network("residual", scale=4, num_filters=1, num_residual_blocks=1)).grid == 1


@pytest.mark.parametrize("layer", [layers.Conv2D(3, 3, strides=2), layers.Cropping2D(((1, 2), (1, 1)))])
def test_uneven_cropping_and_unpadded_strides_are_refused(layer):
    image = keras.Input((None, None, 3))
    with pytest.raises(ModelError, match="is of an unknown kind"):
        measure_geometry(keras.Model(image, layers.UpSampling2D(2)(layer(image))))
