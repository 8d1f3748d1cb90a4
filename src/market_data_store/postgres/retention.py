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

from market_data_store.errors import ConfigurationError
from market_data_store.postgres import aging
from market_data_store.postgres.aging import Guard


@dataclass(frozen=True, slots=True)
class Expired:
    """What was deleted from one dataset, or would be: rows of a plain table, whole chunks of a hypertable."""

    dataset: str
    older_than: datetime
    rows: int | None = None
    chunks: int | None = None

    @property
    def number(self) -> int | None:
        """The number of rows or chunks; None if there are too many to count."""
        return self.rows if self.chunks is None else self.chunks

    def __add__(self, other: Expired) -> Expired:
        """Return what both have deleted of the same dataset."""
        return replace(self, rows=_sum(self.rows, other.rows), chunks=_sum(self.chunks, other.chunks))

    def __str__(self) -> str:
        """Return such as `1,234 rows of ticks`."""
        what, number = ("chunk", self.chunks) if self.chunks is not None else ("row", self.rows)
        if number is None:
            return f"too many rows of {self.dataset} to count"
        return f"{number:,} {what}{'' if number == 1 else 's'} of {self.dataset}"


def limits_of(days: Mapping[str, int]) -> dict[str, datetime]:
    """Return the times before which rows are too old now; raises `ConfigurationError` for an unknown dataset."""
    for name in days:
        if name not in aging.names():
            raise ConfigurationError(
                f"MDS_RETENTION_DAYS: {name!r} is not a dataset; use one of {', '.join(aging.names())}"
            )
    now = datetime.now(UTC)
    return {name: now - timedelta(days=number) for name, number in days.items()}


def count(connection: psycopg.Connection[Any], name: str, older_than: datetime, *, timeout_s: float = 0.0) -> Expired:
    """Count what is older than a time in a dataset, the letters or the job runs.

    With a timeout, a number that cannot be found in time is None. Raises `DatasetUnavailable` for a table whose `ts` is
    no longer a time with a zone.
    """
    try:
        if aging.has_chunks(connection, name):
            return Expired(name, older_than, chunks=aging.old_chunks(connection, name, older_than, timeout_s))
        return Expired(name, older_than, rows=aging.old_rows(connection, name, older_than, timeout_s))
    except psycopg.errors.QueryCanceled:
        if not timeout_s:
            raise
        return Expired(name, older_than)


def delete(
    connection: psycopg.Connection[Any], name: str, older_than: datetime, guard: Guard = lambda: None
) -> Iterator[Expired]:
    """Delete what is older; yields what each transaction has deleted. Raises what `count` raises.

    `guard` is called in each transaction before something is deleted; what it raises ends the work.
    """
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
) -> list[Expired]:
    """Delete the rows whose `ts` is older than their dataset's `days`, and older letters; a dry run only counts them.

    `limits` are the times of an earlier dry run, by dataset, so that what was counted then is deleted now.

    Rows are deleted in batches, each in a transaction of its own. Raises `ConfigurationError` for an unknown dataset
    before anything is deleted, and `DatasetUnavailable` for a table whose `ts` is no longer a time with a zone.
    """
    until = {name: min(limits.get(name, limit), limit) for name, limit in limits_of(days).items()}
    if dry_run:
        return [count(connection, name, limit) for name, limit in until.items()]
    return [total(name, limit, delete(connection, name, limit)) for name, limit in until.items()]


def total(name: str, older_than: datetime, parts: Iterable[Expired]) -> Expired:
    """Add up what the transactions of one dataset have deleted."""
    found = sum(parts, start=Expired(name, older_than))
    return found if found.number is not None else replace(found, rows=0)


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other + (one or 0)
