"""Job runs in the table `job_runs`: what ran when, how far it came, how it ended, and whether it is still alive.

Names, keywords and return values are the predecessor's. Keywords that only market-data-pipeline uses are accepted too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.errors import UndefinedColumn, UndefinedTable
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from market_data_store.config import settings
from market_data_store.errors import DatabaseUnavailable, InvalidJobRun, MarketDataStoreError
from market_data_store.postgres.connection import connect, first_line

#: The statuses with which a run can end.
ENDS = ("success", "failure", "cancelled")
STATUSES = ("running", *ENDS)

#: A URL's user and password in the text of an error, up to the last @, because a password may contain one.
_CREDENTIALS = re.compile(r"(?<=://)\S*@")

_START = """
    INSERT INTO job_runs (job_name, dataset_name, provider, mode, config_fingerprint, pipeline_version, metadata)
    VALUES (%s, %s, %s, %s, %s, %s, %s || jsonb_build_object('last_heartbeat', now()))
    RETURNING id
"""
# The predecessor's readers find the heartbeat in metadata. Ours use updated_at, which other programs also set by SQL.
_PROGRESS = """
    UPDATE job_runs SET
        rows_written = rows_written + %(rows_written)s,
        rows_failed = rows_failed + %(rows_failed)s,
        symbols = coalesce(%(symbols)s::text[], symbols),
        min_ts = least(min_ts, %(min_ts)s::timestamptz),
        max_ts = greatest(max_ts, %(max_ts)s::timestamptz),
        metadata = metadata || %(metadata)s
            || CASE WHEN %(heartbeat)s THEN jsonb_build_object('last_heartbeat', now()) ELSE '{}' END,
        updated_at = now()
    WHERE id = %(id)s RETURNING id
"""
_COMPLETE = """
    UPDATE job_runs SET status = %(status)s, error_message = %(error)s, completed_at = now(), updated_at = now()
    WHERE id = %(id)s RETURNING id
"""
_RUNS = """
    SELECT * FROM job_runs
    WHERE (%(id)s::bigint IS NULL OR id = %(id)s)
        AND (%(job_name)s::text IS NULL OR job_name = %(job_name)s)
        AND (%(status)s::text IS NULL OR status = %(status)s)
        AND (%(silent)s::interval IS NULL OR status = 'running' AND updated_at < now() - %(silent)s::interval)
    ORDER BY started_at DESC, id DESC LIMIT %(limit)s
"""


class JobRunTracker:
    """Records job runs, and finds those that stopped without recording their end. Thread-safe.

    Each call is one committed statement over its own connection, so no connection stays open between calls. Runs are
    dicts with a key for each column of `job_runs`. Naive times are UTC. Raises `DatabaseUnavailable`, and
    `InvalidJobRun` for an unknown id or status.
    """

    def __init__(self, uri: str | None = None) -> None:
        self._uri = settings().require_database_url() if uri is None else uri

    def start_run(
        self,
        job_name: str,
        dataset_name: str | None = None,
        provider: str | None = None,
        mode: str = "live",
        config_fingerprint: str | None = None,
        pipeline_version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        profile: str | None = None,
    ) -> int:
        """Record that a job starts now, and return the run's id.

        By convention `mode` is live or backfill. `metadata` may hold anything that JSON can express; `profile` is kept
        in it.
        """
        kept = dict(metadata or {}) | _given(profile=profile)
        parameters = [job_name, dataset_name, provider, mode, config_fingerprint, pipeline_version, Jsonb(kept)]
        return int(self._execute(_START, parameters)[0]["id"])

    def update_progress(
        self,
        run_id: int,
        rows_written: int = 0,
        rows_failed: int = 0,
        symbols: Sequence[str] | None = None,
        min_ts: datetime | None = None,
        max_ts: datetime | None = None,
        heartbeat: bool = True,
        *,
        rows_processed: int | None = None,
        batches_processed: int | None = None,
        duration_seconds: float | None = None,
    ) -> None:
        """Record how far a run has come, and that it is alive.

        `rows_written` and `rows_failed` count rows since the last call. `rows_processed`, `batches_processed` and
        `duration_seconds` are totals, kept in `metadata`; a processed row need not be written. `symbols` replaces
        earlier symbols. `min_ts` and `max_ts` can only widen the span of time. Without `heartbeat`, `last_heartbeat` in
        `metadata` stays as it is.
        """
        totals = _given(
            rows_processed=rows_processed, batches_processed=batches_processed, duration_seconds=duration_seconds
        )
        parameters = {
            "rows_written": rows_written,
            "rows_failed": rows_failed,
            "symbols": None if symbols is None else list(symbols),
            "min_ts": _utc(min_ts),
            "max_ts": _utc(max_ts),
            "metadata": Jsonb(totals),
            "heartbeat": heartbeat,
        }
        self._change(_PROGRESS, run_id, parameters)

    def complete_run(
        self, run_id: int, status: str = "success", error_message: str | None = None, *, error: str | None = None
    ) -> None:
        """Record that a run ended with a status of `ENDS`.

        `error_message` and `error` are two names for the same text. It is kept as one line, without passwords.
        """
        reason = error_message if error_message is not None else error
        self._change(
            _COMPLETE,
            run_id,
            {"status": _known(status, ENDS), "error": None if reason is None else _one_line(reason)},
        )

    def get_run(self, run_id: int) -> dict[str, Any] | None:
        """Return the run with this id, or None."""
        return next(iter(self._runs(id=run_id)), None)

    def get_recent_runs(
        self, limit: int = 50, job_name: str | None = None, *, status: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the newest runs, newest first; optionally only those of a job, or with a status of `STATUSES`."""
        return self._runs(limit=limit, job_name=job_name, status=status and _known(status, STATUSES))

    def get_stuck_runs(
        self, heartbeat_timeout_minutes: float = 15, *, limit: int | None = None, job_name: str | None = None
    ) -> list[dict[str, Any]]:
        """Return runs, newest first, that have not ended and have not reported progress for this many minutes."""
        return self._runs(silent=timedelta(minutes=heartbeat_timeout_minutes), limit=limit, job_name=job_name)

    def _runs(self, **conditions: Any) -> list[dict[str, Any]]:
        every = dict.fromkeys(("id", "job_name", "status", "silent", "limit"))
        return self._execute(_RUNS, every | conditions)

    def _change(self, statement: str, run_id: int, parameters: Mapping[str, Any]) -> None:
        if not self._execute(statement, {**parameters, "id": run_id}):
            raise InvalidJobRun(f"run_id: {run_id!r} is not a job run; use what start_run returned (`mds jobs`)")

    def _execute(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            with connect(self._uri) as connection, connection.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(statement, parameters).fetchall()
        except (UndefinedTable, UndefinedColumn) as error:
            raise MarketDataStoreError(f"{first_line(error)}; run `mds migrate`") from error
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(f"Postgres: {first_line(error)}") from error
        except psycopg.Error as error:
            raise MarketDataStoreError(f"job_runs: {first_line(error)}") from error


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _known(status: str, statuses: Sequence[str]) -> str:
    if status not in statuses:
        raise InvalidJobRun(f"status: {status!r} is unknown; use one of {', '.join(statuses)}")
    return status


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return _CREDENTIALS.sub("***@", " ".join(printable.split()))
