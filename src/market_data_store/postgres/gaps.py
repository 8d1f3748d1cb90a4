"""Which rows of a batch have no partition to go to, found before anything is written.

What a worker knows of a dataset's partitions it has read from the catalogue, and it reads again only when a row lies
outside of that. A row too far from now, for which none is made (`datasets.spans`), becomes a dead letter. For the
others the partitions are asked for, and their messages wait; the other messages of the batch are written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.datasets.registry import span_of
from market_data_store.datasets.spans import DAYS_AHEAD, Span
from market_data_store.errors import PartitionsMissing, Reason
from market_data_store.postgres import partitions_wanted
from market_data_store.postgres.batch import Batch
from market_data_store.postgres.connection import first_line
from market_data_store.postgres.failures import is_the_servers
from market_data_store.postgres.partitions import has_default, is_partitioned, now, partitions_of, ranges_of
from market_data_store.wire.columns import MESSAGE

#: A monitor makes a partition within some 2 s; after so many, a worker says who should.
_OVERDUE_S = 10.0
#: In a line, so many partitions are named.
_MOST_NAMED = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The SQLSTATE of a row that no partition takes.
NO_PARTITION = "23514"


class Gaps:
    """What one connection knows of the partitions of each dataset."""

    def __init__(self) -> None:
        #: By dataset, the ranges of its partitions in order, in epoch microseconds; None for a plain table.
        self._known: dict[str, list[tuple[float, float]] | None] = {}

    def forget(self, dataset: str | None = None) -> None:
        """Read the partitions of this dataset, or of all, again: a write met one that is not there any more."""
        if dataset is None:
            self._known.clear()
        else:
            self._known.pop(dataset, None)

    def check(self, connection: psycopg.Connection[Any], batch: Batch) -> dict[int, Reason]:
        """Return why rows of the batch can never be written, by row; none for most batches.

        Raises `PartitionsMissing`, after asking for them, if others have no partition yet.
        """
        dataset, span = batch.dataset, span_of(batch.dataset)
        if span is None or not len(batch):
            return {}
        times = batch.columns(range(len(batch))).column("ts").cast(pa.int64())
        if not self._lacking(dataset.name, times):
            return {}
        if not is_partitioned(connection, dataset) or has_default(connection, dataset):
            self._known[dataset.name] = None
            return {}
        found = ranges_of(partitions_of(connection, dataset))
        self._known[dataset.name] = [(low * 1e6, high * 1e6) for low, high in found]
        days = self._lacking(dataset.name, times)
        return self._judged(connection, batch, span, times, days) if days else {}

    def _judged(
        self, connection: psycopg.Connection[Any], batch: Batch, span: Span, times: pa.Array, days: Sequence[int]
    ) -> dict[int, Reason]:
        moment = now(connection)
        earliest, latest = span.earliest(moment), span.latest(moment)
        moments = {day: _EPOCH + timedelta(microseconds=day) for day in days}
        near = {day: each for day, each in moments.items() if earliest <= each < latest}
        if near:
            rows = _rows_of(times, near)
            messages = pc.unique(batch.columns(rows).column(MESSAGE)).to_pylist()
            starts = sorted({span.start_of(each) for each in near.values()})
            reason = _asked(connection, batch.dataset.name, span, starts)
            raise PartitionsMissing(batch.dataset.name, NO_PARTITION, reason, frozenset(messages))
        far = _rows_of(times, moments)
        values = zip(far, times.take(pa.array(far, pa.int32())).to_pylist(), strict=True)
        return {row: _too_far(span, value, moment) for row, value in values}

    def _lacking(self, dataset: str, times: pa.Array) -> list[int]:
        """Return the starts of the days, in epoch microseconds, on which rows lack a partition, as far as is known."""
        if dataset not in self._known:
            return [0]
        ranges = self._known[dataset]
        if ranges is None:
            return []
        extremes = pc.min_max(times)
        if _covers(ranges, extremes["min"].as_py(), extremes["max"].as_py()):
            return []
        days = pc.unique(_days(times)).to_pylist()
        return [day for day in days if not _covers(ranges, day, day)]


def _covers(ranges: Sequence[tuple[float, float]], first: int, last: int) -> bool:
    """Whether one range has both times."""
    place = bisect_right(ranges, (float(first), float("inf"))) - 1
    return place >= 0 and last < ranges[place][1]


def _days(times: pa.Array) -> pa.Array:
    """Return the start of the day of each time; partitions begin at midnight."""
    return pc.floor_temporal(times.cast(pa.timestamp("us")), unit="day").cast(pa.int64())


def _rows_of(times: pa.Array, days: Iterable[int]) -> list[int]:
    mask = pc.is_in(_days(times), value_set=pa.array(list(days), pa.int64()))
    return [int(row) for row in pc.indices_nonzero(mask).to_pylist()]


def _asked(connection: psycopg.Connection[Any], dataset: str, span: Span, starts: Sequence[datetime]) -> str:
    """Ask for partitions; returns what is to be said of them."""
    names = [span.label(each) for each in starts[:_MOST_NAMED]]
    more = [f"{len(starts) - _MOST_NAMED} more"] if len(starts) > _MOST_NAMED else []
    what = f"no partition for {', '.join([*names, *more])}"
    try:
        asked = partitions_wanted.ask(connection, dataset, starts)
    except psycopg.Error as error:
        if connection.broken or is_the_servers(error):
            raise
        return f"{what}, and it cannot be asked for: {first_line(error)}; run `mds migrate` and `mds grants`"
    if asked[0].trouble:
        return f"{what}, and the monitor cannot make it: {asked[0].trouble}"
    if asked[0].age_s > _OVERDUE_S:
        return f"{what}, and no monitor has made it for {asked[0].age_s:.0f} s; run `mds monitor` with its DATABASE_URL"
    return f"{what}; the monitor makes it"


def _too_far(span: Span, microseconds: int, moment: datetime) -> Reason:
    ts = (_EPOCH + timedelta(microseconds=microseconds)).isoformat()
    if microseconds > moment.timestamp() * 1e6:
        return Reason.of("ts: {} is more than {days} days ahead: no partition is made for it", ts, days=DAYS_AHEAD)
    return Reason.of(
        "ts: {} is more than {years} years ago: no partition by {span} is made for it; use longer partitions",
        ts,
        years=span.years_back,
        span=span.value,
    )
