"""Measures the default fit's gradient step, compared with a plain float32 loop, and the sample stream.

Run it on an idle machine: `python benchmarks/fit_speed.py`. The steps are measured in turns, in one process, and the
medians are printed. "Plain" is the simplest code with the same network and loss terms: float32, VGG16 with max pooling,
and a `@tf.function` with a gradient tape and Adam, without averaged weights. The sample stream is compared with the
warm-up of `fast`, which needs samples faster than any other network.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import click
import keras
import tensorflow as tf

from keras_psr.networks.super_resolution import build_network
from keras_psr.tasks.config import SuperResolutionConfig
from keras_psr.tasks.super_resolution.task import build_loss, build_stream
from keras_psr.training.fit import build_trainer
from keras_psr.training.precision import choose_precision
from keras_psr.training.run_folder import describe_environment


def fit_step(config: SuperResolutionConfig, batches: tf.data.Dataset) -> Callable[[], float]:
    """Returns the step of `keras-psr fit`, as `keras.Model.fit` calls it. The step returns the loss."""
    trainer, iterator = build_trainer(config), iter(batches)
    trainer.make_train_function()
    return lambda: float(trainer.train_function(iterator)["loss"])


def plain_step(config: SuperResolutionConfig, batches: tf.data.Dataset) -> Callable[[], float]:
    """Returns a float32 step with the same network and loss terms. The step returns the loss."""
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
    """Returns the mean wall-clock seconds of a call."""
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times


def compare_steps(config: SuperResolutionConfig, rounds: int, steps: int) -> None:
    """Prints the speed of the default step and of the plain one, and their ratio."""
    stream = build_stream(config)
    batches = tf.data.Dataset.from_tensors(stream.batch(0, config.batch_size)).repeat()
    functions = {"keras-psr fit": fit_step(config, batches), "plain float32": plain_step(config, batches)}
    for step in functions.values():
        seconds(step, 3)  # traces and warms up
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, step in functions.items():
            times[name].append(seconds(step, steps))
    medians = {name: statistics.median(values) for name, values in times.items()}
    click.echo(
        f"{config.architecture} x{config.scale}, {config.batch_size} crops of {config.crop}x{config.crop} a step"
    )
    for name, median in medians.items():
        spread = f"{min(times[name]):.3f} to {max(times[name]):.3f}"
        click.echo(f"  {name}: {median:.3f} s a step ({spread}), {config.batch_size / median:.1f} crops/s")
    click.echo(f"  ratio: {medians['plain float32'] / medians['keras-psr fit']:.2f}")


def compare_stream(config: SuperResolutionConfig, rounds: int, steps: int) -> None:
    """Prints the rate of the sample stream and that of the network which takes its samples fastest, and their ratio."""
    stream = build_stream(config)
    stream.batch(0, 10 * len(stream.pictures))  # decodes them: a fit does that once, in its first minutes
    step = fit_step(config, tf.data.Dataset.from_tensors(stream.batch(0, config.batch_size)).repeat())
    seconds(step, 3)
    first_samples, ratios, rates = itertools.count(0, config.batch_size), [], []
    for _ in range(rounds):
        network = seconds(step, steps)
        loading = seconds(lambda: stream.batch(next(first_samples), config.batch_size), steps)
        ratios.append(network / loading)
        rates.append((config.batch_size / loading, config.batch_size / network))
    of_stream, of_network = (statistics.median(column) for column in zip(*rates, strict=True))
    click.echo(
        f"{config.architecture} x{config.scale}, pixel loss, {config.batch_size} crops of {config.crop}x{config.crop}\n"
        f"  sample stream on one core: {of_stream:.0f} crops/s\n  network on all cores: {of_network:.0f} crops/s\n"
        f"  ratio: {statistics.median(ratios):.1f}"
    )


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, help="Times that each is measured.")
@click.option("--steps", default=20, show_default=True, help="Gradient steps a round.")
@click.option("--architecture", default="residual", show_default=True, help="Network.")
@click.option("--batch-size", default=16, show_default=True, help="Crops a step.")
@click.option("--data", default="sample", show_default=True, help="Pictures.")
def main(rounds: int, steps: int, architecture: str, batch_size: int, data: str) -> None:
    """Measures and prints."""
    choice = choose_precision(SuperResolutionConfig(), tf.distribute.get_strategy())
    machine = describe_environment()["machine"]
    click.echo(
        f"{machine['processor']}, {machine['cores']} cores, TensorFlow {tf.__version__}, Keras {keras.__version__}; "
        f"{rounds} rounds of {steps} steps; precision auto takes {choice.precision}: {choice.reason}"
    )
    config = SuperResolutionConfig(architecture=architecture, batch_size=batch_size, data=(data,))
    compare_steps(config, rounds, steps)
    warmup = replace(config, architecture="fast", num_filters=32, warmup_steps=1, warmup_crop=128).stages()[0].config
    assert isinstance(warmup, SuperResolutionConfig)
    compare_stream(warmup, rounds, steps)


if __name__ == "__main__":
    main()
