"""The second frame of a film that a fit makes of each crop, to see whether the network's output flickers."""

import tensorflow as tf

from keras_psr.constants import FRAME_NOISE, MOST_MOTION


def second_frame(pictures: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the pictures moved by a few pixels and with noise, as the next frame of a film shows them.

    Args:
        pictures: (batch, height, width, 3) float32 in [0, 255]. What is moved out on one side comes in on the other.
        step: Number of gradient steps so far, an integer scalar, from which motion and noise follow.

    Returns:
        The second frame, the same shape, and the pixels down and to the right by which it was moved, (2,) int32.

    Example:
        frame, motion = second_frame(pictures, step=7)
    """
    seed = tf.stack([tf.cast(step, tf.int32), 0])
    motion = tf.random.stateless_uniform([2], seed, -MOST_MOTION, MOST_MOTION + 1, tf.int32)
    noise = tf.random.stateless_normal(tf.shape(pictures), seed, stddev=FRAME_NOISE)
    return tf.roll(pictures, motion, axis=(1, 2)) + noise, motion
