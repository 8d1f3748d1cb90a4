"""What all commands share: one console, progress, and how a moment or a foreign text is shown."""

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

#: Without a terminal, a line of progress is printed this often.
_PLAIN_INTERVAL_S = 5.0


def moment(time: datetime) -> str:
    """A time to the second, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def printable(text: str) -> str:
    """A foreign text with its control characters escaped, which a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ShowProgress(Protocol):
    """What `progress` yields."""

    def __call__(self, completed: float, total: float, *facts: str) -> None:
        """Show rows done, rows expected in all, and facts beside the bar."""


@contextmanager
def progress(console: Console = console) -> Iterator[ShowProgress]:
    """Yield what shows the progress: a live bar in a terminal, a line now and then elsewhere.

    It may be called as often as one likes.
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
