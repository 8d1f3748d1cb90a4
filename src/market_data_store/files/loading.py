"""Loads a file: sends its rows through the store, and follows their results to the last one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from typing import Any

import psycopg

from market_data_store import dead_letters
from market_data_store.app import app
from market_data_store.config import settings
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import MarketDataStoreError
from market_data_store.files.chunks import chunks
from market_data_store.files.reader import RowFile
from market_data_store.postgres.connection import connect
from market_data_store.producer.client import StoreClient
from market_data_store.producer.occurrences import Occurrences
from market_data_store.protocol import QUEUE, Counts
from market_data_store.wire.fields import names_of

#: A load fails when nothing has been stored for this long: probably no worker is running.
_STALL_TIMEOUT_S = 60.0
#: How often results are collected while rows are being sent.
_FOLLOW_INTERVAL_S = 0.1
#: Rows per call of `StoreClient.write`.
_ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Summary:
    """What has become of a file's rows so far."""

    sent: int
    counts: Counts
    seconds: float

    @property
    def stored(self) -> int:
        """Rows that Postgres holds, in this or in a newer version, or that another row of the file replaced."""
        return self.counts.rows - self.counts.rejected

    @property
    def rejected(self) -> int:
        """Rows that became dead letters."""
        return self.counts.rejected

    @property
    def rate(self) -> float:
        """Rows per second, from the first row read to the last row stored."""
        return (self.stored + self.rejected) / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load has come."""

    summary: Summary
    #: Estimated total of rows, from the rows in the bytes read so far.
    expected_rows: float
    #: Messages waiting in the queue.
    depth: int


def load_file(
    source: RowFile,
    defaults: Mapping[str, Any],
    *,
    recording: AbstractContextManager[Callable[[Counts], None]],
    on_progress: Callable[[Progress], None],
    on_reject: Callable[[int, str], None],
) -> Summary:
    """Send a file's rows and follow their results to the last one.

    `recording` is entered once the servers answer; it yields a function that takes the counts so far. `on_reject` is
    called with the row's number in the file, counted from 1, and the reason. Raises `InvalidMessage` for an unusable
    file, `BrokerUnavailable`, `DatabaseUnavailable`, and `MarketDataStoreError` when nothing has been stored for 60 s.
    """
    started = last_change = time.monotonic()
    with ExitStack() as stack:
        connection = stack.enter_context(connect(settings().require_database_url()))
        client = stack.enter_context(StoreClient(defaults=defaults, confirm=True, check=False))
        name_rejects = _Rejects(client, connection, on_reject)
        inspector = stack.enter_context(closing(QueueInspector(app, QUEUE)))
        record = stack.enter_context(recording)

        def follow() -> tuple[bool, Summary]:
            done = client.confirm()
            summary = Summary(client.sent, client.confirmed, time.monotonic() - started)
            name_rejects()
            share = source.position / source.size if source.position else 1.0
            on_progress(Progress(summary, summary.sent / share, inspector.depth()))
            record(summary.counts)
            return done, summary

        next_look = 0.0
        occurrences = Occurrences() if names_of(source.dataset).numbered else None
        for rows in chunks(source.rows(), _ROWS_AT_ONCE):
            client.write(source.dataset.name, rows, occurrences=occurrences)
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
                    f"nothing was stored for {_STALL_TIMEOUT_S:.0f} s; {waiting:,} rows are waiting in the queue. "
                    "Check with `mds status` that a worker is running"
                )
            time.sleep(0.02)


class _Rejects:
    """Reports each reject once."""

    def __init__(
        self, client: StoreClient, connection: psycopg.Connection[Any], on_reject: Callable[[int, str], None]
    ) -> None:
        self._client, self._connection, self._on_reject = client, connection, on_reject
        self._named: set[str] = set()

    def __call__(self) -> None:
        due = [task for task in self._client.rejecting if task not in self._named]
        self._named.update(due)
        for task, position, reason in dead_letters.reasons(self._connection, due) if due else ():
            self._on_reject(self._client.rejecting[task] + position + 1, reason)
