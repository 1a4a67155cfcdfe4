"""Fits a style network as `keras-psr fit --style` does, but with JAX and with the photographs on the GPU.

KERAS_BACKEND=jax python tools/fit_style_with_jax.py settings.json runs/starry-night

Like `tools/fit_with_jax.py`, it is meant for GPUs: 50 steps are one compiled program, which also cuts the crops.
Network, loss, optimizer and averages are those of `keras-psr fit`; the crops are drawn in another order. An NVIDIA H100
processed 440 to 530 crops a second with batches of 16 crops of the default size.

JAX is not among the requirements: `pip install "jax[cuda13]"`. The settings are those of `keras_psr.fit`, as in the
`config.json` of a run folder. The new run folder holds what `tools/ship_model.py` needs, and no checkpoint.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import keras
import numpy as np
from fit_with_jax import Tree, describe_run, describe_steps, draw_batch, pack_pictures

from keras_psr.constants import FRAME_NOISE, MOST_MOTION
from keras_psr.data.samples import SampleStream
from keras_psr.data.sources import use_pictures
from keras_psr.images.pixels import to_uint8
from keras_psr.images.tiling import upscale_in_tiles
from keras_psr.inference.registry import find_model
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.tasks.config import StyleConfig
from keras_psr.tasks.style_transfer.task import build_loss, build_network, build_stream, build_validation
from keras_psr.training.optimizer import build_optimizer

STEPS_PER_CALL = 50
"""Steps in one compiled program, and per line of the log as in a run folder of `keras-psr fit`."""

Program = Callable[[Tree, Tree, jax.Array], tuple[Tree, Tree]]
"""A function of a state, packed photographs and the numbers of steps, that returns the state after these steps and the
mean of the loss and of each term."""


def read_photographs(stream: SampleStream) -> list[np.ndarray]:
    """Returns the pixels of all pictures of a stream that can be read."""
    refusal = "None of {number} photographs can be read."
    return use_pictures(stream.pictures, lambda photograph: photograph.read(), refusal=refusal)[0]


def pack_photographs(photographs: Sequence[np.ndarray], surround: int) -> Tree:
    """Packs photographs, extended by mirroring as the surroundings of crops are, as `pack_pictures` does.

    A crop with its surroundings lies inside the extended photograph, wherever the crop lies in the photograph itself.
    Photographs are therefore drawn by their own area.

    Args:
        photographs: uint8 RGB (height, width, 3).
        surround: Width of the surroundings on each side, in pixels.

    Returns:
        As from `pack_pictures`; `low` and `high` are the same array.
    """
    around = (surround, surround)
    extended = [np.pad(photograph, (around, around, (0, 0)), mode="symmetric") for photograph in photographs]
    arrays = pack_pictures([(picture, picture) for picture in extended], 1)
    ends = np.cumsum([photograph.shape[0] * photograph.shape[1] for photograph in photographs])
    return arrays | {"low": arrays["high"], "area": jnp.asarray(ends / ends[-1], jnp.float32)}


def read_state(network: keras.Model, optimizer: keras.Optimizer) -> Tree:
    """Returns all that the next step depends on besides its batch."""
    return {
        "trainable": [variable.value for variable in network.trainable_variables],
        "moving": [variable.value for variable in network.non_trainable_variables],
        "optimizer": [variable.value for variable in optimizer.variables],
    }


def copy_average(state: Tree, network: keras.Model, optimizer: keras.Optimizer, target: keras.Model) -> None:
    """Gives a network the averaged weights of a state, and the moving statistics of batch norm as they are.

    Args:
        state: As from `read_state`.
        network: The network that is fitted, whose variables are overwritten.
        optimizer: Its optimizer, whose variables are overwritten.
        target: A network of the same architecture.
    """
    groups = network.trainable_variables, network.non_trainable_variables, optimizer.variables
    for variables, values in zip(groups, (state["trainable"], state["moving"], state["optimizer"]), strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    optimizer.finalize_variable_values(network.trainable_variables)
    target.set_weights(network.get_weights())


def second_frame(pictures: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns what `training.second_frame` returns, with JAX's random numbers."""
    motion = jax.random.randint(key, (2,), -MOST_MOTION, MOST_MOTION + 1)
    noise = FRAME_NOISE * jax.random.normal(key, pictures.shape)
    return jnp.roll(pictures, motion, axis=(1, 2)) + noise, motion


def build_error(network: keras.Model, loss: PerceptualLoss, surround: int) -> Callable[..., tuple[jax.Array, Any]]:
    """Returns what a step differentiates: it paints crops with their surroundings and compares the crops.

    Args:
        network: The network.
        loss: Its loss.
        surround: Width of the surroundings, in pixels.

    Returns:
        A function of the network's trainable variables, its other variables (the moving statistics of batch norm) and
        crops with their surroundings, (batch, side, side, 3) float32, and a random key. It returns the loss, and a pair
        of the moving statistics after the step and the loss with its unweighted terms by name.
    """

    def error(
        trainable: list[jax.Array], moving: list[jax.Array], pictures: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        middle = slice(surround, pictures.shape[1] - surround)
        target = pictures[:, middle, middle]
        output, moving = network.stateless_call(trainable, moving, pictures, training=True)
        twin = None
        if loss.needs_twin:
            frame, motion = second_frame(pictures, key)
            twin, moving = network.stateless_call(trainable, moving, frame, training=True)
            twin = jax.lax.dynamic_slice(twin, (0, surround + motion[0], surround + motion[1], 0), target.shape)
        terms = loss.compute(output[:, middle, middle], target, twin=twin)
        total = loss.total(terms)
        return total, (moving, {"loss": total, **terms})

    return error


def build_program(
    config: StyleConfig, surround: int, network: keras.Model, loss: PerceptualLoss, optimizer: keras.Optimizer
) -> Program:
    """Returns the compiled program of some steps.

    Args:
        config: The settings of the fit.
        surround: Width of the surroundings of crops, in pixels.
        network: The network, whose own variables stay as they are.
        loss: Its loss.
        optimizer: Its optimizer, built for its trainable variables.
    """
    error = build_error(network, loss, surround)

    @jax.jit
    def run(state: Tree, arrays: Tree, steps: jax.Array) -> tuple[Tree, Tree]:
        def step_once(state: Tree, step: jax.Array) -> tuple[Tree, Tree]:
            key = jax.random.fold_in(jax.random.key(config.seed), step)
            draw, move = jax.random.split(key)
            _, pictures = draw_batch(arrays, draw, config.batch_size, config.crop + 2 * surround, 1)
            (_, (moving, terms)), gradients = jax.value_and_grad(error, has_aux=True)(
                state["trainable"], state["moving"], pictures, move
            )
            trainable, slots = optimizer.stateless_apply(state["optimizer"], gradients, state["trainable"])
            return {"trainable": trainable, "moving": moving, "optimizer": slots}, terms

        state, terms = jax.lax.scan(step_once, state, steps)
        return state, jax.tree.map(jnp.mean, terms)

    return run


class HeldOutScores:
    """Scores networks by the loss terms of painted photographs, as `task.StyleValidation` does, but without a sheet."""

    def __init__(self, config: StyleConfig) -> None:
        """Reads the painting and the photographs."""
        self.given = build_validation(config)
        network = build_network(config, "float32")
        self.geometry = measure_geometry(network)
        self.paint = jax.jit(lambda weights, image: network.stateless_call(*weights, image, training=False)[0])

    def __call__(self, network: keras.Model) -> dict[str, float]:
        """Returns the scores of a network of the same architecture, named as in the log of a fit."""
        groups = network.trainable_variables, network.non_trainable_variables
        weights = [[variable.value for variable in variables] for variables in groups]
        rows = [
            self.given.objective.measure(self._paint_whole(weights, photograph), photograph)
            for photograph in self.given.photographs
        ]
        return {f"val_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _paint_whole(self, weights: list[list[jax.Array]], photograph: np.ndarray) -> np.ndarray:
        """Paints a photograph as one tile."""
        height, width = (self.geometry.whole_blocks(side) + 2 * self.geometry.halo for side in photograph.shape[:2])
        return upscale_in_tiles(
            lambda tile: to_uint8(np.asarray(self.paint(weights, tile[None].astype(np.float32))[0])),
            photograph,
            self.geometry,
            tile=(height, width),
            dtype=np.uint8,
        )


def fit(config: StyleConfig, arrays: Tree, surround: int, validation: HeldOutScores, run: Path) -> keras.Model:
    """Fits a network to packed photographs, and writes the run folder.

    Args:
        config: The settings.
        arrays: As from `pack_photographs`.
        surround: Width of the surroundings of crops, in pixels.
        validation: What scores the network, every `save_every` steps.
        run: The run folder, which exists.

    Returns:
        The network, with averaged weights.

    Raises:
        RuntimeError: The loss is not a number.
    """
    keras.utils.set_random_seed(config.seed)
    network, averaged = build_network(config, "mixed_bfloat16"), build_network(config, "float32")
    if config.init:
        network.load_weights(find_model(config.init))
    optimizer = build_optimizer(config)
    optimizer.build(network.trainable_variables)
    program = build_program(config, surround, network, build_loss(config), optimizer)
    state = read_state(network, optimizer)
    (run / "config.json").write_text(json.dumps(describe_run(config), indent=2) + "\n", encoding="utf-8")
    with (run / "log.jsonl").open("w", encoding="utf-8") as log:
        for step in range(STEPS_PER_CALL, config.steps + 1, STEPS_PER_CALL):
            began = time.perf_counter()
            state, terms = program(state, arrays, jnp.arange(step - STEPS_PER_CALL, step))
            numbers = describe_steps(terms, step, STEPS_PER_CALL * config.batch_size, began)
            if step % config.save_every == 0 or step == config.steps:
                copy_average(state, network, optimizer, averaged)
                numbers |= validation(averaged)
                averaged.save(run / "model.keras")
            log.write(json.dumps(numbers) + "\n")
            log.flush()
    return averaged


@click.command()
@click.argument("settings", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
def main(settings: Path, run: Path) -> None:
    """Fits by SETTINGS, a JSON file of names and values, and writes the run folder RUN."""
    given = json.loads(settings.read_text(encoding="utf-8"))
    config = StyleConfig.from_json(given | {"precision": "bfloat16"})
    if config.steps % STEPS_PER_CALL or config.save_every % STEPS_PER_CALL:
        raise click.UsageError(
            f"steps and save_every must be multiples of {STEPS_PER_CALL}. Received: {config.steps} and "
            f"{config.save_every}."
        )
    validation, stream = HeldOutScores(config), build_stream(config)
    run.mkdir(parents=True)
    arrays = pack_photographs(read_photographs(stream), stream.surround)
    fit(config, arrays, stream.surround, validation, run)


if __name__ == "__main__":
    main()
