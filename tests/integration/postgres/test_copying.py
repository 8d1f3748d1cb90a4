"""Every kind of column, with its extremes, through pgpq's blocks into a real Postgres and back."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts
from market_data_store.wire.arrow import frame_of, read_table
from market_data_store.wire.fields import Field, fields_of
from market_data_store.wire.rows import SentRows, read_rows

#: By Postgres type, values as JSON has them and as they are read back: the first, the last, and what is easily lost.
EXTREMES: dict[str, list[tuple[Any, Any]]] = {
    "text": [(text, text) for text in ("A", "É😀", "\x01\x7f\u2028", "a\\N\t\n\"'", "x" * 128)],
    "float8": [
        (value, value)
        for value in (0.1, -0.0, 5e-324, -(2.0**63), 2.0**63, sys.float_info.min, 1 / 3, 9007199254740993.0)
    ],
    "int8": [(value, value) for value in (0, 1, -1, 2**63 - 1, -(2**63))],
    "int4": [(value, value) for value in (0, 1, -1, 2**31 - 1, -(2**31))],
    "bool": [(True, True), (False, False)],
    "text[]": [
        ([], []),
        (["a", '"', "\\", "{,}", "NULL", "É😀"], ["a", '"', "\\", "{,}", "NULL", "É😀"]),
        (["x" * 1_000] * 50,) * 2,
    ],
    "timestamptz": [
        ("0001-01-01T00:00:00+00:00", datetime.min.replace(tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999+00:00", datetime.max.replace(tzinfo=UTC)),
        ("1999-12-31T23:59:59.999999+00:00", datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("1970-01-01T00:00:00+00:00", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2024-01-02T14:30:00.000001+00:00", datetime(2024, 1, 2, 14, 30, 0, 1, tzinfo=UTC)),
    ],
    "date": [(day.isoformat(), day) for day in (date.min, date.max, date(2000, 1, 1), date(1999, 12, 31))],
    "jsonb": [
        ({"a": [1, 2.5, None, True, {"ü": "\u2028😀\\"}]},) * 2,
        ({"": {}},) * 2,
        ({"big": 2**63 - 1},) * 2,
    ],
}
#: Arrow's types by which a table may send them.
SENT_AS = {
    "text": [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    "float8": [pa.float64()],
    "int8": [pa.int64()],
    "int4": [pa.int32(), pa.int64(), pa.uint16()],
    "bool": [pa.bool_()],
    "text[]": [pa.list_(pa.string()), pa.large_list(pa.large_string())],
    "timestamptz": [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.timestamp("us", "America/New_York")],
    "date": [pa.date32(), pa.string()],
}

#: Its extremes are of the years 1 and 9999.
pytestmark = pytest.mark.usefixtures("any_year")
every_dataset = pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True, options="-ctimezone=UTC") as connection:
        yield connection


def extremes(f: Field) -> list[tuple[Any, Any]]:
    if f.rule.letters:
        return [("C", "C"), ("put", "P")]
    found = EXTREMES[f.kind.copy_type]
    if f.rule.trimmed:
        found = [(sent, sent.strip("\u2028")) for sent, _ in found]
    if f.rule.within is not None:
        found = [(value, value) for value in f.rule.within]
    return found if f.required or f.rule.content_hash or f.rule.enqueued_at else [*found, (None, None)]


def rows_of(dataset: Dataset) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    """Rows in which each column takes all its extremes, as sent and as stored."""
    fields = fields_of(dataset)
    values = {f.name: extremes(f) for f in fields}
    keys = [f for f in fields if f.key]
    count = max(len(found) for found in values.values())
    sent, stored = [], []
    for n in range(count * len(keys)):
        # Each turn, another of the key columns varies, so that keys differ.
        chosen = {f.name: values[f.name][n % len(values[f.name])] for f in fields}
        chosen |= {f.name: values[f.name][n // count % len(values[f.name])] for f in keys[n // count :]}
        sent.append({name: value for name, (value, _) in chosen.items()})
        stored.append(tuple(value for _, value in chosen.values()))
    return sent, stored


def plain(rows: list[tuple[Any, ...]]) -> list[str]:
    """As texts, which tell -0.0 from 0.0, in any order."""
    return sorted({repr(row) for row in rows})


def write(writer: Writer, dataset: Dataset, rows: SentRows, at: int = 0) -> Counts:
    message = DecodedMessage(task_id="t", dataset=dataset, rows=rows, enqueued_at=at)
    (counts,) = writer.write(decoded(dataset, [message]), [message]).counts
    assert counts.rejected == 0
    return counts


def held(database: psycopg.Connection[Any], dataset: Dataset) -> list[tuple[Any, ...]]:
    columns = ", ".join(column.name for column in dataset.columns)
    return database.execute(f"SELECT {columns} FROM {dataset.table.name}").fetchall()


@every_dataset
def test_extremes_of_every_column_come_back_as_they_were_sent(
    dataset: Dataset, writer: Writer, database: psycopg.Connection[Any]
) -> None:
    sent, stored = rows_of(dataset)
    by_key = {row[: len(dataset.key)]: row for row in stored}
    assert write(writer, dataset, read_rows(dataset, json.dumps(sent).encode(), {})).written == len(by_key)
    assert plain(held(database, dataset)) == plain(list(by_key.values()))


@every_dataset
def test_so_they_do_through_the_stage(dataset: Dataset, writer: Writer, database: psycopg.Connection[Any]) -> None:
    sent, stored = rows_of(dataset)
    by_key = {row[: len(dataset.key)]: row for row in stored}
    write(writer, dataset, read_rows(dataset, json.dumps(sent[:1]).encode(), {}))
    counts = write(writer, dataset, read_rows(dataset, json.dumps(sent).encode(), {}), at=1)
    assert counts.rows == len(sent)
    assert plain(held(database, dataset)) == plain(list(by_key.values()))


@pytest.mark.parametrize("turn", range(4))
@every_dataset
def test_so_they_do_from_a_table_of_any_type(
    dataset: Dataset, turn: int, writer: Writer, database: psycopg.Connection[Any]
) -> None:
    sent, stored = rows_of(dataset)
    by_key = {row[: len(dataset.key)]: row for row in stored}
    columns = {}
    for place, f in enumerate(fields_of(dataset)):
        if f.kind.copy_type != "jsonb":
            types = SENT_AS[f.kind.copy_type]
            type_ = types[turn % len(types)]
            # Letters are what is sent, not what is stored.
            values = [row[f.name] for row in sent] if f.rule.letters else [row[place] for row in stored]
            if pa.types.is_string(type_):
                values = [value.isoformat() if isinstance(value, date) else value for value in values]
            encodes = pa.types.is_dictionary(type_)
            column = pa.array(values, pa.string() if encodes else type_)
            columns[f.name] = column.dictionary_encode() if encodes else column
    table = pa.table(columns)
    if dataset.values[-1] == "metadata":
        by_key = {key: (*row[:-1], None) for key, row in by_key.items()}
    assert write(writer, dataset, read_table(dataset, frame_of(table), {})).written == len(by_key)
    assert plain(held(database, dataset)) == plain(list(by_key.values()))


def test_the_stage_and_the_table_get_the_same_double(writer: Writer, database: psycopg.Connection[Any]) -> None:
    """-0.0 equals 0.0, so that a replay with the other sign changes nothing."""
    bars = DATASETS["bars"]
    bar = {
        "provider": "p",
        "symbol": "s",
        "interval": "1m",
        "ts": "2024-01-02",
        "open": 1,
        "high": 1,
        "low": 1,
        "close": -0.0,
    }
    assert write(writer, bars, read_rows(bars, json.dumps([bar]).encode(), {})) == Counts(written=1)
    assert write(writer, bars, read_rows(bars, json.dumps([bar | {"close": 0.0}]).encode(), {}), at=1) == Counts(
        unchanged=1
    )
    ((close,),) = database.execute("SELECT close FROM bars_ohlcv").fetchall()
    assert math.copysign(1, close) == -1
