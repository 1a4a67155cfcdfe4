"""`keras-psr models`: the shipped models and their cards."""

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from keras_psr.errors import ModelError
from keras_psr.registry import MODEL_FILE, shipped_models

TITLES = {"super-resolution": "super-resolution: PSNR of luma in dB (and over bicubic)"}
"""What stands above a task's table, where its name does not say what the scores are."""


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
        for task in sorted({card["task"] for card in cards.values()}, reverse=True):
            of_task = {name: card for name, card in cards.items() if card["task"] == task}
            Console().print(TITLES.get(task, task), build_table(of_task), "")
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
    """The models of a task: a row for each, a column for each of their scores."""
    scores = {name: describe_scores(card["scores"]) for name, card in cards.items()}
    measured = list(dict.fromkeys(heading for row in scores.values() for heading in row))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "scale", "size", *measured):
        table.add_column(heading, justify="left" if heading == "name" else "right")
    for name, card in cards.items():
        size = f"{card['bytes'][MODEL_FILE] / 1e6:.1f} MB"
        table.add_row(name, str(card["scale"]), size, *(scores[name].get(heading, "") for heading in measured))
    return table


def describe_scores(scores: dict[str, Any]) -> dict[str, str]:
    """What a card's scores come to, by heading.

    Of super-resolution the PSNR on each set and the gain over bicubic, as in `30.85 (+2.42)`; of styles the numbers.
    """
    described = {}
    for name, score in scores.items():
        if isinstance(score, dict):
            psnr, bicubic = score["model"]["psnr_y"], score["bicubic"]["psnr_y"]
            described[name] = f"{psnr:.2f} ({psnr - bicubic:+.2f})"
        else:
            described[name] = f"{score:.4g}"
    return described


def build_card(name: str, card: dict[str, Any]) -> Table:
    """Everything a card says, a row for each entry; what is nested is written as JSON."""
    table = Table(title=name, show_header=False, title_justify="left")
    for key, value in card.items():
        table.add_row(key, value if isinstance(value, str) else json.dumps(value, indent=2))
    return table
