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

from market_data_store.config import Settings
from market_data_store.datasets.registry import spans
from market_data_store.errors import DatabaseUnavailable
from market_data_store.metrics.definitions import UPKEEP_LEADS, set_retention_gauges
from market_data_store.postgres import transactions, upkeep_runs
from market_data_store.postgres.connection import connect, first_line
from market_data_store.postgres.leases import Lease, LeaseLost
from market_data_store.postgres.leaving import Archive
from market_data_store.postgres.room import Room
from market_data_store.postgres.upkeep_runs import Run
from market_data_store.upkeep import partitions
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

    def __init__(self, url: str, service: Retention, room: Room, interval_s: float) -> None:
        self._url = url
        self._room = room
        self._service = service
        self._interval_s = interval_s
        self._lease = Lease(_LEASE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._connection: psycopg.Connection[Any] | None = None
        self._leads = False
        self._trouble = ""

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
            except Exception as error:  # the edge of a thread: the monitor goes on
                if self._trouble != (trouble := type(error).__name__):
                    logger.exception("Upkeep failed, and tries again")
                self._trouble = trouble
                self._close()
            self._stop.wait(_TURN_S)
        self._end()

    def _turn(self) -> None:
        if self._connection is None:
            self._connection = connect(self._url)
        connection = self._connection
        self._look(connection)
        leads = self._lease.held(connection)
        if self._trouble:
            logger.info("Upkeep goes on")
            self._trouble = ""
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
        """See whether there is room, and say it when that changes; in every monitor, as each computes the level."""
        was_full = self._room.is_full
        if self._room.look(connection) != was_full:
            said = (
                "has room again" if was_full else "is nearly full, so that producers are told to wait (database_full)"
            )
            logger.warning("The database %s", said)

    def _lead(self, *, leads: bool) -> None:
        if leads and not self._leads:
            logger.info("This monitor leads the upkeep of the database")
        self._leads = leads
        UPKEEP_LEADS.set(leads)

    def _wait_for_database(self, error: psycopg.Error | DatabaseUnavailable) -> None:
        """Say once what is the matter, and once if it is something else."""
        self._close()
        trouble = _remedied(error)
        if trouble != self._trouble:
            logger.warning("Upkeep waits: %s", trouble)
        self._trouble = trouble

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


def _say(run: Run) -> None:
    if run.days:
        logger.log(logging.WARNING if run.errors else logging.INFO, "Retention: %s", run.said)


@contextmanager
def running(settings: Settings, room: Room, archive: Archive | None = None) -> Iterator[None]:
    """Run the upkeep during the block, as the settings say, and look at `room`; with `archive`, archive before a drop.

    Without a database, say once that there is none.
    """
    url = settings.admin_database_url or settings.database_url
    if not url:
        logger.info("No upkeep: DATABASE_URL is not set for this monitor")
        yield
        return
    service = Retention(settings.retention_days, automatic=settings.retention_auto, archive=archive)
    upkeep = Upkeep(url, service, room, settings.upkeep_interval_s)
    upkeep.start()
    try:
        with partitions.made(url, spans()):
            yield
    finally:
        upkeep.stop()
