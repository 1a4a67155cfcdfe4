"""`keras-psr models`: the shipped models and their cards."""

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from keras_psr.errors import ModelError
from keras_psr.registry import MODEL_FILE, shipped_models


@click.command()
@click.argument("name", required=False, metavar="[NAME|FILE.tflite]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(name: str | None, as_json: bool) -> None:
    """List the shipped models, or show one's card: data, licence, command, checksums, scores.

    Of a .tflite file that `keras-psr export` wrote, it shows the metadata: scale, tile, halo, what was measured.

    \b
    Examples:
      keras-psr models
      keras-psr models x4
      keras-psr models x4 --json
      keras-psr models export/x4_int8.tflite
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    cards = shipped_models()
    card = None if name is None else find_card(name, cards)
    if as_json:
        click.echo(json.dumps(card or cards, indent=2))
    elif name and card:
        Console().print(build_card(name, card))
    elif cards:
        Console().print(build_table(cards))
    else:
        click.echo("This installation has no shipped models. Fit one: keras-psr fit --scale 4", err=True)


def find_card(name: str, cards: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A shipped model's card, or the metadata of a `.tflite` file.

    Raises:
        ModelError: There is neither.
    """
    if name.endswith(".tflite"):
        from keras_psr.tflite_metadata import read_metadata

        return read_metadata(name)
    if name not in cards:
        raise ModelError(f"No shipped model {name!r}. There are: {', '.join(cards) or 'none'}.")
    return cards[name]


def build_table(cards: dict[str, dict[str, Any]]) -> Table:
    """One row for each model."""
    table = Table()
    for heading in ("name", "task", "scale", "parameters", "size", "PSNR of luma"):
        table.add_column(heading, justify="right" if heading in ("scale", "parameters", "size") else "left")
    for name, card in cards.items():
        table.add_row(
            name,
            card["task"],
            str(card["scale"]),
            f"{card['parameters']:,}",
            f"{card['bytes'][MODEL_FILE] / 1e6:.1f} MB",
            describe_scores(card["scores"]),
        )
    return table


def describe_scores(scores: dict[str, dict[str, dict[str, float]]]) -> str:
    """The model's PSNR on each set, and what it gains over bicubic, as in `Set5 30.85 (+2.42)`."""
    gains = {name: rows["model"]["psnr_y"] - rows["bicubic"]["psnr_y"] for name, rows in scores.items()}
    return ", ".join(f"{name} {scores[name]['model']['psnr_y']:.2f} ({gain:+.2f})" for name, gain in gains.items())


def build_card(name: str, card: dict[str, Any]) -> Table:
    """Everything a card says, a row for each entry; what is nested is written as JSON."""
    table = Table(title=name, show_header=False, title_justify="left")
    for key, value in card.items():
        table.add_row(key, value if isinstance(value, str) else json.dumps(value, indent=2))
    return table
