"""The service of the upkeep that makes partitions: those that rows wait for within seconds, and some ahead of time.

It has a thread, a connection and a lease of its own: a retention that takes minutes does not delay it. Only datasets
that are to have partitions are looked at, and without any it does not run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import psycopg

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.datasets.spans import Span
from market_data_store.errors import DatabaseUnavailable, DatasetUnavailable
from market_data_store.logs.repeated import Repeated
from market_data_store.postgres import partitioning, partitions_wanted, transactions
from market_data_store.postgres.connection import connect, first_line
from market_data_store.postgres.leases import Lease
from market_data_store.postgres.partitions import is_partitioned, now

logger = logging.getLogger(__name__)

#: Seconds between two looks at what workers ask for, and between two looks at what is to be made ahead.
_TURN_S = 1.0
_AHEAD_S = 300.0
#: How long the end of the process waits for what is under way.
_END_S = 5.0
_LEASE = "partitions"
_NOT_PERMITTED = "{}; give the monitor ADMIN_DATABASE_URL, with the role that owns the tables"
_NOT_CONVERTED = "{table} is a plain table; run `mds partitions convert {name}`"
_NOT_ASKED = "{name} is in neither MDS_PARTITIONS nor a declaration of this monitor; give it the workers' settings"


class Partitions:
    """Makes the partitions of these datasets, in a thread of its own."""

    def __init__(self, url: str, spans: Mapping[str, Span]) -> None:
        self._url = url
        self._spans = spans
        self._lease = Lease(_LEASE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="partitions", daemon=True)
        self._connection: psycopg.Connection[Any] | None = None
        self._ahead_at = float("-inf")
        self._outage = Repeated(logger)
        #: By dataset.
        self._troubles: defaultdict[str, Repeated] = defaultdict(lambda: Repeated(logger))

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is under way, and let another monitor lead at once."""
        self._stop.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
                self._outage.over("Partitions are made again", level=logging.INFO)
            except (psycopg.Error, DatabaseUnavailable) as error:
                self._close()
                self._outage.happened(f"No partitions are made: {_said(error)}", kind=_said(error))
            except Exception as error:  # the edge of a thread: the monitor goes on
                self._close()
                self._outage.happened(f"No partitions are made: {type(error).__name__}", kind=type(error).__name__)
                logger.debug("Partitions failed", exc_info=True)
            self._stop.wait(_TURN_S)
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._lease.release(self._connection)
        self._close()

    def _turn(self) -> None:
        if self._connection is None:
            self._connection = connect(self._url)
        connection = self._connection
        if not self._lease.held(connection):
            return
        self._make_wanted(connection)
        if time.monotonic() - self._ahead_at >= _AHEAD_S:
            self._ahead_at = time.monotonic()
            moment = now(connection)
            for name, span in self._spans.items():
                self._try(
                    connection, name, lambda name=name, span=span: self._make_ahead(connection, name, span, moment)
                )

    def _make_wanted(self, connection: psycopg.Connection[Any]) -> None:
        by_dataset: dict[str, list[datetime]] = {}
        for each in partitions_wanted.wanted(connection):
            by_dataset.setdefault(each.dataset, []).append(each.starts)
        for name, starts in by_dataset.items():
            if name in self._spans:
                self._try(connection, name, lambda name=name, starts=starts: self._make(connection, name, starts))
            else:
                self._failed(connection, name, _NOT_ASKED.format(name=name))

    def _make(self, connection: psycopg.Connection[Any], name: str, starts: list[datetime]) -> None:
        dataset, span = _partitioned(connection, name), self._spans[name]
        moment = now(connection)
        earliest, latest = span.start_of(span.earliest(moment)), span.latest(moment)
        for start in sorted({span.start_of(each) for each in starts if earliest <= each < latest}):
            self._lease.held(connection)
            made = partitioning.make(connection, dataset, span, start)
            if made:
                logger.info("%s: made the partition %s, which rows wait for", name, ", ".join(made))
        partitions_wanted.settle(connection, name, starts)

    def _make_ahead(self, connection: psycopg.Connection[Any], name: str, span: Span, moment: datetime) -> None:
        made = partitioning.make_ahead(connection, _partitioned(connection, name), span, moment)
        if made:
            logger.info("%s: made ahead %s", name, ", ".join(made))

    def _try(self, connection: psycopg.Connection[Any], name: str, make: Any) -> None:
        """Make a dataset's partitions; what goes wrong is said, and told to the workers that wait for them."""
        try:
            make()
        except psycopg.errors.LockNotAvailable:  # it is tried again at the next turn
            self._ahead_at = float("-inf")
            logger.debug("%s: a lock was not granted", name)
        except psycopg.errors.InsufficientPrivilege as error:
            self._failed(connection, name, _NOT_PERMITTED.format(first_line(error)))
        except (psycopg.Error, DatasetUnavailable) as error:
            if connection.broken:
                raise
            self._failed(connection, name, error.reason if isinstance(error, DatasetUnavailable) else first_line(error))
        else:
            self._troubles[name].over(f"{name}: partitions are made again", level=logging.INFO)

    def _failed(self, connection: psycopg.Connection[Any], name: str, trouble: str) -> None:
        self._troubles[name].happened(f"{name}: no partitions are made: {trouble}", kind=trouble)
        partitions_wanted.fail(connection, name, trouble)

    def _close(self) -> None:
        if self._connection is not None:
            transactions.close(self._connection)
            self._connection = None


@contextmanager
def made(url: str, wanted: Mapping[str, Span]) -> Iterator[None]:
    """Make partitions during the block, if any dataset is to have some."""
    if not wanted:
        yield
        return
    service = Partitions(url, wanted)
    service.start()
    try:
        yield
    finally:
        service.stop()


def _partitioned(connection: psycopg.Connection[Any], name: str) -> Dataset:
    """Return the dataset; raises `DatasetUnavailable` if its table is not partitioned."""
    dataset = DATASETS[name]
    if not is_partitioned(connection, dataset):
        why = partitioning.refusal(connection, dataset) or _NOT_CONVERTED.format(table=dataset.table.name, name=name)
        raise DatasetUnavailable(name, None, why)
    return dataset


def _said(error: psycopg.Error | DatabaseUnavailable) -> str:
    if isinstance(error, psycopg.errors.UndefinedTable):
        return "a migration is due; run `mds migrate`"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"{first_line(error)}; run `mds grants` again, or give the monitor ADMIN_DATABASE_URL"
    return first_line(error) if isinstance(error, psycopg.Error) else str(error)
