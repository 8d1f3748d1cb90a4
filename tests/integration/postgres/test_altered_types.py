"""A column that its owner has given another type: the stored value is the one that was sent, or the reason names it."""

from __future__ import annotations

import pytest
from support.altered import SIZES, TYPES, prepare, problem_with
from support.databases import Connection

from market_data_store.datasets import DATASETS
from market_data_store.postgres.statements import types_of
from market_data_store.postgres.writer import Writer

#: A column of each kind.
COLUMNS = [
    ("bars", "symbol"),
    ("bars", "close"),
    ("bars", "trade_count"),
    ("bars", "final"),
    ("ticks", "seq"),
    ("ticks", "nanos"),
    ("ticks", "side"),
    ("ticks", "conditions"),
    ("ticks", "received_at"),
    ("options", "expiry"),
    ("options", "strike"),
    ("news", "ts"),
    ("news", "metadata"),
]
MOST_LIKELY = 10


@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_of_each_kind_a_column_of_ten_other_types_holds_what_was_sent_or_nothing(
    writer: Writer, database: Connection, name: str, column: str
) -> None:
    prepare(database)
    problems = [
        problem_with(writer, database, DATASETS[name], column, type_, count=size)
        for type_ in TYPES[:MOST_LIKELY]
        for size in SIZES
    ]
    assert list(filter(None, problems)) == []


@pytest.mark.soak
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", DATASETS)
def test_every_column_of_every_other_type_holds_what_was_sent_or_nothing(
    writer: Writer, database: Connection, name: str, size: int
) -> None:
    prepare(database)
    problems = [
        problem_with(writer, database, DATASETS[name], column, type_, count=size)
        for column in types_of(DATASETS[name])
        for type_ in TYPES
        if column != "enqueued_at"
    ]
    assert list(filter(None, problems)) == []
