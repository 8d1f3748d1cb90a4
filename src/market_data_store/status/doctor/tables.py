"""Checks of the datasets' tables: whether they can take their rows, and what was seen that they have no place for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from market_data_store.datasets import DATASETS
from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres import found, partitions_wanted, timescale, unknown_fields
from market_data_store.postgres.partitioned_tables import due_partitions
from market_data_store.postgres.schema import revisions_of
from market_data_store.postgres.server import bounded
from market_data_store.status.doctor.finding import Finding, error, ok, skipped, warning
from market_data_store.wire.seen import OTHERS

_FAMILY = "database"
#: Unknown fields that were seen within this time are told; at most so many are named.
_RECENT = timedelta(days=1)
_MOST_NAMED = 3
#: A monitor makes a partition within some 2 s.
_OVERDUE_S = 10.0


def fitting(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say which tables cannot take the rows of their datasets."""
    check = f"{_FAMILY}.tables"
    if revisions_of(connection).current is None:
        yield skipped(check, "the schema is not there yet")
        return
    unfit = [finding for name in DATASETS if (finding := _table(check, connection, name)) is not None]
    yield from unfit or [ok(check, f"the tables of {len(DATASETS)} datasets can take their rows")]


def _table(check: str, connection: psycopg.Connection[Any], name: str) -> Finding | None:
    table = DATASETS[name].table.name
    mend = f"mend the table {table} (docs/deploy.md, Tables of your own making); its rows wait until then"
    try:
        with bounded(connection):
            found.look(connection, DATASETS[name])
            if unfilled := found.unfilled(connection, DATASETS[name]):
                named = ", ".join(f"{table}.{column}" for column in unfilled)
                return error(check, f"{name}: {named} is NOT NULL and nothing fills it", f"give it a default; {mend}")
    except DatasetUnavailable as unfit:
        return error(check, f"{name}: {unfit.reason}", mend)
    except psycopg.errors.UndefinedTable:
        return error(check, f"{name}: the table {table} is missing", "restore it from a backup, or create it again")
    return None


def partitions(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say which tables are not partitioned as asked for, and which partitions rows wait for."""
    check = f"{_FAMILY}.partitions"
    if not revisions_of(connection).up_to_date:
        yield skipped(check, "a migration is due")  # database.migrations says so
        return
    with bounded(connection):
        due = [*due_partitions(connection)]
        wanted = [each for each in partitions_wanted.wanted(connection) if each.trouble or each.age_s > _OVERDUE_S]
    wrong = [warning(check, line, "run the command, or ask for no partitions of it") for line in due]
    wrong += [
        error(
            check,
            f"{each.dataset}: rows wait for the partition from {each.starts:%Y-%m-%d}: "
            f"{each.trouble or 'no monitor has made it'}",
            "let `mds monitor` have ADMIN_DATABASE_URL, with the role that owns the tables",
        )
        for each in wanted
    ]
    yield from wrong or [ok(check, "no partition is missing")]


def timescaledb(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say what is wrong with hypertables, their compression and their jobs."""
    check = f"{_FAMILY}.timescaledb"
    version = timescale.installed(connection)
    if version is None:
        yield ok(check, "TimescaleDB is not installed; the tables are plain ones")
        return
    tables = {dataset.table.name: dataset for dataset in DATASETS.values()}
    with bounded(connection):
        hypertables = {each.name: each for each in timescale.hypertables(connection, [*tables])}
        jobs = timescale.jobs(connection, [*tables])
    wrong = [
        warning(check, f"{name} is a plain table although TimescaleDB is installed", "see docs/scale.md, TimescaleDB")
        for name in tables
        if name not in hypertables
    ]
    for name, each in hypertables.items():
        key = [column for column in tables[name].key if column != "ts"]
        if each.is_compressed and not set(each.segmented_by) & set(key):
            wrong.append(
                warning(
                    check,
                    f"chunks of {name} are compressed without a column of its key in compress_segmentby: each late row "
                    "decompresses much",
                    f"ALTER TABLE {name} SET (timescaledb.compress_segmentby = '{', '.join(key)}')",
                )
            )
    wrong += [
        warning(check, f"{job.name} of {job.table} has failed", "see timescaledb_information.job_errors")
        for job in jobs
        if job.has_failed
    ]
    yield from wrong or [ok(check, f"TimescaleDB {version}; {len(hypertables)} hypertables, {len(jobs)} jobs")]


def unknown(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say which fields came within a day that their datasets do not know."""
    check = f"{_FAMILY}.unknown"
    try:
        with bounded(connection):
            seen = unknown_fields.listed(connection)
    except psycopg.errors.UndefinedTable:
        yield skipped(check, "a migration is due")
        return
    since = datetime.now(UTC) - _RECENT
    names = [f"{each.dataset}.{each.name}" for each in seen if each.last_at > since and each.name != OTHERS]
    if not names:
        yield ok(check, "no field came within a day that its dataset does not know")
        return
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    yield warning(
        check,
        f"fields came within a day that their datasets do not know: {', '.join(names[:_MOST_NAMED])}{more}",
        "see `mds datasets unknown`: a misspelt name is mended at its producer; docs/own-datasets.md has the others",
    )
