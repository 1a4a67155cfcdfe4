"""Speed of the default fit's gradient step beside a plain float32 loop over the same networks and loss terms.

Run it on an idle machine: `python benchmarks/fit_speed.py`. Both are measured in turn, round by round, in one process;
the medians over rounds are printed. "Plain" is what one would write first: float32, VGG16 with max pooling, and a
`@tf.function` with a gradient tape and Adam, without averaged weights.
"""

import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import click
import keras
import tensorflow as tf

from keras_psr.data.samples import SampleStream
from keras_psr.data.sources import open_sources
from keras_psr.networks.super_resolution import build_network
from keras_psr.tasks.config import SuperResolutionConfig
from keras_psr.tasks.super_resolution.task import build_loss
from keras_psr.training.fit import build_trainer


def fit_step(config: SuperResolutionConfig, batches: tf.data.Dataset) -> Callable[[], float]:
    """The step of `keras-psr fit`, as `keras.Model.fit` calls it; gives the loss."""
    trainer, iterator = build_trainer(config), iter(batches)
    trainer.make_train_function()
    return lambda: float(trainer.train_function(iterator)["loss"])


def plain_step(config: SuperResolutionConfig, batches: tf.data.Dataset) -> Callable[[], float]:
    """A float32 step over the same networks, with the same loss terms; gives the loss."""
    network = build_network(config.architecture, scale=config.scale)
    loss = build_loss(replace(config, precision="float32", vgg_pooling="max"))
    optimizer = keras.optimizers.Adam(config.learning_rate)
    optimizer.build(network.trainable_variables)

    @tf.function
    def step(low_res: tf.Tensor, high_res: tf.Tensor) -> tf.Tensor:
        low_res, high_res = tf.cast(low_res, tf.float32), tf.cast(high_res, tf.float32)
        with tf.GradientTape() as tape:
            output = network(low_res, training=True)
            total = loss.total(loss.compute(output, high_res))
        gradients = tape.gradient(total, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return total

    iterator = iter(batches)
    return lambda: float(step(*next(iterator)))


def seconds(function: Callable[[], object], times: int) -> float:
    """Mean wall-clock seconds of a call."""
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, help="Times that each is measured.")
@click.option("--steps", default=20, show_default=True, help="Gradient steps a round.")
@click.option("--architecture", default="residual", show_default=True, help="Network.")
@click.option("--batch-size", default=16, show_default=True, help="Crops a step.")
@click.option("--data", default="sample", show_default=True, help="Pictures.")
def main(rounds: int, steps: int, architecture: str, batch_size: int, data: str) -> None:
    """Measures and prints."""
    config = SuperResolutionConfig(architecture=architecture, batch_size=batch_size, data=(data,), warmup_steps=0)
    stream = SampleStream(open_sources(config.data), scale=config.scale, crop=config.crop)
    batches = tf.data.Dataset.from_tensors(stream.batch(0, batch_size)).repeat()
    functions = {"keras-psr fit": fit_step(config, batches), "plain float32": plain_step(config, batches)}
    for step in functions.values():
        seconds(step, 3)  # traces and warms up
    times: dict[str, list[float]] = {name: [] for name in functions}
    loading: list[float] = []
    stream.batch(0, 10 * len(stream.pictures))  # decodes them: a fit does that once, in its first minutes
    first_samples = itertools.count(0, batch_size)
    for _ in range(rounds):
        for name, step in functions.items():
            times[name].append(seconds(step, steps))
        loading.append(seconds(lambda: stream.batch(next(first_samples), batch_size), steps))

    click.echo(
        f"{config.architecture} x{config.scale}, {batch_size} crops of {config.crop}x{config.crop} a step, "
        f"{rounds} rounds of {steps} steps; {os.cpu_count()} cores, {platform.machine()}, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    )
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        spread = f"{min(times[name]):.3f} to {max(times[name]):.3f}"
        click.echo(f"{name}: {median:.3f} s a step ({spread}), {batch_size / median:.1f} crops/s")
    click.echo(f"ratio: {medians['plain float32'] / medians['keras-psr fit']:.2f}")
    load = statistics.median(loading)
    share = load / medians["keras-psr fit"]
    click.echo(f"sample stream, pictures decoded: {load * 1000:.1f} ms a step, {share:.1%} of keras-psr's step")


if __name__ == "__main__":
    main()
