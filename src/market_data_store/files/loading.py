"""Loads a file by its plan: sends its rows through the store, and follows their results to the last one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
import psycopg

from market_data_store.app import app
from market_data_store.config import settings
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import MarketDataStoreError
from market_data_store.files.planned import Plan
from market_data_store.files.positions import Marks, Position, note
from market_data_store.files.rejects import Group, Places, Rejects
from market_data_store.files.rows import Made, made_rows
from market_data_store.postgres.connection import connect, first_line
from market_data_store.producer.client import StoreClient
from market_data_store.producer.lanes import Lane, queue_of
from market_data_store.producer.occurrences import Occurrences
from market_data_store.producer.tables import frame_of, numbered
from market_data_store.protocol import Counts
from market_data_store.wire.fields import names_of
from market_data_store.wire.hashes import OCCURRENCE

#: A load fails when nothing has been stored for this long: probably no worker is running.
_STALL_TIMEOUT_S = 60.0
#: If the load is ended, it waits this long for the outcome of rows that it has sent.
_LAST_LOOK_S = 1.0
#: How often results are collected while rows are being sent.
_FOLLOW_INTERVAL_S = 0.1
#: Rows that are on their way at most: they are kept in memory until their results are there.
_MOST_PENDING = 120_000


@dataclass(frozen=True, slots=True)
class Summary:
    """What has become of a file's rows so far."""

    sent: int = 0
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    #: Why rows were rejected; known at the end.
    rejects: list[Group] = field(default_factory=list)
    #: Whether it stopped early, as there were more rejects than `--max-errors`.
    is_cut: bool = False
    #: Why file and line could not be written into the letters.
    unlocated: str = ""
    #: Rows that an interrupted run has sent, and those of them that became dead letters.
    skipped: int = 0
    earlier_rejects: int = 0

    @property
    def stored(self) -> int:
        """Rows that Postgres holds as they are in the file."""
        return self.counts.written + self.counts.unchanged

    @property
    def settled(self) -> int:
        """Rows whose outcome is known."""
        return self.counts.rows

    @property
    def rejected(self) -> int:
        """Rows that became dead letters, those of an interrupted run included."""
        return self.counts.rejected + self.earlier_rejects

    @property
    def stale(self) -> int:
        """Rows that are not stored, because rows that count as sent later are."""
        return self.counts.stale

    @property
    def rate(self) -> float:
        """Rows per second, from the first row read to the last outcome."""
        return self.settled / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load has come."""

    summary: Summary
    #: Rows of the file.
    expected_rows: float
    #: Messages waiting in the load's lane.
    depth: int


class Recording(Protocol):
    """The run in `job_runs` that records a load."""

    id: int | None

    def __call__(self, counts: Counts) -> None:
        """Take the counts so far."""


@dataclass(frozen=True, slots=True)
class Session:
    """The servers that answer, and the run that is recorded: what the files of one load share."""

    connection: psycopg.Connection[Any]
    client: StoreClient
    inspector: QueueInspector
    record: Recording
    #: Where its rows wait.
    queue: str

    def note(self, position: Position | None) -> None:
        """Record how far the load has come; None when it has come to its end."""
        if self.record.id is not None:
            with suppress(psycopg.Error):  # it is only sent again then
                note(self.connection, self.record.id, position)


@contextmanager
def session(recording: AbstractContextManager[Recording], lane: Lane) -> Iterator[Session]:
    """Connect to the servers, to send rows by a lane; `recording` is entered once they answer.

    Raises `BrokerUnavailable` and `DatabaseUnavailable`.
    """
    queue = queue_of(lane)
    with ExitStack() as stack:
        connection = stack.enter_context(connect(settings().require_database_url()))
        client = stack.enter_context(StoreClient(lane=lane, confirm=True, check=False))
        inspector = stack.enter_context(closing(QueueInspector(app, queue)))
        yield Session(connection, client, inspector, stack.enter_context(recording), queue)


def load_file(
    plan: Plan,
    session: Session,
    *,
    on_progress: Callable[[Progress], None],
    max_errors: int | None = None,
    position: Position = Position(),  # noqa: B008  # frozen
) -> Summary:
    """Send the rows of a plan from a position on, and follow their results to the last one.

    With `max_errors` no more rows are sent once the session has more rejects. Raises `InvalidMessage` for a file that
    has changed, `BrokerUnavailable`, `DatabaseUnavailable`, and `MarketDataStoreError` when nothing has been stored for
    60 s. If a KeyboardInterrupt ends it, `on_progress` is called once more, and the rows that were sent will be stored.
    """
    return _Load(plan, session, on_progress, max_errors, position).run()


class _Load:
    def __init__(
        self,
        plan: Plan,
        session: Session,
        on_progress: Callable[[Progress], None],
        max_errors: int | None,
        position: Position,
    ) -> None:
        self._plan, self._session = plan, session
        self._client, self._connection, self._inspector = session.client, session.connection, session.inspector
        self._on_progress, self._most, self._position = on_progress, max_errors, position
        self._started = self._last_change = time.monotonic()
        self._before: Counts | None = None
        #: What the client had sent and had results of before this file.
        self._sent_before, self._counts_before = self._client.sent, self._client.confirmed
        self._skipped = 0
        self._marks = Marks(dict(position.rows))
        self._places = Places()
        self._rejects = Rejects(plan.source, self._places)
        if position.rejects:
            self._rejects.restore(self._connection, position.rejects)
        self._dataset = plan.options.dataset.name
        self._occurrences = Occurrences() if names_of(plan.options.dataset).numbered else None

    def run(self) -> Summary:
        try:
            is_cut = self._send()
            self._client.flush()
            while not self._follow():
                time.sleep(0.02)
            return self._ended(is_cut)
        except KeyboardInterrupt:
            with suppress(MarketDataStoreError):
                self._client.flush()
                self._client.confirm(_LAST_LOOK_S)
                self._follow()
            raise

    def _send(self) -> bool:
        """Send the rows; returns whether it stopped early."""
        next_look = 0.0
        for made in made_rows(self._plan):
            self._write(made)
            while self._client.pending_rows > _MOST_PENDING:
                self._follow()
                time.sleep(0.01)
            if time.monotonic() > next_look:
                self._follow()
                next_look = time.monotonic() + _FOLLOW_INTERVAL_S
            if self._most is not None and self._client.confirmed.rejected > self._most:
                return True
        return False

    def _write(self, made: Made) -> None:
        if made.table is not None and self._occurrences is not None:  # counts those that are safe, too
            standard = {**made.constants, OCCURRENCE: 1}
            frame = numbered(self._plan.options.dataset, frame_of(made.table), standard, self._occurrences)
            made = replace(made, table=frame.table)
        rest = self._marks.rest(made)
        self._skipped += len(made.rows) - (0 if rest is None else len(rest.rows))
        if rest is None:
            return
        self._places.add(rest.rows)
        self._marks.add(rest)
        if rest.table is None:
            self._client.write(self._dataset, rest.bad, defaults=rest.constants, occurrences=self._occurrences)
        else:
            self._client.write_table(self._dataset, rest.table, defaults=rest.constants)

    def _summary(self) -> Summary:
        return Summary(
            self._client.sent - self._sent_before,
            self._client.confirmed - self._counts_before,
            time.monotonic() - self._started,
            skipped=self._skipped,
            earlier_rejects=self._rejects.earlier,
        )

    def _follow(self) -> bool:
        """Take in results; returns whether all are there. Raises `MarketDataStoreError` when none comes any more."""
        done = self._client.confirm()
        summary = self._summary()
        rejecting = self._client.rejecting.items()
        before = self._sent_before
        self._rejects.read(self._connection, {task: at - before for task, at in rejecting if at >= before})
        if self._marks.settle(self._client.safe - before):
            self._session.note(
                msgspec.structs.replace(self._position, rows=self._marks.rows, rejects=self._rejects.noted())
            )
        self._on_progress(Progress(summary, self._plan.rows - self._skipped, self._inspector.depth()))
        self._session.record(self._client.confirmed)
        now = time.monotonic()
        if summary.counts != self._before:
            self._before, self._last_change = summary.counts, now
        if not done and now - self._last_change > _STALL_TIMEOUT_S:
            raise MarketDataStoreError(
                f"nothing was stored for {_STALL_TIMEOUT_S:.0f} s; {summary.sent - summary.settled:,} rows are "
                f"waiting in {self._session.queue}. Check with `mds status` that a worker takes them"
            )
        return done

    def _ended(self, is_cut: bool) -> Summary:
        unlocated = ""
        try:
            groups = self._rejects.groups(self._connection, self._session.record.id)
        except psycopg.Error as error:  # a role that may not write into letters
            unlocated = first_line(error)
            groups = self._rejects.unlocated_groups()
        return replace(self._summary(), rejects=groups, is_cut=is_cut, unlocated=unlocated)
