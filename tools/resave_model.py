"""Saves the files of shipped models again, as `ship_model.py` would today; weights and pixels stay as they are.

python tools/resave_model.py starry-night great-wave
python tools/resave_model.py --only-tflite starry-night great-wave
python tools/resave_model.py --only-tflite --verify Set14/ x4 x2

Use it when something other than the weights has changed in what files contain. The checksums of the new files go into
the card, and that of a `.keras` file also into the metadata of the model's `.tflite` files. With `--verify`, the int8
files are exported anew, too; nothing else should run at the same time then, because latencies are measured.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from ship_model import AUTHOR, export_files, round_numbers, save_compressed

from keras_psr.images.atomic import write_whole
from keras_psr.inference.litert import TileInterpreter
from keras_psr.inference.registry import CARD_FILE, MODEL_FILE, file_sha256, shipped_folder, shipped_models
from keras_psr.inference.tflite_metadata import read_metadata, with_metadata
from keras_psr.inference.upscaler import load_keras, load_network
from keras_psr.training.run_folder import describe_environment


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


def replace_metadata(path: Path, checksum: str) -> None:
    """Writes the metadata of a `.tflite` file again, with the author and the checksum of the `.keras` file.

    Raises:
        ClickException: The new file gives different pixels.
    """
    old, metadata = path.read_bytes(), read_metadata(path)
    new = with_metadata(old, metadata | {"author": AUTHOR, "model_sha256": checksum})
    tile = np.random.default_rng(0).integers(0, 256, (metadata["tile"], metadata["tile"], 3), np.uint8)
    if not np.array_equal(TileInterpreter(old)(tile), TileInterpreter(new)(tile)):
        raise click.ClickException(f"The new {path.name} gives different pixels. It was not replaced.")
    with write_whole(path) as unfinished:
        unfinished.write_bytes(new)


def export_int8(name: str, verify: Sequence[str]) -> None:
    """Exports the int8 file of a shipped model anew, and writes what was measured into the card.

    Raises:
        ClickException: The new file lost too much.
    """
    folder = shipped_folder() / name
    with TemporaryDirectory() as temporary:
        report = export_files(
            load_keras(name), name, ["int8"], Path(temporary), file_sha256(folder / MODEL_FILE), verify
        )
        row = report["files"]["int8"]
        (folder / row["file"]).write_bytes((Path(temporary) / row["file"]).read_bytes())
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    card["tflite"]["files"]["int8"] = round_numbers(row) | {"machine": describe_environment()["machine"]}
    card["tflite"]["verification"] = [Path(source).name for source in verify]
    (folder / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def update_card(folder: Path) -> None:
    """Writes the author, sizes and checksums of a shipped model's files into its card."""
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    facts: dict[str, Any] = {}
    for key, value in card.items():
        facts |= {"author": AUTHOR} if key == "licence" else {}
        facts[key] = value
    for row in facts["tflite"]["files"].values():
        row["bytes"] = (folder / row["file"]).stat().st_size
    facts["bytes"] = {file: (folder / file).stat().st_size for file in card["bytes"]}
    facts["sha256"] = {file: file_sha256(folder / file) for file in card["sha256"]}
    (folder / CARD_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


@click.command()
@click.option("--only-tflite", is_flag=True, help="Leave the .keras files as they are.")
@click.option("--verify", multiple=True, help="Folder of pictures: export the int8 files anew, and compare them on it.")
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(shipped_models())))
def main(names: tuple[str, ...], only_tflite: bool, verify: tuple[str, ...]) -> None:
    """Saves the files of the shipped models NAMES again."""
    for name in names:
        folder = shipped_folder() / name
        if not only_tflite:
            with TemporaryDirectory() as temporary:
                new = Path(temporary) / MODEL_FILE
                resave_network(name, new)
                (folder / MODEL_FILE).write_bytes(new.read_bytes())
        if verify:
            export_int8(name, verify)
        for path in folder.glob("*.tflite"):
            replace_metadata(path, file_sha256(folder / MODEL_FILE))
        update_card(folder)
        click.echo(f"{name}: {', '.join(sorted(path.name for path in folder.glob('*.tflite')))}")


if __name__ == "__main__":
    main()
