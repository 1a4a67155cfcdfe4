import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_psr.constants import FRAME_NOISE, MOST_MOTION
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.losses.terms import Term, pixel_loss, stability_loss
from keras_psr.training.second_frame import second_frame
from keras_psr.training.trainer import Trainer


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3)).astype(np.float32)


def test_it_is_the_picture_moved_with_noise(pictures):
    frame, (down, right) = (np.asarray(value) for value in second_frame(pictures, 5))
    noise = frame - np.roll(pictures, (down, right), axis=(1, 2))
    assert noise.std() == pytest.approx(FRAME_NOISE, rel=0.05) and abs(noise.mean()) < 0.3
    same, other = second_frame(pictures, 5)[0], second_frame(pictures, 6)[0]
    assert np.array_equal(frame, same) and not np.array_equal(frame, other)


def test_every_motion_occurs():
    motions = {tuple(np.asarray(second_frame(np.zeros((1, 2, 2, 3), np.float32), step)[1])) for step in range(1500)}
    wanted = range(-MOST_MOTION, MOST_MOTION + 1)
    assert motions == {(down, right) for down in wanted for right in wanted}


def test_the_motion_is_undone_before_outputs_are_compared(pictures):
    """A network that leaves pictures as they are has an error of the noise alone, whatever the motion."""
    network = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 1, use_bias=False)])
    network.set_weights([np.eye(3, dtype=np.float32)[None, None]])
    trainer = Trainer(network, PerceptualLoss([pixel_loss(1e-9), stability_loss(1.0)]))
    trainer.compile(optimizer=keras.optimizers.SGD(1e-12), jit_compile=False)
    targets = pictures[:, 8:40, 8:56]
    step = tf.function(trainer.train_step)
    for _ in range(4):
        numbers = step((pictures, targets))
        assert float(numbers["pixel_loss"]) == pytest.approx(0, abs=1e-3)
        assert float(numbers["stability_loss"]) == pytest.approx(FRAME_NOISE**2, rel=0.1)


@pytest.mark.parametrize(("crops", "frames"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_half_of_the_crops_have_a_second_frame(pictures, crops, frames):
    network = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 1)])
    count = Term(
        "second_frames", 1.0, lambda given: ops.mean(given.output) * 0 + ops.shape(given.twin)[0], needs_twin=True
    )
    trainer = Trainer(network, PerceptualLoss([count]))
    trainer.compile(optimizer=keras.optimizers.SGD(1e-12), jit_compile=False)
    batch = np.repeat(pictures[:1], crops, axis=0)
    assert float(trainer.train_step((batch, batch[:, 8:40, 8:56]))["second_frames"]) == frames
