"""What the commands share: one console, progress, and the display of times and foreign texts."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(highlight=False)


class _Unread(Console):
    """A console whose reader may go away: rich would end the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python fails to flush at its end


_server_console = _Unread(highlight=False)

PORT = click.IntRange(0, 65_535)

#: How often a line of progress is printed without a terminal.
_PLAIN_INTERVAL_S = 5.0


class NeedsYes(click.ClickException):
    """A command that deletes data was given neither a terminal to ask at nor --yes."""

    exit_code = 2


def confirm_deletion(what: str, *, yes: bool) -> None:
    """Ask whether to delete `what`, unless --yes was given; raises `NeedsYes` where there is no terminal to ask at."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise NeedsYes(f"this deletes {what}; give --yes to do that without being asked")
    click.confirm(f"This deletes {what}. Continue?", abort=True)


def moment(time: datetime) -> str:
    """Format a time to the second, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def printable(text: str) -> str:
    """Escape the control characters of a foreign text, which a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def at_hangup(handle: Callable[..., Any] | int | None) -> None:
    """Handle SIGHUP, which a terminal sends when it closes, unless the process was started with `nohup`."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handle)


def say(text: str, *, markup: bool = True) -> None:
    """Print a line; if nobody reads any more (the terminal or the pipe is closed), go on without."""
    try:
        _server_console.print(text, markup=markup, soft_wrap=True)
    except OSError:  # of a terminal that is gone
        pass


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
