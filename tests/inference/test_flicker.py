import numpy as np
import pytest

from keras_psr.errors import ConfigError
from keras_psr.inference.flicker import SENSOR_NOISE, flicker_ratio, mean_difference


class Network:
    """A function of pictures with the interface of `Upscaler`."""

    def __init__(self, function, scale=1):
        self.function, self.scale, self.seen = function, scale, []

    def __call__(self, image):
        self.seen.append(image)
        return self.function(image)


@pytest.fixture
def grey():
    return np.full((60, 72, 3), 128, np.uint8)


@pytest.fixture
def photograph():
    return np.random.default_rng(3).integers(60, 190, (60, 72, 3), np.uint8)


@pytest.mark.parametrize("speed", [0, 1, 3])
def test_what_leaves_a_film_as_it_is_adds_no_flicker(photograph, speed):
    assert flicker_ratio(Network(lambda image: image), photograph, speed) == pytest.approx(1, abs=1e-6)
    nearest = Network(lambda image: image.repeat(2, 0).repeat(2, 1), scale=2)
    assert flicker_ratio(nearest, photograph, speed) == pytest.approx(1, abs=1e-6), "the motion is undone"


def test_contrast_is_flicker(grey):
    double = Network(lambda image: (128 + 2 * (image.astype(int) - 128)).astype(np.uint8))
    assert flicker_ratio(double, grey) == pytest.approx(2, rel=1e-6)
    assert flicker_ratio(Network(np.zeros_like), grey) == 0


def test_what_stands_still_while_the_film_moves_is_flicker(grey):
    lines = np.where(np.arange(72) % 2, 30, 0).astype(np.uint8)[None, :, None]
    screen = Network(lambda image: image - lines[:, : image.shape[1]])
    assert flicker_ratio(screen, grey) == pytest.approx(1, abs=1e-6)
    assert flicker_ratio(screen, grey, speed=1) > 5
    assert flicker_ratio(screen, grey, speed=2) == pytest.approx(1, abs=1e-6), "the lines repeat"


def test_the_film_has_the_noise_and_motion_that_are_stated(photograph):
    network = Network(lambda image: image)
    flicker_ratio(network, photograph, speed=2)
    assert len(network.seen) == 6 and {image.shape for image in network.seen} == {(50, 62, 3)}
    for number, frame in enumerate(network.seen):
        place = 2 * number
        noise = frame.astype(int) - photograph[place : place + 50, place : place + 62]
        assert noise.std() == pytest.approx(SENSOR_NOISE, rel=0.05) and abs(noise.mean()) < 0.2
    first = [flicker_ratio(Network(lambda image: image // 2), photograph, seed=seed) for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]


def test_differences_are_means_over_pixels_and_pairs():
    frames = [np.full((4, 5, 3), level, np.uint8) for level in (10, 13, 8)]
    assert mean_difference(frames, 0) == (3 + 5) / 2
    ramp = np.arange(6, dtype=np.uint8)[:, None, None].repeat(7, 1).repeat(3, 2)
    assert mean_difference([ramp, ramp + 1], 1) == 0 and mean_difference([ramp, ramp + 1], 0) == 1


def test_a_photograph_smaller_than_the_way_is_refused(photograph):
    with pytest.raises(ConfigError, match=r"more than 18 pixels on each side with a speed of 3. Received: 72x18"):
        flicker_ratio(Network(lambda image: image), photograph[:18], speed=3)
    assert flicker_ratio(Network(lambda image: image), photograph[:19], speed=3) == pytest.approx(1, abs=1e-6)
