"""The `keras-psr models` command, which lists the shipped models and shows their cards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import click
from rich.console import Console
from rich.table import Table

from keras_psr.cli.model_options import complete_models
from keras_psr.errors import ModelError
from keras_psr.inference.registry import (
    CARD_FILE,
    MODEL_FILE,
    RUN_FILE,
    find_runnable,
    model_names,
    removes_artefacts,
    shipped_models,
)
from keras_psr.tasks.report import REPORTS

LEGENDS = {
    "objective": "loss of stylized photographs that the network was not fitted to",
    "photograph": "loss of the same photographs before stylizing",
    "chroma ratio": "noise of colour over that of the painting; at most 1 is clean",
    "lattice ratio": "strength of a grid of four pixels; photographs have about 1",
}
"""Explanations below a table, by column heading."""

DETAILS = ("sha256", "protocol", "config", "versions", "machine", "git", "validations")
"""Entries of a card that only --json shows."""


@click.command()
@click.argument("name", required=False, metavar="[MODEL]", shell_complete=complete_models())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(name: str | None, as_json: bool) -> None:
    """List the shipped models, or show one's card: data, licence, command, scores, and more as JSON.

    MODEL is whatever upscale and stylize accept. For a .tflite file that `keras-psr export` wrote, this shows its
    metadata: scale, tile, halo, measurements; for a run folder, its settings and its last validation.

    \b
    Examples:
      keras-psr models
      keras-psr models x4
      keras-psr models x4_int8 --json
      keras-psr models runs/x4
      keras-psr models export/x4_int8.tflite
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    cards = shipped_models()
    card = None if name is None else find_card(name, cards)
    console = Console()
    if as_json:
        click.echo(json.dumps(card or cards, indent=2))
    elif name and card:
        console.print(build_card(name, card))
        console.print("--json shows everything, such as settings, versions, protocol and checksums.")
    elif cards:
        for task in sorted({card["task"] for card in cards.values()}, reverse=True):
            of_task = {name: card for name, card in cards.items() if card["task"] == task}
            title = REPORTS[task].listing_title if task in REPORTS else task
            console.print(title, build_table(of_task), "", build_notes(of_task), "")
        files = dict.fromkeys(file.rpartition("_")[2] for file in model_names() if file not in cards)
        kinds = "".join(f", NAME_{kind}" for kind in files)
        console.print(f"keras-psr models NAME shows a card. --model takes NAME{kinds}.", highlight=False)
    else:
        click.echo("This installation has no shipped models. Fit one: keras-psr fit --scale 4", err=True)


def find_card(name: str, cards: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns a shipped model's card, the metadata of a `.tflite` file, or the description of a run folder.

    Raises:
        ModelError: There is no such model.
    """
    if name in cards and not Path(name).exists():
        return cards[name]
    if name.endswith(".tflite"):
        from keras_psr.inference.tflite_metadata import read_metadata

        return read_metadata(name)
    path = find_runnable(name)
    if path.suffix == ".tflite":
        return find_card(str(path), cards)
    return describe_network(path)


def describe_network(path: Path) -> dict[str, Any]:
    """Describes a `.keras` file, from the file itself and the card or run folder that it belongs to.

    Raises:
        ModelError: The file is not a `.keras` file.
    """
    card = path.parent / CARD_FILE
    if card.is_file():
        return json.loads(card.read_text(encoding="utf-8"))
    try:
        with ZipFile(path) as archive:
            written = json.loads(archive.read("metadata.json"))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ModelError(f"{path} is not a .keras file. Give a run folder of `keras-psr fit`.") from error
    described = {"file": str(path), "saved": written.get("date_saved"), "keras": written.get("keras_version")}
    run = path.parent / RUN_FILE
    if run.is_file():
        described |= json.loads(run.read_text(encoding="utf-8"))
    log = path.parent / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    validations = [row for row in rows if any(key.startswith("val_") for key in row)]
    return described | ({"last validation": validations[-1]} if validations else {})


def build_table(cards: dict[str, dict[str, Any]]) -> Table:
    """Builds a table of a task's models, with a row per model and a column per score."""
    scores = {name: describe_scores(card["scores"]) for name, card in cards.items()}
    measured = list(dict.fromkeys(heading for row in scores.values() for heading in row))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "scale", "size", *measured):
        table.add_column(heading, justify="left" if heading == "name" else "right")
    for name, card in cards.items():
        size = f"{card['bytes'][MODEL_FILE] / 1e6:.1f} MB"
        table.add_row(name, str(card["scale"]), size, *(scores[name].get(heading, "") for heading in measured))
    return table


def build_notes(cards: dict[str, dict[str, Any]]) -> Table:
    """Builds the notes below a table: what each model is for, and what the columns mean."""
    models_for: dict[str, list[str]] = {}
    for name, card in cards.items():
        models_for.setdefault(describe_purpose(card), []).append(name)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for purpose, names in models_for.items():
        table.add_row(", ".join(names), purpose)
    headings = dict.fromkeys(heading for card in cards.values() for heading in describe_scores(card["scores"]))
    for heading in headings:
        if heading in LEGENDS:
            table.add_row(heading, LEGENDS[heading])
    return table


def describe_purpose(card: dict[str, Any]) -> str:
    """Returns what a model is for, according to how it was fitted."""
    if "painting" in card:
        return card["painting"].partition(";")[0]
    if removes_artefacts(card):
        return "for lossy files (upscale takes it for them), noise and blur"
    if card["name"].endswith("-fast"):
        return "for phones and previews: several times as fast"
    return "for clean pictures"


def describe_scores(scores: dict[str, Any]) -> dict[str, str]:
    """Returns a card's scores as text, by column heading.

    For super-resolution this is the PSNR on each data set with the gain over bicubic, as in `30.85 (+2.42)`; for style
    transfer, the numbers.
    """
    described = {}
    for name, score in scores.items():
        if isinstance(score, dict):
            psnr, bicubic = score["model"]["psnr_y"], score["bicubic"]["psnr_y"]
            described[name] = f"{psnr:.2f} ({psnr - bicubic:+.2f})"
        else:
            described[name.replace("_", " ")] = f"{score:.4g}"
    return described


def build_card(name: str, card: dict[str, Any]) -> Table:
    """Builds a table of a card's entries, without `DETAILS`."""
    table = Table(title=name, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(max_width=24, overflow="fold")
    table.add_column(overflow="fold")
    for key, value in card.items():
        for row in describe_entry(key, value) if key not in DETAILS else ():
            table.add_row(*row)
    return table


def describe_entry(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields rows of name and text for an entry: plain values share one row, and nested ones get their own."""
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
