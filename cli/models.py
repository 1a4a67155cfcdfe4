"""`keras-psr models`: the shipped models and their cards."""

import json
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from keras_psr.errors import ModelError
from keras_psr.registry import MODEL_FILE, shipped_models

TITLES = {"super-resolution": "super-resolution: PSNR of luma in dB (and over bicubic)"}
"""What stands above a task's table, where its name does not say what the scores are."""

DETAILS = ("sha256", "protocol", "config", "versions", "machine", "git", "validations")
"""Entries of a card that are left to --json."""


@click.command()
@click.argument("name", required=False, metavar="[NAME|FILE.tflite]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(name: str | None, as_json: bool) -> None:
    """List the shipped models, or show one's card: data, licence, command, scores, and more as JSON.

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
        if name in cards:
            Console().print("--json shows the rest: settings, versions, protocol, checksums.")
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
    """What a card says, but for `DETAILS`: a row for each entry."""
    table = Table(title=name, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(max_width=24, overflow="fold")
    table.add_column(overflow="fold")
    for key, value in card.items():
        for row in describe_entry(key, value) if key not in DETAILS else ():
            table.add_row(*row)
    return table


def describe_entry(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Rows of name and text: what is plain inside an entry on one row, what is nested on rows of its own."""
    if not isinstance(value, dict):
        yield path, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return
    known = {key: inner for key, inner in value.items() if key not in DETAILS and inner not in ({}, None)}
    plain = [
        f"{key} {round(inner, 4) if isinstance(inner, float) else inner}"
        for key, inner in known.items()
        if not isinstance(inner, (dict, list))
    ]
    if plain:
        yield path, ", ".join(plain)
    for key, inner in known.items():
        if isinstance(inner, (dict, list)):
            yield from describe_entry(f"{path} {key}", inner)
