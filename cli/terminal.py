"""Prints messages to stderr without garbling a progress bar."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress

_live: list["Progress"] = []


def say(line: str) -> None:
    """Prints a message to stderr, above the progress bar if one is shown."""
    if _live:
        _live[-1].console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
    else:
        click.echo(line, err=True)


@contextmanager
def shown(bar: "Progress") -> Iterator[None]:
    """Shows a progress bar inside the context, below the messages of `say`; nothing if the bar is disabled."""
    if bar.disable:
        yield
        return
    with bar:
        _live.append(bar)
        try:
            yield
        finally:
            _live.remove(bar)


def hide_bars() -> None:
    """Removes all progress bars and shows the cursor again, for an exit that does not leave their contexts."""
    for bar in _live:
        bar.stop()
