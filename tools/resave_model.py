"""Saves the networks of shipped models again, as `ship_model.py` does today, without changing their weights.

python tools/resave_model.py starry-night great-wave

Use it after a change to what `.keras` files contain besides weights. The checksum of the new file is written to the
card and to the metadata of the model's `.tflite` files, whose pixels do not change.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from ship_model import save_compressed

from keras_psr.images.atomic import write_whole
from keras_psr.inference.registry import CARD_FILE, MODEL_FILE, file_sha256, shipped_folder, shipped_models
from keras_psr.inference.tflite_metadata import read_metadata, with_metadata
from keras_psr.inference.upscaler import load_keras, load_network


def resave_network(name: str, target: Path) -> None:
    """Saves the network of a shipped model into another file.

    Raises:
        ClickException: The weights in the new file differ.
    """
    network = load_keras(name).network
    save_compressed(network, target)
    pairs = zip(network.get_weights(), load_network(target).get_weights(), strict=True)
    if not all(np.array_equal(old.view(np.uint32), new.view(np.uint32)) for old, new in pairs):
        raise click.ClickException(f"The new file of {name} has different weights. Nothing was replaced.")


def replace_checksum(path: Path, checksum: str) -> None:
    """Writes the checksum of a new `.keras` file to the metadata of a `.tflite` file."""
    content = with_metadata(path.read_bytes(), read_metadata(path) | {"model_sha256": checksum})
    with write_whole(path) as unfinished:
        unfinished.write_bytes(content)


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(shipped_models())))
def main(names: tuple[str, ...]) -> None:
    """Saves the networks of the shipped models NAMES again."""
    for name in names:
        folder = shipped_folder() / name
        with TemporaryDirectory() as temporary:
            new = Path(temporary) / MODEL_FILE
            resave_network(name, new)
            (folder / MODEL_FILE).write_bytes(new.read_bytes())
        for path in folder.glob("*.tflite"):
            replace_checksum(path, file_sha256(folder / MODEL_FILE))
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        card["bytes"] = {file: (folder / file).stat().st_size for file in card["bytes"]}
        card["sha256"] = {file: file_sha256(folder / file) for file in card["sha256"]}
        (folder / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        click.echo(f"{name}: {card['bytes'][MODEL_FILE]} bytes, sha256 {card['sha256'][MODEL_FILE]}")


if __name__ == "__main__":
    main()
