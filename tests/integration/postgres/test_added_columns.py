"""With `unknown = "add"`, a migration adds columns for what was seen, or says why it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from support.databases import Connection
from support.rows import BAR
from support.writing import select

from market_data_store import reads
from market_data_store.config import settings
from market_data_store.datasets import DATASETS
from market_data_store.postgres import schema
from market_data_store.postgres.added_columns import as_stored
from market_data_store.postgres.connection import connect
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.unknown_fields import add
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts
from market_data_store.wire.rows import read_rows
from market_data_store.wire.seen import Seen

ADDED = ("lots", "funding_rate", "legs", "note", "owned")


@pytest.fixture(autouse=True)
def adding(monkeypatch: pytest.MonkeyPatch, database: Connection) -> Iterator[None]:
    """The contract of bars; the columns are gone after the test."""
    monkeypatch.setenv("MDS_UNKNOWN", "bars=add")
    settings.cache_clear()
    DATASETS.forget()
    yield
    settings.cache_clear()
    DATASETS.forget()
    for name in ADDED:
        database.execute(f"ALTER TABLE bars_ohlcv DROP COLUMN IF EXISTS {name}")
    database.execute("TRUNCATE added_columns, unknown_fields")


def migrated(url: str) -> list[str]:
    lines: list[str] = []
    schema.upgrade(url, lines.append)
    return lines


def written(url: str, rows: list[dict[str, Any]], at: int) -> Counts:
    """Write rows as a worker does that knows the columns."""
    with connect(url) as connection:
        dataset = as_stored(connection, DATASETS["bars"])
    writer = Writer(url)
    try:
        sent = read_rows(dataset, json.dumps(rows).encode(), {})
        message = DecodedMessage(task_id=f"t{at}", dataset=dataset, rows=sent, enqueued_at=at)
        return writer.write(decoded(dataset, [message]), [message]).counts[0]
    finally:
        writer.close()


def test_what_was_seen_becomes_a_column_and_what_was_kept_stays(database: Connection, database_url: str) -> None:
    row = {**BAR, "lots": 7, "fundingRate": 0.5, "legs": ["a"]}
    assert written(database_url, [row], 0) == Counts(written=1)
    seen = {"lots": Seen(1, {"integer"}), "fundingRate": Seen(1, {"number"}), "legs": Seen(1, {"list of texts"})}
    add(database, {"bars": seen, "ticks": {"lots": Seen(1, {"integer"})}})
    lines = [
        "bars: add funding_rate (double) for 'fundingRate' in the table bars_ohlcv",
        "bars: add legs (text[]) in the table bars_ohlcv",
        "bars: add lots (bigint) in the table bars_ohlcv",
    ]
    assert schema.due_tables(database_url) == lines
    assert migrated(database_url) == lines
    assert migrated(database_url) == schema.due_tables(database_url) == []
    later = {**row, "ts": "2024-01-02T14:31:00Z"}
    other = {**row, "ts": "2024-01-02T14:32:00Z", "lots": "seven"}
    assert written(database_url, [later, other], 1) == Counts(written=2)
    query = "SELECT lots, funding_rate, legs, metadata FROM bars_ohlcv ORDER BY ts"
    assert select(database, query) == [
        (None, None, None, {"lots": 7, "fundingRate": 0.5, "legs": ["a"]}),
        (7, 0.5, ["a"], None),
        (None, 0.5, ["a"], {"lots": "seven"}),
    ]
    assert written(database_url, [row], 2) == Counts(written=1)  # sent again, it gets its columns
    assert written(database_url, [row, later, other], 3) == Counts(unchanged=3)
    assert select(database, query)[0] == (7, 0.5, ["a"], None)
    found = reads.table("bars", database=database_url)
    assert found.schema.field("lots").type == pa.int64()
    assert found.column("funding_rate").to_pylist() == [0.5] * 3


def test_what_makes_no_column_is_said_and_stays_in_metadata(database: Connection, database_url: str) -> None:
    database.execute("ALTER TABLE bars_ohlcv ADD COLUMN owned integer")
    mixed = {
        "price_or_none": Seen(2, {"number", "text"}),
        "huge": Seen(1, {"number beyond 64 bits"}),
        "owned": Seen(1, {"integer"}),
        "é": Seen(1, {"text"}),
        "*": Seen(9),
        "note": Seen(1, {"text", "integer"}),
    }
    add(database, {"bars": mixed})
    lines = migrated(database_url)
    assert lines[0] == "bars: add note (text) in the table bars_ohlcv"
    assert sorted(lines[1:]) == [
        "bars: 'huge' stays in metadata: no column holds number beyond 64 bits; send one kind, or declare it",
        "bars: 'owned' stays in metadata: its name cannot be that of a new column; declare one with it as an alias",
        "bars: 'price_or_none' stays in metadata: no column holds number and text; send one kind, or declare it",
        "bars: 'é' stays in metadata: its name cannot be that of a new column; declare one with it as an alias",
    ]
    assert schema.due_tables(database_url) == []


def test_a_column_that_its_owner_has_dropped_is_not_missed_and_comes_back(
    database: Connection, database_url: str
) -> None:
    add(database, {"bars": {"lots": Seen(1, {"integer"})}})
    migrated(database_url)
    database.execute("ALTER TABLE bars_ohlcv DROP COLUMN lots")
    assert written(database_url, [{**BAR, "lots": 7}], 0) == Counts(written=1)
    assert select(database, "SELECT metadata FROM bars_ohlcv") == [({"lots": 7},)]
    assert migrated(database_url) == ["bars: add lots (bigint) in the table bars_ohlcv"]
    assert written(database_url, [{**BAR, "lots": 7}], 1) == Counts(written=1)
    assert select(database, "SELECT lots, metadata FROM bars_ohlcv") == [(7, None)]
