"""What the commands share: one console, progress, and the display of times and foreign texts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(highlight=False)

PORT = click.IntRange(0, 65_535)

#: How often a line of progress is printed without a terminal.
_PLAIN_INTERVAL_S = 5.0


def moment(time: datetime) -> str:
    """Format a time to the second, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def printable(text: str) -> str:
    """Escape the control characters of a foreign text, which a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ShowProgress(Protocol):
    """The function that `progress` yields."""

    def __call__(self, completed: float, total: float, *facts: str) -> None:
        """Show the rows done, the total of rows expected, and facts beside the bar."""


@contextmanager
def progress(console: Console = console) -> Iterator[ShowProgress]:
    """Yield a function that shows progress: as a live bar in a terminal, elsewhere as a line every few seconds.

    You may call it as often as you like.
    """
    if not console.is_terminal:
        last = time.monotonic()

        def say(completed: float, total: float, *facts: str) -> None:
            nonlocal last
            if time.monotonic() - last > _PLAIN_INTERVAL_S:
                last = time.monotonic()
                console.print(", ".join(facts))

        yield say
        return

    def show(completed: float, total: float, *facts: str) -> None:
        bar.update(task, total=max(total, completed, 1), completed=completed, text="  ".join(facts))

    columns = (BarColumn(bar_width=12), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None, text="")
        yield show
