"""Removes the blocks of a fitted `fast` network that add a constant to every picture, and writes a new run folder.

python tools/remove_dead_blocks.py runs/x4 runs/x4-short --data data/val

If the hidden units of a block never fire, only the bias of its second convolution is left. It is added to the bias of
the block before, so the shorter network gives the same pictures and is faster. Blocks were found dead in networks of 64
filters; docs/recipe.md says what was tried against that.
"""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import click
import keras
import numpy as np

from keras_psr.data.sources import open_sources
from keras_psr.images.pixels import crop_to_multiple, make_low_res
from keras_psr.inference.upscaler import Upscaler, load_keras
from keras_psr.networks.super_resolution import build_network

LARGEST_DIFFERENCE = 0.01
"""Largest mean difference between the results of both networks that is accepted for any picture, in grey levels."""


def remove_block(network: keras.Model, number: int) -> keras.Model:
    """Returns a `fast` network without block `number`, which is at least 2, whose bias goes to the block before."""
    names = [layer.name for layer in network.layers if re.fullmatch(r"block\d+_conv1", layer.name)]
    exit_kernel = network.get_layer("exit").get_weights()[0]
    scale, num_filters = exit_kernel.shape[0] // 2, exit_kernel.shape[3]
    shorter = build_network("fast", scale=scale, num_filters=num_filters, num_residual_blocks=len(names) - 1)
    for layer in shorter.layers:
        block = re.fullmatch(r"block(\d+)_(conv\d)", layer.name)
        before = f"block{int(block[1]) + (int(block[1]) >= number)}_{block[2]}" if block else layer.name
        if layer.weights:
            layer.set_weights(network.get_layer(before).get_weights())
    kernel, bias = shorter.get_layer(f"block{number - 1}_conv2").get_weights()
    removed = network.get_layer(f"block{number}_conv2").get_weights()[1]
    shorter.get_layer(f"block{number - 1}_conv2").set_weights([kernel, bias + removed])
    return shorter


def largest_mean_difference(images: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Returns the mean absolute difference between two results, in grey levels, of the picture where it is largest."""
    return max(float(np.abs(one - other.astype(float)).mean()) for one, other in zip(images, expected, strict=True))


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--data", multiple=True, default=("sample:val",), help="Pictures on which the networks are compared.")
def main(run: Path, out: Path, data: tuple[str, ...]) -> None:
    """Writes RUN without its dead blocks to OUT."""
    upscaler = load_keras(run)
    originals = [crop_to_multiple(picture.read(), upscaler.scale) for picture in open_sources(data)]
    pictures = [make_low_res(original, upscaler.scale) for original in originals]
    record = json.loads((run / "config.json").read_text(encoding="utf-8"))
    architecture = record["config"]["architecture"]
    if architecture != "fast":
        raise click.UsageError(f"RUN must be a fit of the architecture fast. Received: {architecture}.")
    expected = [upscaler(picture) for picture in pictures]
    network, kept = upscaler.network, list(range(1, record["config"]["num_residual_blocks"] + 1))
    removed = []
    for block in kept[:0:-1]:
        shorter = remove_block(network, kept.index(block) + 1)
        difference = largest_mean_difference([Upscaler(shorter)(picture) for picture in pictures], expected)
        click.echo(f"without block {block}: {difference:.4f} grey levels")
        if difference <= LARGEST_DIFFERENCE:
            network = shorter
            kept.remove(block)
            removed.append(block)
    record["config"]["num_residual_blocks"] = len(kept)
    record["removed_blocks"] = sorted(removed)
    out.mkdir(parents=True)
    shutil.copy(run / "log.jsonl", out)
    (out / "config.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    network.save(out / "model.keras")


if __name__ == "__main__":
    main()
