"""Runs the services of the upkeep on a schedule, in the monitor that has the lease.

Every monitor with a database asks for the lease. The one that gets it runs what is due; when it dies, another one takes
over after at most `leases.LEASE_S`. A run that loses the lease ends at its next transaction. What could not be reached
is said once, and tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from market_data_store.causes import Cause
from market_data_store.config import Settings
from market_data_store.coordinator.clock_offsets import ahead_s
from market_data_store.coordinator.clock_watch import ClockWatch
from market_data_store.errors import DatabaseUnavailable
from market_data_store.logs.repeated import Repeated
from market_data_store.metrics.definitions import UPKEEP_LEADS, set_retention_gauges, set_room_gauges
from market_data_store.postgres import transactions, upkeep_runs
from market_data_store.postgres.connection import connect, first_line
from market_data_store.postgres.leases import Lease, LeaseLost
from market_data_store.postgres.room import Room
from market_data_store.postgres.server import state_of
from market_data_store.postgres.upkeep_runs import Run
from market_data_store.upkeep.retention import Retention

logger = logging.getLogger(__name__)

#: Seconds between two looks at the lease; several fit into one lease.
_TURN_S = 4.0
#: Seconds after which a run that failed somewhere is tried again, if the interval is longer.
_RETRY_S = 300.0
#: How long the end of the process waits for the transaction that is under way.
_END_S = 5.0
_LEASE = "upkeep"


class _Stopped(Exception):
    """The process ends."""


class Upkeep:
    """The upkeep of one monitor, in a thread of its own."""

    def __init__(self, url: str, service: Retention, room: Room, clocks: ClockWatch, interval_s: float) -> None:
        self._url = url
        self._room = room
        self._clocks = clocks
        self._service = service
        self._interval_s = interval_s
        self._lease = Lease(_LEASE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._connection: psycopg.Connection[Any] | None = None
        self._leads = False
        self._trouble, self._full = Repeated(logger), Repeated(logger)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End after the transaction that is under way, and let another monitor lead at once."""
        self._stop.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        UPKEEP_LEADS.set(0)
        while not self._stop.is_set():
            try:
                self._turn()
            except _Stopped:
                break
            except LeaseLost as error:
                logger.info("Upkeep: %s", error)
                self._lead(leads=False)
            except (psycopg.Error, DatabaseUnavailable) as error:
                self._lead(leads=False)
                self._wait_for_database(error)
            except Exception as error:  # noqa: BLE001  # the edge of a thread: the monitor goes on
                self._trouble.happened("Upkeep failed, and tries again", kind=type(error).__name__, error=error)
                self._close()
            self._stop.wait(_TURN_S)
        self._end()

    def _turn(self) -> None:
        if self._connection is None:
            self._connection = connect(self._url)
        connection = self._connection
        self._look(connection)
        leads = self._lease.held(connection)
        self._trouble.over("Upkeep goes on")
        self._lead(leads=leads)
        if not leads:
            return
        last = upkeep_runs.last(connection, upkeep_runs.RETENTION)
        if self._service.is_due(last, self._interval_s, _RETRY_S):
            run = self._service.run(connection, upkeep_runs.now(connection), self._keep)
            upkeep_runs.record(connection, upkeep_runs.RETENTION, self._lease.holder, run)
            _say(run)
            last = upkeep_runs.last(connection, upkeep_runs.RETENTION)
        if last is not None and last.ended_at is not None:
            set_retention_gauges(last.ended_at.timestamp(), len(last.errors))

    def _keep(self) -> None:
        if self._stop.is_set():
            raise _Stopped
        assert self._connection is not None  # noqa: S101  # for mypy: `_turn` has opened it
        self._look(self._connection)
        self._lease.keep(self._connection)

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        """See whether it takes writes, and has room, and whether its clock is right; in every monitor."""
        is_read_only = False

        def ask() -> float:
            nonlocal is_read_only
            clock, is_read_only = state_of(connection)
            return clock

        self._clocks.see_postgres(ahead_s(ask))
        is_full = self._room.look(connection)
        set_room_gauges(is_writable=not is_read_only, is_full=is_full)
        if is_full:
            text = "The database is nearly full, so that producers are told to wait (database_full)"
            self._full.happened(text, cause=Cause.DATABASE_FULL)
        else:
            self._full.over("The database has room again")

    def _lead(self, *, leads: bool) -> None:
        if leads and not self._leads:
            logger.info("This monitor leads the upkeep of the database")
        self._leads = leads
        UPKEEP_LEADS.set(leads)

    def _wait_for_database(self, error: psycopg.Error | DatabaseUnavailable) -> None:
        """Say what is the matter."""
        self._close()
        self._clocks.see_postgres(None)
        trouble = _remedied(error)
        self._trouble.happened(f"Upkeep waits: {trouble}", cause=_cause(error))

    def _end(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._lease.release(self._connection)
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            transactions.close(self._connection)
            self._connection = None


def _remedied(error: psycopg.Error | DatabaseUnavailable) -> str:
    if isinstance(error, psycopg.errors.UndefinedTable):
        return "a migration is due; run `mds migrate`"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"{first_line(error)}; run `mds grants` again, or give the monitor ADMIN_DATABASE_URL"
    return first_line(error) if isinstance(error, psycopg.Error) else str(error)


def _cause(error: psycopg.Error | DatabaseUnavailable) -> Cause | None:
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return Cause.DATABASE_READ_ONLY
    if isinstance(error, psycopg.errors.UndefinedTable):
        return Cause.MIGRATION_DUE
    return Cause.DATABASE_DOWN if isinstance(error, DatabaseUnavailable | psycopg.OperationalError) else None


def _say(run: Run) -> None:
    if run.days:
        logger.log(logging.WARNING if run.errors else logging.INFO, "Retention: %s", run.said)


@contextmanager
def running(settings: Settings, room: Room, clocks: ClockWatch) -> Iterator[None]:
    """Run the upkeep during the block, as the settings say, and look at `room` and at Postgres's clock.

    Without a database, say once that there is none.
    """
    url = settings.admin_database_url or settings.database_url
    if not url:
        logger.info("No upkeep: DATABASE_URL is not set for this monitor")
        yield
        return
    service = Retention(settings.retention_days, automatic=settings.retention_auto)
    upkeep = Upkeep(url, service, room, clocks, settings.upkeep_interval_s)
    upkeep.start()
    try:
        yield
    finally:
        upkeep.stop()
