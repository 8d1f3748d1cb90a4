"""A file's rows through the store, with progress and the reason of each reject for the one who looks on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import psycopg
from rich.console import Console

from market_data_store import dead_letters
from market_data_store.app import app
from market_data_store.config import settings
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import MarketDataStoreError
from market_data_store.files import RowFile
from market_data_store.postgres.connection import connect
from market_data_store.producer.client import StoreClient
from market_data_store.progress import progress
from market_data_store.protocol import QUEUE, Counts
from market_data_store.recording import recorded

#: With nothing stored for so long, one is asked whether a worker runs at all.
_STALL_TIMEOUT_S = 60.0
#: Results are looked for this often.
_FOLLOW_INTERVAL_S = 0.1
#: Rows are handed to the client by so many.
_ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a file's rows so far."""

    sent: int
    counts: Counts
    seconds: float

    @property
    def stored(self) -> int:
        """Rows that Postgres holds, or holds newer."""
        return self.counts.written + self.counts.unchanged + self.counts.stale

    @property
    def rejected(self) -> int:
        """Rows that became dead letters."""
        return self.counts.rejected

    @property
    def rate(self) -> float:
        """Rows a second, from the first one read to the last one stored."""
        return (self.stored + self.rejected) / max(self.seconds, 1e-9)

    def show(self, source: RowFile, console: Console) -> None:
        """Print it."""
        counts = self.counts
        console.print(f"{source.path.name}: {self.seconds:.2f} s, {self.rate:,.0f} rows/s", markup=False)
        console.print(f"rows sent     {self.sent:,}")
        details = f"{counts.written:,} written, {counts.unchanged:,} unchanged, {counts.stale:,} stale"
        console.print(f"rows stored   {self.stored:,} ({details})")
        console.print(f"dead letters  {self.rejected:,}")


def load_file(source: RowFile, defaults: Mapping[str, Any], console: Console, *, job_name: str = "mds load") -> Summary:
    """Send a file's rows and follow their results to the last one; recorded as a run in `job_runs`.

    Raises `InvalidMessage` for an unusable file, `BrokerUnavailable`, `DatabaseUnavailable`, and `MarketDataStoreError`
    when nothing is stored any more.
    """
    started = last_change = time.monotonic()
    with ExitStack() as stack:
        connection = stack.enter_context(connect(settings().require_database_url()))
        client = stack.enter_context(StoreClient(defaults=defaults, confirm=True, check=False))
        show = stack.enter_context(progress(console))
        name_rejects = _Rejects(client, connection, console)
        inspector = stack.enter_context(closing(QueueInspector(app, QUEUE)))
        run = recorded(job_name, source.dataset.name, defaults.get("provider"), {"file": source.path.name}, console)
        record = stack.enter_context(run)

        def follow() -> tuple[bool, Summary]:
            done = client.confirm()
            summary = Summary(client.sent, client.confirmed, time.monotonic() - started)
            name_rejects()
            # Rows in all: as many as the file's bytes so far let expect.
            share = source.position / source.size if source.position else 1.0
            show(
                summary.stored + summary.rejected,
                summary.sent / share,
                f"sent {summary.sent:,}",
                f"stored {summary.stored:,}",
                f"{summary.rate:,.0f} rows/s",
                f"depth {inspector.depth():,}",
            )
            record(summary.counts)
            return done, summary

        next_look = 0.0
        for rows in _chunks(source.rows()):
            client.write(source.dataset.name, rows)
            if time.monotonic() > next_look:
                follow()
                next_look = time.monotonic() + _FOLLOW_INTERVAL_S
        client.flush()
        before = None
        while True:
            done, summary = follow()
            if done:
                return summary
            if summary.counts != before:
                before, last_change = summary.counts, time.monotonic()
            if time.monotonic() - last_change > _STALL_TIMEOUT_S:
                waiting = summary.sent - summary.stored - summary.rejected
                raise MarketDataStoreError(
                    f"nothing was stored for {_STALL_TIMEOUT_S:.0f} s; {waiting:,} rows wait in the queue. "
                    "Is a worker running? (`mds status`)"
                )
            time.sleep(0.02)


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    rows = iter(rows)
    while chunk := list(islice(rows, _ROWS_AT_ONCE)):
        yield chunk


class _Rejects:
    """Prints each reject once: the row's number in the file, counting from 1, and the reason."""

    def __init__(self, client: StoreClient, connection: psycopg.Connection[Any], console: Console) -> None:
        self._client, self._connection, self._console = client, connection, console
        self._named: set[str] = set()

    def __call__(self) -> None:
        due = [task for task in self._client.rejecting if task not in self._named]
        self._named.update(due)
        for task, position, reason in dead_letters.reasons(self._connection, due) if due else ():
            row = self._client.rejecting[task] + position + 1
            self._console.print(f"row {row:,}: {reason}", markup=False, soft_wrap=True)
