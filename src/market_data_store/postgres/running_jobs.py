"""The job runs that have not ended, with how far they are, for the status page."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

#: The most runs that are returned.
_MOST = 50
#: Minutes without a sign of life after which a run counts as stuck, as `mds jobs --stuck` has it.
_SILENT_MINUTES = 15
#: Other programs may keep anything in their metadata.
_RUNNING = f"""
    SELECT id, job_name, dataset_name, extract(epoch FROM started_at)::float8,
        CASE WHEN metadata ->> 'rows_processed' ~ '^[0-9]{{1,15}}$' THEN (metadata ->> 'rows_processed')::bigint
             ELSE rows_written + rows_failed END,
        CASE WHEN metadata ->> 'rows_total' ~ '^[0-9]{{1,15}}$' THEN (metadata ->> 'rows_total')::bigint END,
        CASE WHEN updated_at < now() - interval '{_SILENT_MINUTES} minutes' THEN 'stuck' ELSE 'running' END
    FROM job_runs WHERE status = 'running' ORDER BY started_at DESC, id DESC LIMIT {_MOST}
"""  # noqa: S608  # two numbers


class RunningJob(NamedTuple):
    """A run that has not ended."""

    id: int
    name: str
    dataset: str | None
    #: In seconds since 1970.
    started_ts: float
    #: Rows that were looked at; those of other programs that were written or have failed.
    rows: int
    #: How many there will be; None if the program has not said it (`rows_total` in the metadata).
    total: int | None
    #: `running`, or `stuck` without a sign of life for 15 minutes.
    state: str


def running_jobs(connection: psycopg.Connection[Any]) -> list[RunningJob]:
    """Return the runs that have not ended, newest first, 50 at most."""
    return [RunningJob(*row) for row in connection.execute(_RUNNING).fetchall()]
