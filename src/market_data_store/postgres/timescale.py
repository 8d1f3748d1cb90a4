"""What TimescaleDB does with the datasets' tables, where it is installed: hypertables, compression, its own jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

_INSTALLED = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
_TABLES = """
    SELECT hypertable_name::text, compression_enabled, ARRAY(
        SELECT attname::text FROM timescaledb_information.compression_settings AS settings
        WHERE settings.hypertable_name = tables.hypertable_name AND segmentby_column_index IS NOT NULL
    )
    FROM timescaledb_information.hypertables AS tables WHERE hypertable_name::text = ANY (%s)
"""
_JOBS = """
    SELECT hypertable_name::text, proc_name::text, last_run_status = 'Failed'
    FROM timescaledb_information.jobs LEFT JOIN timescaledb_information.job_stats USING (job_id, hypertable_name)
    WHERE hypertable_name::text = ANY (%s) ORDER BY 1, 2
"""


class Hypertable(NamedTuple):
    """A table that TimescaleDB keeps in chunks."""

    name: str
    is_compressed: bool
    #: The columns of `compress_segmentby`.
    segmented_by: Sequence[str]


class Job(NamedTuple):
    """Work that TimescaleDB does with a table by itself, such as `policy_retention`."""

    table: str
    name: str
    #: None before its first run.
    has_failed: bool | None


def installed(connection: psycopg.Connection[Any]) -> str | None:
    """Return TimescaleDB's version in this database; None if it is not installed."""
    found = connection.execute(_INSTALLED).fetchall()
    return found[0][0] if found else None


def hypertables(connection: psycopg.Connection[Any], tables: Sequence[str]) -> list[Hypertable]:
    """Return those of these tables that are hypertables."""
    return [Hypertable(*row) for row in connection.execute(_TABLES, [list(tables)]).fetchall()]


def jobs(connection: psycopg.Connection[Any], tables: Sequence[str]) -> list[Job]:
    """Return the jobs of these tables."""
    return [Job(*row) for row in connection.execute(_JOBS, [list(tables)]).fetchall()]
