"""Fits a network of the architecture `fast` as `keras-psr fit` does, but with JAX and with the pictures on the GPU.

KERAS_BACKEND=jax python tools/fit_with_jax.py settings.json runs/x4

It is meant for GPUs, on which the steps of so small a network are short compared with the work of TensorFlow's loop and
of a sample stream on the processor. Here hundreds of steps are one compiled program, which also cuts the crops. Loss,
optimizer, stages and averages are those of `keras-psr fit`; the crops are drawn in another order. The shipped models
for super-resolution were fitted this way on an NVIDIA H100 (docs/recipe.md).

JAX is not among the requirements: `pip install "jax[cuda13]"`. The settings are those of `keras_psr.fit`, as in the
`config.json` of a run folder. The new run folder holds what `tools/ship_model.py` needs, and no checkpoint.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_psr.data.samples import SampleStream
from keras_psr.data.sources import Picture, open_sources, use_pictures
from keras_psr.images.metrics import psnr_y
from keras_psr.images.pixels import crop_to_multiple, make_low_res, resize_bicubic, to_uint8
from keras_psr.inference.registry import find_model
from keras_psr.losses.vgg import build_vgg
from keras_psr.tasks.config import Stage, SuperResolutionConfig
from keras_psr.tasks.super_resolution.evaluation import FEATURE_TAP
from keras_psr.tasks.super_resolution.task import build_loss, build_network
from keras_psr.training.optimizer import MOMENTUM, StagedCosineDecay, orthogonalize

STEPS_PER_CALL = 250
"""Steps in one compiled program."""

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
"""Settings of Adam, which takes the steps of biases; Keras's defaults."""

NUM_DEGRADED = 10_000
"""Number of crops that are degraded before a fit with `--degradation photo`; the crops of the fit are cut from them."""

DEGRADED_TOGETHER = 50
"""Number of crops that a process degrades at a time."""

Tree = dict[str, Any]
"""Arrays by name, or dictionaries of them."""

Pair = tuple[np.ndarray, np.ndarray]
"""A picture's low-resolution version and the picture itself, uint8 RGB."""


def read_weights(network: keras.Model) -> Tree:
    """Returns the kernel and bias of each convolution, float32, by the name of its layer."""
    return {
        layer.name: dict(zip(("kernel", "bias"), map(jnp.asarray, layer.get_weights()), strict=True))
        for layer in network.layers
        if layer.weights
    }


def write_weights(network: keras.Model, weights: Tree) -> None:
    """Gives a network the weights that `read_weights` returned."""
    for name, weight in weights.items():
        network.get_layer(name).set_weights([np.asarray(weight["kernel"]), np.asarray(weight["bias"])])


def apply_fast(weights: Tree, low_res: jax.Array, scale: int, dtype: Any = jnp.bfloat16) -> jax.Array:
    """Returns what `networks.super_resolution.fast` with these weights makes of pictures, float32.

    Args:
        weights: As from `read_weights`.
        low_res: (batch, height, width, 3) float32 in [0, 255].
        scale: The upscaling factor.
        dtype: Dtype of the hidden layers.
    """
    weights = jax.tree.map(lambda weight: weight.astype(dtype), weights)
    x = (low_res / 127.5 - 1).astype(dtype)
    x = jax.nn.relu(convolve(x, **weights["entry"]))
    for index in range(1, sum(name.endswith("_conv1") for name in weights) + 1):
        branch = jax.nn.relu(convolve(x, **weights[f"block{index}_conv1"]))
        x = x + convolve(branch, **weights[f"block{index}_conv2"])
    kernel = fold_transposed(weights["exit"]["kernel"], scale)
    detail = convolve(x, kernel, jnp.tile(weights["exit"]["bias"], scale**2)).astype(jnp.float32)
    batch, height, width, _ = low_res.shape
    detail = detail.reshape(batch, height, width, scale, scale, 3).transpose(0, 1, 3, 2, 4, 5)
    size = (batch, scale * height, scale * width, 3)
    enlarged = jax.image.resize(low_res, size, "bilinear", precision=jax.lax.Precision.HIGHEST)
    return enlarged + detail.reshape(size)


def convolve(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns a convolution that keeps the size."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias


def fold_transposed(kernel: jax.Array, scale: int) -> jax.Array:
    """Returns the exit, a transposed convolution, as a 3x3 convolution whose channels are the pixels of a block.

    This form is faster on GPUs. A row of the result depends on those rows of the input that lie within half a kernel.

    Args:
        kernel: (2 * scale, 2 * scale, 3, channels).
        scale: The stride.

    Returns:
        (3, 3, channels, scale * scale * 3).
    """
    position = np.arange(scale) + scale // 2 - scale * np.arange(-1, 2)[:, None]  # in the kernel, by offset and phase
    is_inside = (position >= 0) & (position < 2 * scale)
    position = np.clip(position, 0, 2 * scale - 1)
    parts = kernel[position[:, :, None, None], position[None, None]]  # offset, phase, offset, phase, 3, channels
    parts = jnp.where((is_inside[:, :, None, None] & is_inside)[..., None, None], parts, 0)
    return parts.transpose(0, 2, 5, 1, 3, 4).reshape(3, 3, kernel.shape[3], scale * scale * 3)


def pack_pictures(pairs: list[Pair], scale: int) -> Tree:
    """Packs pictures into flat arrays on the device, from which `draw_batch` cuts crops.

    Args:
        pairs: uint8 (low_res, high_res) pictures.
        scale: The upscaling factor.

    Returns:
        `low` and `high`, (pixels, 3) uint8. And for each window, here a whole picture, where it begins in each and how
        long the rows are there (`low_start`, `low_columns`, `high_start`, `high_columns`), its size in low-resolution
        pixels (`rows`, `columns`), and its share of all area, added up (`area`).
    """
    sizes = np.array([low_res.shape[:2] for low_res, _ in pairs])
    ends = np.cumsum(sizes.prod(axis=1))
    start = np.concatenate([[0], ends[:-1]])
    windows = {
        "low_start": start,
        "low_columns": sizes[:, 1],
        "high_start": start * scale**2,
        "high_columns": sizes[:, 1] * scale,
        "rows": sizes[:, 0],
        "columns": sizes[:, 1],
    }
    return {
        "low": jnp.asarray(np.concatenate([low_res.reshape(-1, 3) for low_res, _ in pairs])),
        "high": jnp.asarray(np.concatenate([high_res.reshape(-1, 3) for _, high_res in pairs])),
        "area": jnp.asarray(ends / ends[-1], jnp.float32),
        **{name: jnp.asarray(numbers, jnp.int32) for name, numbers in windows.items()},
    }


def replace_low(arrays: Tree, degraded: Tree, scale: int) -> Tree:
    """Returns packed pictures whose windows are degraded crops (`degrade_crops`), each as likely as any other."""
    number, side = degraded["low"].shape[:2]
    picture = degraded["picture"]
    starts = np.asarray(arrays["high_start"])[picture]
    columns = np.asarray(arrays["high_columns"])[picture]
    windows = {
        "low_start": np.arange(number) * side**2,
        "low_columns": np.full(number, side),
        "high_start": starts + degraded["top"] * columns + degraded["left"],
        "high_columns": columns,
        "rows": np.full(number, side),
        "columns": np.full(number, side),
    }
    return {
        "low": jnp.asarray(degraded["low"].reshape(-1, 3)),
        "high": arrays["high"],
        "area": jnp.asarray(np.arange(1, number + 1) / number, jnp.float32),
        **{name: jnp.asarray(numbers, jnp.int32) for name, numbers in windows.items()},
    }


def degrade_crops(config: SuperResolutionConfig, crop: int, first: int, number: int) -> Tree:
    """Returns crops of the stream of a fit with `--degradation photo`, before they are turned.

    Args:
        config: The settings.
        crop: Side of the crops in high-resolution pixels; smaller ones are cut from them.
        first: Position of the first in the stream.
        number: How many.

    Returns:
        `low`, (number, side, side, 3) uint8; and where each is from: `picture` among those as large as the crop, and
        `top` and `left` in it.
    """
    pictures = [one for one in open_sources(config.data) if min(one.height, one.width) >= crop]
    stream = SampleStream(pictures, scale=config.scale, crop=crop, seed=config.seed, degradation=config.degradation)
    samples = [replace(stream.sample(index), orientation=0) for index in range(first, first + number)]
    return {
        "low": np.stack([stream.crops(sample)[0] for sample in samples]),
        **{name: np.array([getattr(one, name) for one in samples]) for name in ("picture", "top", "left")},
    }


def degrade_on_all_cores(config: SuperResolutionConfig, crop: int) -> Tree:
    """Returns the first `NUM_DEGRADED` crops of the stream, as from `degrade_crops`."""
    degrade = partial(degrade_crops, config, crop, number=DEGRADED_TOGETHER)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as executor:
        parts = list(executor.map(degrade, range(0, NUM_DEGRADED, DEGRADED_TOGETHER)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def pack_data(config: SuperResolutionConfig) -> Tree:
    """Returns the training pictures of a fit, packed, or its degraded crops with `--degradation photo`."""
    crop = max(stage.config.crop for stage in config.stages())
    if config.degradation != "photo":
        return pack_pictures(read_pairs(config.data, config.scale, crop), config.scale)
    crop += crop // 3 // config.scale * config.scale
    degraded = degrade_on_all_cores(config, crop)
    return replace_low(pack_pictures(read_pairs(config.data, config.scale, crop), config.scale), degraded, config.scale)


def draw_batch(arrays: Tree, key: jax.Array, size: int, crop: int, scale: int) -> tuple[jax.Array, jax.Array]:
    """Returns random crops in random orientations, float32 (low_res, high_res), as a `SampleStream` draws them."""
    keys = jax.random.split(key, 3)
    window = jnp.searchsorted(arrays["area"], jax.random.uniform(keys[0], (size,)), side="right")
    window = jnp.minimum(window, len(arrays["area"]) - 1)
    side = crop // scale
    room = jnp.stack([arrays["rows"][window], arrays["columns"][window]], axis=1) - side + 1
    place = jnp.floor(jax.random.uniform(keys[1], (size, 2)) * room).astype(jnp.int32)
    turn = jax.random.bernoulli(keys[2], shape=(3, size, 1, 1))

    def cut(which: str, place: jax.Array, side: int) -> jax.Array:
        rows, columns = jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing="ij")
        rows, columns = jnp.where(turn[0], columns, rows), jnp.where(turn[0], rows, columns)
        rows = jnp.where(turn[1], side - 1 - rows, rows) + place[:, 0, None, None]
        columns = jnp.where(turn[2], side - 1 - columns, columns) + place[:, 1, None, None]
        start, length = (arrays[f"{which}_{name}"][window][:, None, None] for name in ("start", "columns"))
        return arrays[which][start + rows * length + columns].astype(jnp.float32)

    return cut("low", place, side), cut("high", scale * place, crop)


def start_state(weights: Tree) -> Tree:
    """Returns the state of a fit before its first step."""
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return {"weights": weights, "average": weights, "momentum": zeros, "velocity": zeros, "step": jnp.zeros((), int)}


def take_step(state: Tree, gradients: Tree, learning_rate: jax.Array, ema_momentum: float) -> Tree:
    """Returns the state after one step: of Muon for kernels and of Adam for biases, as `optimizer.Muon` takes it."""
    step = state["step"] + 1
    kernels = {name: gradient["kernel"] for name, gradient in gradients.items()}
    momentum = {name: MOMENTUM * state["momentum"][name]["kernel"] + kernel for name, kernel in kernels.items()}
    ahead = {name: kernel + MOMENTUM * momentum[name] for name, kernel in kernels.items()}
    steps = orthogonal_steps(ahead)
    biases = {name: gradient["bias"] for name, gradient in gradients.items()}
    first = {name: BETA_1 * state["momentum"][name]["bias"] + (1 - BETA_1) * bias for name, bias in biases.items()}
    second = {name: BETA_2 * state["velocity"][name]["bias"] + (1 - BETA_2) * bias**2 for name, bias in biases.items()}
    correction = jnp.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
    weights = {
        name: {
            "kernel": weight["kernel"] - learning_rate * steps[name],
            "bias": weight["bias"] - learning_rate * correction * first[name] / (jnp.sqrt(second[name]) + EPSILON),
        }
        for name, weight in state["weights"].items()
    }
    kept = jnp.where(step > 1, ema_momentum, 0.0)
    return {
        "weights": weights,
        "average": jax.tree.map(lambda mean, weight: kept * mean + (1 - kept) * weight, state["average"], weights),
        "momentum": {name: {"kernel": momentum[name], "bias": first[name]} for name in weights},
        "velocity": {name: {"kernel": state["velocity"][name]["kernel"], "bias": second[name]} for name in weights},
        "step": step,
    }


def orthogonal_steps(kernels: Tree) -> Tree:
    """Returns Muon's step for each kernel, kernels of one shape together."""
    steps: Tree = {}
    for shape in {kernel.shape for kernel in kernels.values()}:
        names = [name for name, kernel in kernels.items() if kernel.shape == shape]
        matrices = jnp.stack([kernels[name].reshape(-1, shape[-1]) for name in names])
        orthogonal = jax.vmap(orthogonalize)(matrices) * max(matrices.shape[1:]) ** 0.5
        steps |= {name: matrix.reshape(shape) for name, matrix in zip(names, orthogonal, strict=True)}
    return steps


def build_program(config: SuperResolutionConfig, stage: Stage) -> Callable[[Tree, Tree, jax.Array], tuple[Tree, Tree]]:
    """Returns the compiled program of some steps of a stage.

    Args:
        config: The settings of the fit.
        stage: The stage.

    Returns:
        A function of a state, packed pictures and the learning rate of each step, that returns the state after these
        steps and the mean of each loss term.
    """
    loss = build_loss(stage.config)
    ema_momentum = min(config.ema_momentum, 1 - min(1.0, 10 / config.steps))
    num_shifts = loss.shift_period**2 if loss.encoder else 1

    def error(weights: Tree, low_res: jax.Array, high_res: jax.Array, step: jax.Array) -> tuple[jax.Array, Tree]:
        output = apply_fast(weights, low_res, config.scale)
        shifted = [lambda output, shift=shift: loss.compute(output, high_res, shift) for shift in range(num_shifts)]
        terms = jax.lax.switch(step % num_shifts, shifted, output)
        return loss.total(terms), terms

    @jax.jit
    def run(state: Tree, arrays: Tree, learning_rates: jax.Array) -> tuple[Tree, Tree]:
        def step_once(state: Tree, learning_rate: jax.Array) -> tuple[Tree, Tree]:
            key = jax.random.fold_in(jax.random.key(config.seed), state["step"])
            batch = draw_batch(arrays, key, stage.config.batch_size, stage.config.crop, config.scale)
            (_, terms), gradients = jax.value_and_grad(error, has_aux=True)(state["weights"], *batch, state["step"])
            return take_step(state, gradients, learning_rate, ema_momentum), terms

        state, terms = jax.lax.scan(step_once, state, learning_rates)
        return state, jax.tree.map(jnp.mean, terms)

    return run


class HeldOutScores:
    """Scores weights on whole held-out pictures: PSNR on Y, and the feature distance over bicubic's."""

    def __init__(self, config: SuperResolutionConfig) -> None:
        """Reads and reduces the pictures."""
        self.scale = config.scale
        self.vgg = build_vgg([FEATURE_TAP])
        self.pairs = read_pairs(config.val, config.scale)
        self.expected = [self._respond(high_res) for _, high_res in self.pairs]
        self.bicubic = float(
            np.mean(
                [
                    self._distance(resize_bicubic(low_res, *high_res.shape[:2]), expected)
                    for (low_res, high_res), expected in zip(self.pairs, self.expected, strict=True)
                ]
            )
        )
        self.apply = jax.jit(lambda weights, image: apply_fast(weights, image, config.scale, jnp.float32))

    def __call__(self, weights: Tree) -> dict[str, float]:
        """Returns the scores, named as in the log of a fit."""
        psnrs, distances = [], []
        for (low_res, high_res), expected in zip(self.pairs, self.expected, strict=True):
            output = to_uint8(np.asarray(self.apply(weights, low_res[None].astype(np.float32))[0]))
            psnrs.append(psnr_y(output, high_res, self.scale))
            distances.append(self._distance(output, expected))
        return {
            "val_psnr_y": float(np.mean(psnrs)),
            "val_feature_distance_ratio": float(np.mean(distances)) / self.bicubic,
        }

    def _respond(self, image: np.ndarray) -> jax.Array:
        return self.vgg(image[None].astype(np.float32))[FEATURE_TAP]

    def _distance(self, image: np.ndarray, expected: jax.Array) -> float:
        return float(jnp.mean(jnp.square(self._respond(image) - expected)))


def read_pairs(sources: tuple[str, ...], scale: int, at_least: int = 0) -> list[Pair]:
    """Returns (low_res, high_res) of all pictures whose sides are long enough."""

    def reduce(picture: Picture) -> Pair:
        high_res = crop_to_multiple(picture.read(), scale)
        return make_low_res(high_res, scale), high_res

    pictures = [one for one in open_sources(sources) if min(one.height, one.width) >= at_least]
    return use_pictures(pictures, reduce, refusal="None of {number} pictures can be read.")[0]


def fit(config: SuperResolutionConfig, arrays: Tree, validation: HeldOutScores, run: Path) -> keras.Model:
    """Fits a network to packed pictures, and writes the run folder.

    Args:
        config: The settings.
        arrays: As from `pack_pictures`.
        validation: What scores it, every `save_every` steps.
        run: The run folder, which exists.

    Returns:
        The network, with averaged weights.

    Raises:
        RuntimeError: `apply_fast` and the network of these settings differ, or the loss is not a number.
    """
    keras.utils.set_random_seed(config.seed)
    network = (
        keras.saving.load_model(find_model(config.init), compile=False)
        if config.init
        else build_network(config, "float32")
    )
    state = start_state(read_weights(network))
    check_forward(network, state["weights"], config.scale)
    (run / "config.json").write_text(json.dumps(describe_run(config), indent=2) + "\n", encoding="utf-8")
    learning_rates = StagedCosineDecay(config.stages())(np.arange(config.steps))
    with (run / "log.jsonl").open("w", encoding="utf-8") as log:
        for stage in config.stages():
            program = build_program(config, stage)
            for step in range(stage.first_step + STEPS_PER_CALL, stage.last_step + 1, STEPS_PER_CALL):
                began = time.perf_counter()
                state, terms = program(state, arrays, learning_rates[step - STEPS_PER_CALL : step])
                numbers = describe_steps(terms, step, STEPS_PER_CALL * stage.config.batch_size, began)
                numbers["learning_rate"] = float(learning_rates[step - 1])
                if step % config.save_every == 0 or step == config.steps:
                    numbers |= validation(state["average"])
                log.write(json.dumps(numbers) + "\n")
                log.flush()
    write_weights(network, state["average"])
    network.save(run / "model.keras")
    return network


def describe_steps(terms: Tree, step: int, num_crops: int, began: float) -> dict[str, float]:
    """Returns the line of the log for the steps of one call.

    Args:
        terms: The mean of each loss term, from the program.
        step: The last step.
        num_crops: Number of crops that these steps saw.
        began: When the call began, by `time.perf_counter`.

    Raises:
        RuntimeError: A term is not a number.
    """
    numbers = {name: float(term) for name, term in terms.items()}  # waits for the device
    if not np.isfinite(list(numbers.values())).all():
        raise RuntimeError(f"The loss is not a number after step {step}: {numbers}")
    return numbers | {"step": step, "crops_per_second": num_crops / (time.perf_counter() - began)}


def check_forward(network: keras.Model, weights: Tree, scale: int) -> None:
    """Compares `apply_fast` with the network itself on noise.

    Raises:
        RuntimeError: They differ by more than rounding.
    """
    generator = np.random.default_rng(0)
    exit_kernel = generator.normal(0, 1, weights["exit"]["kernel"].shape)  # a network before its fit has none
    weights = weights | {"exit": weights["exit"] | {"kernel": jnp.asarray(exit_kernel, jnp.float32)}}
    before = network.get_weights()
    write_weights(network, weights)
    noise = generator.uniform(0, 255, (1, 20, 24, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        found, expected = apply_fast(weights, noise, scale, jnp.float32), network(noise)
    network.set_weights(before)
    difference = float(jnp.max(jnp.abs(found - expected)))
    if difference > 0.05:
        raise RuntimeError(f"apply_fast and {network.name} differ by {difference} grey levels.")


def describe_run(config: SuperResolutionConfig) -> Tree:
    """Returns what `config.json` holds: settings, command, versions and machine."""
    return {
        "command": sys.argv,
        "config": config.to_json(),
        "versions": {name: version(name) for name in ("jax", "keras", "numpy", "pillow")},
        "machine": {"processor": jax.devices()[0].device_kind, "cores": os.cpu_count()},
        "git": None,
    }


@click.command()
@click.argument("settings", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
def main(settings: Path, run: Path) -> None:
    """Fits by SETTINGS, a JSON file of names and values, and writes the run folder RUN."""
    given = json.loads(settings.read_text(encoding="utf-8"))
    config = SuperResolutionConfig.from_json(given | {"precision": "bfloat16"})
    if any(stage.last_step % STEPS_PER_CALL for stage in config.stages()):
        raise click.UsageError(
            f"steps and warmup_steps must be multiples of {STEPS_PER_CALL}. "
            f"Received: {config.steps} and {config.warmup_steps}."
        )
    if config.adversarial_weight:
        raise click.UsageError(
            "adversarial_weight must be 0, because only keras-psr fit has discriminators. "
            f"Received: {config.adversarial_weight}."
        )
    run.mkdir(parents=True)
    fit(config, pack_data(config), HeldOutScores(config), run)


if __name__ == "__main__":
    main()
