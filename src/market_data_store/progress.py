"""How far a long command is: a live bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

#: Without a terminal, a line of progress comes this often.
_PLAIN_INTERVAL_S = 5.0


class Show(Protocol):
    """What `progress` yields."""

    def __call__(self, completed: float, total: float, *facts: str) -> None:
        """Say where it stands: rows done, rows expected in all, and the facts beside the bar."""


@contextmanager
def progress(console: Console) -> Iterator[Show]:
    """Yield what shows the progress; it may be called as often as one likes."""
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
