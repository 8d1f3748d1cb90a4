"""The spans of partitions: every time is in exactly one, and there are not too many of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.own_datasets import FUNDING, datasets

from market_data_store.datasets.registry import span_of
from market_data_store.datasets.spans import Span
from market_data_store.postgres.declared_tables import creation
from market_data_store.postgres.partitioning import gaps, name_of, starts_ahead
from market_data_store.postgres.partitions import Partition

TIMES = st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))


@given(TIMES, st.sampled_from(Span))
def test_a_time_is_in_its_span_and_not_in_the_next(time: datetime, span: Span) -> None:
    start = span.start_of(time)
    end = span.after(start)
    assert start <= time < end
    assert span.start_of(end) == end
    assert span.start_of(end - timedelta(microseconds=1)) == start


@pytest.mark.parametrize("span", Span)
def test_the_bounds_allow_some_thousand_partitions(span: Span) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    start, count = span.start_of(span.earliest(now)), 0
    while start < span.latest(now):
        start, count = span.after(start), count + 1
    assert count < 4_100
    assert [*starts_ahead(span, now)][-1] < span.latest(now)


def test_names_of_long_tables_stay_apart() -> None:
    long = [datasets(FUNDING.replace("funding_rates", "a" * 60 + end))["funding"] for end in ("b", "c")]
    names = [name_of(each, "2016_03_07") for each in long]
    assert len({*names}) == 2
    assert all(len(name) <= 63 for name in names)


def test_gaps_are_what_no_partition_covers() -> None:
    def at(day: int) -> datetime:
        return datetime(2024, 1, day, tzinfo=UTC)

    def part(first: int | None, last: int | None, *, is_leaving: bool = False) -> Partition:
        return Partition("p", first and at(first), last and at(last), None, 0, is_leaving)  # type: ignore[arg-type]

    assert [*gaps([], at(1), at(9))] == [(at(1), at(9))]
    assert [*gaps([part(None, 3), part(5, 7)], at(1), at(9))] == [(at(3), at(5)), (at(7), at(9))]
    assert [*gaps([part(1, 9)], at(2), at(9))] == []
    assert [*gaps([part(1, 9, is_leaving=True)], at(2), at(9))] == [(at(2), at(9))]
    assert [*gaps([part(4, None)], at(2), at(9))] == [(at(2), at(4))]


def test_a_declaration_asks_for_partitions() -> None:
    text = FUNDING.replace('table = "funding_rates"', 'table = "funding_rates"\npartition = "week"')
    dataset = datasets(text)["funding"]
    assert span_of(dataset) is Span.WEEK
    assert creation(dataset).statement.as_string(None).endswith("PARTITION BY RANGE (ts)")
    assert creation(dataset).what == "create the table funding_rates, partitioned by week"
