"""Sends dead letters again, as they are or corrected, and waits until each is written or refused again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from market_data_store import dead_letters
from market_data_store.app import app
from market_data_store.cli.ending import Ended
from market_data_store.cli.letters import Chosen
from market_data_store.cli.terminal import console
from market_data_store.dead_letters import Letter
from market_data_store.dead_letters.replay import Change, messages

_POLL_INTERVAL_S = 0.2


@dataclass(slots=True)
class Outcome:
    """What has become of the letters."""

    sent: int = 0
    gone: int = 0
    refused: int = 0
    waiting: int = 0
    #: Messages that were replayed as a whole, and new letters for their rows.
    whole: int = 0
    new: int = 0
    #: Letters of which too little is kept, and those that could not be corrected.
    partial: int = 0
    uncorrected: int = 0

    @property
    def is_good(self) -> bool:
        """Whether no letter is left."""
        return not (self.waiting or self.refused or self.new or self.partial or self.uncorrected)


def replayed(
    connection: psycopg.Connection[Any], chosen: Chosen, timeout_s: float, change: Change | None = None
) -> Outcome:
    """Send letters, and wait at most `timeout_s` for what becomes of them."""
    outcome = Outcome()
    sent: list[int] = []
    whole: list[str] = []

    def changed(letter: Letter) -> Letter | None:
        assert change is not None  # noqa: S101
        found = change(letter)
        outcome.uncorrected += found is None
        return found

    with _progress() as progress:
        since = dead_letters.now(connection)
        bar = progress.add_task("sent", total=dead_letters.count(connection, **chosen.selection))
        try:
            for message in messages(app, connection, **chosen.selection, change=None if change is None else changed):
                sent += message.ids
                whole += [message.task_id] if message.whole else []
                progress.update(bar, completed=len(sent), total=max(len(sent), 1))
            bar = progress.add_task("settled", total=max(len(sent), 1))
            _wait(connection, sent, since, timeout_s, outcome, lambda done: progress.update(bar, completed=done))
        except Ended as end:
            gone = f"{len(sent):,} letters were sent, {outcome.gone:,} are gone"
            end.facts = f"{gone}; the others stay until they are written"
            raise
    outcome.whole, outcome.new = len(whole), len(dead_letters.reasons(connection, whole))
    outcome.partial = dead_letters.count(connection, **chosen.selection, only_partial=True)
    return outcome


def _wait(
    connection: psycopg.Connection[Any],
    sent: Sequence[int],
    since: datetime,
    timeout_s: float,
    outcome: Outcome,
    show: Any,
) -> None:
    outcome.sent = len(sent)
    deadline = time.monotonic() + timeout_s
    while True:
        outcome.waiting, outcome.refused = dead_letters.outcome(connection, sent, since)
        outcome.gone = len(sent) - outcome.waiting - outcome.refused
        show(len(sent) - outcome.waiting)
        if not outcome.waiting or time.monotonic() >= deadline:
            return
        time.sleep(_POLL_INTERVAL_S)


def show_outcome(outcome: Outcome, timeout_s: float) -> None:
    """Print what has become of the letters."""
    console.print(f"{outcome.sent:,} sent: {outcome.gone:,} gone, {outcome.refused:,} refused again")
    if outcome.new:
        console.print(f"{outcome.new:,} new letters for refused rows of {outcome.whole:,} whole messages")
    if outcome.waiting:
        pending = f"{outcome.waiting:,} still pending after {timeout_s:g} s"
        console.print(f"{pending}; they stay in the queue. Is a worker running?")
    if outcome.partial:
        left = f"{outcome.partial:,} cannot be replayed"
        console.print(f"{left}: of these only the reason, or the beginning of a message, is kept")
    if outcome.uncorrected:
        left = f"{outcome.uncorrected:,} were not sent"
        console.print(f"{left}: they hold no object with fields; correct them with `mds dead-letters export`")


def _progress() -> Progress:
    columns = (TextColumn("{task.description:<8}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
