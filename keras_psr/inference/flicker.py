"""Measures how much the film that a network makes flickers, compared with the film that it is given."""

import itertools

import numpy as np

from keras_psr.errors import ConfigError
from keras_psr.images.pixels import to_uint8
from keras_psr.inference.upscaler import Upscaler

SENSOR_NOISE = 4.0
"""Standard deviation of the noise of the film, in grey levels: that of a phone's film indoors."""

NUM_FRAMES = 6
"""Number of frames of the film, and so one more than the number of differences that are averaged."""


def flicker_ratio(network: Upscaler, photograph: np.ndarray, speed: int = 0, seed: int = 0) -> float:
    """Returns the difference between consecutive frames of a network's film, divided by that of the film it is given.

    The film shows a photograph through a window that moves across it, and each frame has sensor noise of its own.
    Frames are compared where they show the same part of the photograph, so that only noise differs in the film that
    the network is given. 1 means that the network adds no flicker.

    Args:
        network: The network.
        photograph: uint8 RGB (height, width, 3), both sides larger than the way of the window.
        speed: Pixels by which the window moves down and to the right from frame to frame; 0 for a still film.
        seed: Seed of the noise.

    Returns:
        The ratio of mean absolute differences in grey levels, over all pixels and channels.

    Raises:
        ConfigError: The photograph is too small.

    Example:
        still, pan = (flicker_ratio(load("starry-night"), photograph, speed) for speed in (0, 1))
    """
    way = speed * (NUM_FRAMES - 1)
    height, width = (side - way for side in photograph.shape[:2])
    if min(height, width) <= speed:
        raise ConfigError(
            f"photograph must have more than {way + speed} pixels on each side with a speed of {speed}. Received: "
            f"{photograph.shape[1]}x{photograph.shape[0]}."
        )
    random = np.random.default_rng(seed)
    frames = []
    for number in range(NUM_FRAMES):
        place = number * speed
        window = photograph[place : place + height, place : place + width]
        frames.append(to_uint8(window + random.normal(0, SENSOR_NOISE, window.shape)))
    results = [network(frame) for frame in frames]
    return mean_difference(results, speed * network.scale) / mean_difference(frames, speed)


def mean_difference(frames: list[np.ndarray], motion: int) -> float:
    """Returns the mean absolute difference of consecutive frames where they show the same.

    Args:
        frames: uint8 (height, width, 3) each.
        motion: Pixels by which the second of two frames shows what is further down and to the right.
    """
    differences = []
    for first, second in itertools.pairwise(frames):
        height, width = (side - motion for side in first.shape[:2])
        difference = first[motion:, motion:].astype(np.float32) - second[:height, :width]
        differences.append(np.abs(difference).mean())
    return float(np.mean(differences))
