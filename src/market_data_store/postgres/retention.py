"""Retention: what is older than MDS_RETENTION_DAYS, dataset by dataset: counted, or deleted.

`upkeep` runs it on a schedule; `mds retention` and `POST /retention/apply` on request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import psycopg

from market_data_store.datasets import DATASETS
from market_data_store.datasets.registry import span_of
from market_data_store.errors import ArchiveFailed, ConfigurationError
from market_data_store.postgres import aging
from market_data_store.postgres.aging import Guard
from market_data_store.postgres.leaving import Archive, drop_old, is_old
from market_data_store.postgres.partitions import Partition, is_partitioned, partitions_of


@dataclass(frozen=True, slots=True)
class Expired:
    """What was deleted from one dataset, or would be: rows of a plain table, whole chunks of a hypertable.

    Of a partitioned table it is whole partitions, and rows of the one that is only partly too old.
    """

    dataset: str
    older_than: datetime
    rows: int | None = None
    chunks: int | None = None
    partitions: int | None = None

    @property
    def number(self) -> int | None:
        """The number of rows, chunks or partitions; None if there are too many rows to count, and nothing else."""
        return self.rows if self.chunks is None and self.partitions is None else _sum(self.wholes, self.rows)

    @property
    def wholes(self) -> int | None:
        """The number of chunks or partitions; None of a plain table."""
        return self.partitions if self.chunks is None else self.chunks

    def __add__(self, other: Expired) -> Expired:
        """Return what both have deleted of the same dataset."""
        return replace(
            self,
            rows=_sum(self.rows, other.rows),
            chunks=_sum(self.chunks, other.chunks),
            partitions=_sum(self.partitions, other.partitions),
        )

    def __str__(self) -> str:
        """Return such as `1,234 rows of ticks`, or `2 partitions and 5 rows of ticks`."""
        counted = {"chunk": self.chunks, "partition": self.partitions, "row": self.rows}
        some = {what: number for what, number in counted.items() if number is not None}
        if not some:
            return f"too many rows of {self.dataset} to count"
        shown = {what: number for what, number in some.items() if number} or dict([next(iter(some.items()))])
        parts = (f"{number:,} {what}{'' if number == 1 else 's'}" for what, number in shown.items())
        return f"{' and '.join(parts)} of {self.dataset}"


def limits_of(days: Mapping[str, int]) -> dict[str, datetime]:
    """Return the times before which rows are too old now; raises `ConfigurationError` for an unknown dataset."""
    for name in days:
        if name not in aging.names():
            raise ConfigurationError(
                f"MDS_RETENTION_DAYS: {name!r} is not a dataset; use one of {', '.join(aging.names())}"
            )
    now = datetime.now(UTC)
    return {name: now - timedelta(days=number) for name, number in days.items()}


def count(
    connection: psycopg.Connection[Any],
    name: str,
    older_than: datetime,
    *,
    timeout_s: float = 0.0,
    archives: bool = False,
) -> Expired:
    """Count what is older than a time in a dataset, the letters or the job runs.

    With a timeout, a number that cannot be found in time is None. What `archives` goes as whole partitions only. Raises
    `DatasetUnavailable` for a table whose `ts` is no longer a time with a zone.
    """
    try:
        if aging.has_chunks(connection, name):
            return Expired(name, older_than, chunks=aging.old_chunks(connection, name, older_than, timeout_s))
        if _is_partitioned(connection, name):
            return _counted(connection, name, older_than, timeout_s, archives)
        return Expired(name, older_than, rows=aging.old_rows(connection, name, older_than, timeout_s))
    except psycopg.errors.QueryCanceled:
        if not timeout_s:
            raise
        return Expired(name, older_than)


def delete(
    connection: psycopg.Connection[Any],
    name: str,
    older_than: datetime,
    guard: Guard = lambda: None,
    archive: Archive | None = None,
) -> Iterator[Expired]:
    """Delete what is older; yields what each transaction has deleted. Raises what `count` raises, and `ArchiveFailed`.

    `guard` is called in each transaction before something is deleted; what it raises ends the work. With `archive`,
    the rows of a dataset go as whole partitions only, each after it was archived; a dataset without is refused.
    """
    if _is_partitioned(connection, name):
        yield from _dropped(connection, name, older_than, guard, archive)
        return
    if archive is not None and name in DATASETS:
        what = "MDS_ARCHIVE_DIR is set, and only partitions are archived"
        raise ArchiveFailed(f"{what}; give {name} partitions (MDS_PARTITIONS={name}=month), or unset MDS_ARCHIVE_DIR")
    if aging.has_chunks(connection, name):
        yield Expired(name, older_than, chunks=aging.drop_chunks(connection, name, older_than, guard))
        return
    for rows in aging.delete(connection, name, older_than, guard):
        yield Expired(name, older_than, rows=rows)


def apply(
    connection: psycopg.Connection[Any],
    days: Mapping[str, int],
    *,
    limits: Mapping[str, datetime] = MappingProxyType({}),
    dry_run: bool = False,
    archive: Archive | None = None,
) -> list[Expired]:
    """Delete the rows whose `ts` is older than their dataset's `days`, and older letters; a dry run only counts them.

    `limits` are the times of an earlier dry run, by dataset, so that what was counted then is deleted now.

    Rows are deleted in batches, each in a transaction of its own. Raises `ConfigurationError` for an unknown dataset
    before anything is deleted, and `DatasetUnavailable` for a table whose `ts` is no longer a time with a zone.
    """
    until = {name: min(limits.get(name, limit), limit) for name, limit in limits_of(days).items()}
    if dry_run:
        archives = archive is not None
        return [count(connection, name, limit, archives=archives) for name, limit in until.items()]
    return [total(name, limit, delete(connection, name, limit, archive=archive)) for name, limit in until.items()]


def _is_partitioned(connection: psycopg.Connection[Any], name: str) -> bool:
    """Whether it has partitions that it was asked to have: those that an owner has made by himself stay his."""
    dataset = DATASETS.get(name)
    return dataset is not None and span_of(dataset) is not None and is_partitioned(connection, dataset)


def _counted(
    connection: psycopg.Connection[Any], name: str, older_than: datetime, timeout_s: float, archives: bool
) -> Expired:
    partitions = partitions_of(connection, DATASETS[name])
    found = Expired(name, older_than, partitions=sum(is_old(each, older_than) for each in partitions))
    for each in [] if archives else _partly_old(partitions, older_than):
        try:
            rows = aging.old_rows(connection, name, older_than, timeout_s, part=each.name)
        except psycopg.errors.QueryCanceled:
            if not timeout_s:
                raise
            return found
        found += Expired(name, older_than, rows=rows)
    return found


def _dropped(
    connection: psycopg.Connection[Any], name: str, older_than: datetime, guard: Guard, archive: Archive | None
) -> Iterator[Expired]:
    for _ in drop_old(connection, DATASETS[name], older_than, guard, archive):
        yield Expired(name, older_than, partitions=1)
    if archive is not None:  # the rest goes when all of its partition is old
        return
    for each in _partly_old(partitions_of(connection, DATASETS[name]), older_than):
        for rows in aging.delete(connection, name, older_than, guard, part=each.name):
            yield Expired(name, older_than, rows=rows)


def _partly_old(partitions: Iterable[Partition], limit: datetime) -> list[Partition]:
    """Return those that have rows that are older, and are not dropped as a whole."""
    return [
        each
        for each in partitions
        if not is_old(each, limit) and not each.is_leaving and (each.starts is None or each.starts < limit)
    ]


def total(name: str, older_than: datetime, parts: Iterable[Expired]) -> Expired:
    """Add up what the transactions of one dataset have deleted."""
    found = sum(parts, start=Expired(name, older_than))
    return found if found.number is not None else replace(found, rows=0)


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other + (one or 0)
