"""The service of the upkeep that deletes what is too old, or only counts it unless MDS_RETENTION_AUTO is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg

from market_data_store.errors import ArchiveFailed, DatabaseUnavailable
from market_data_store.metrics.definitions import count_expired, start_retention_at_zero
from market_data_store.postgres import retention
from market_data_store.postgres.connection import first_line
from market_data_store.postgres.leaving import Archive
from market_data_store.postgres.retention import Expired
from market_data_store.postgres.upkeep_runs import Run

#: Seconds after which the counting of one dataset is given up: nobody waits for the number, and others use the server.
_COUNT_S = 10.0
#: What a role may not do that does not own the table.
_NOT_PERMITTED = "{}; give the monitor ADMIN_DATABASE_URL, or the rights that `mds grants` prints"


class Retention:
    """Deletes rows, letters and job runs by MDS_RETENTION_DAYS."""

    def __init__(self, days: Mapping[str, int], *, automatic: bool, archive: Archive | None = None) -> None:
        self._days = days
        self._archive = archive
        self._automatic = automatic
        start_retention_at_zero(days)

    def is_due(self, last: Run | None, interval_s: float, retry_s: float) -> bool:
        """Whether it is time for a run: after the interval, sooner after an error, at once with other settings."""
        if last is None or not last.is_of(automatic=self._automatic, days=self._days):
            return True
        return last.age_s >= (min(retry_s, interval_s) if last.errors else interval_s)

    def run(self, connection: psycopg.Connection[Any], started_at: datetime, guard: Callable[[], None]) -> Run:
        """Go through the datasets; one that fails is named in the run, and the others are done.

        `guard` is called before each dataset, and in each transaction that deletes; what it raises ends the run. Raises
        psycopg's error if the connection is lost.
        """
        run = Run(started_at, self._automatic, dict(self._days))
        for name, older_than in retention.limits_of(self._days).items():
            guard()
            try:
                found = self._expire(connection, name, older_than, guard)
            except psycopg.errors.InsufficientPrivilege as error:
                run = _failed(run, name, _NOT_PERMITTED.format(first_line(error)))
            except (psycopg.Error, DatabaseUnavailable, ArchiveFailed) as error:
                if connection.broken:
                    raise
                run = _failed(run, name, first_line(error) if isinstance(error, psycopg.Error) else str(error))
            else:
                run = replace(run, found=[*run.found, found])
        return run

    def _expire(
        self, connection: psycopg.Connection[Any], name: str, older_than: datetime, guard: Callable[[], None]
    ) -> Expired:
        if not self._automatic:
            archives = self._archive is not None
            return retention.count(connection, name, older_than, timeout_s=_COUNT_S, archives=archives)

        def counted(part: Expired) -> Expired:
            unit = "chunks" if part.chunks is not None else "rows" if part.partitions is None else "partitions"
            count_expired(name, unit, part.number or 0)
            return part

        parts = retention.delete(connection, name, older_than, guard, self._archive)
        return retention.total(name, older_than, map(counted, parts))


def _failed(run: Run, name: str, reason: str) -> Run:
    return replace(run, errors={**run.errors, name: reason})
