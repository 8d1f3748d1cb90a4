"""What version 0.4 stored is recognised when it is sent again: unchanged, or updated in its new columns."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.databases import Connection, new_database
from support.decoding import decode_rows
from support.rows import QUOTE, TICK
from support.version_0_4_0 import Version040
from support.writing import Row, message, select, write

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.postgres import schema
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts
from market_data_store.wire.arrow import frame_of, read_table

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
)
TIMES = st.none() | st.sampled_from(["2024-01-02T14:30:00.5Z", "2024-01-02T14:30:00", 1_704_205_800, 1_704_205_800.25])
CODES = st.none() | st.sampled_from(["buy", "B ", 7, 2**40, "007"])
IDS = st.none() | st.sampled_from([1, "17", "abc", "007", 2**62])
NUMBERS = st.none() | st.sampled_from([1, 2.5, "3.5", 0, -0.0, 1e10])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(["side", "taker_side", "venue", "exchange", "market", "ex", "id", "tid"], CODES),
    **dict.fromkeys(["received_at", "receipt_timestamp", "local_timestamp", "ts_recv"], TIMES),
    **dict.fromkeys(["seq", "sequence", "trade_id"], IDS),
    **dict.fromkeys(["size", "qty", "bid", "ask", "bid_price", "last", "volume"], NUMBERS),
    "conditions": st.none() | st.lists(CODES.filter(lambda code: code is not None), max_size=2) | st.just("@ T"),
    "nanos": st.none() | st.integers(0, 999),
    "metadata": st.none() | st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2),
    "#occurrence": st.none() | st.integers(2, 9),
    "x": VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(st.text("ab", max_size=2), VALUES, max_size=2),
    "é": VALUES,
}


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(COMPLETE)))
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True, max_size=6))
    row = st.fixed_dictionaries({}, optional={field: FIELDS[field] for field in names})
    rows = [{**COMPLETE[name], **extra} for extra in draw(st.lists(row, min_size=1, max_size=3))]
    defaults = draw(st.sampled_from([{}, {"venue": "X", "bid": 4}, {"side": "buy", "foo": 1}]))
    return {"dataset": name, "rows": rows, "defaults": defaults, "enqueued_at": 0}


COMPLETE = {"ticks": TICK, "quotes": QUOTE}
NAMES = {"ticks": "tick_data", "quotes": "quotes"}
#: What 0.4 stored of a row.
THEN = {
    "ticks": "provider, symbol, ts, seq, price, size, bid, ask",
    "quotes": "provider, symbol, ts, seq, bid, ask, last, bid_size, ask_size, volume",
}


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def rows_of(name: str, *, plain: bool) -> list[Row]:
    """Rows of different content, of which some have ids; beside the columns of then, unless they are plain."""
    pick = random.Random(7)  # noqa: S311
    rows = []
    for number in range(400):
        row: Row = {"provider": "p", "symbol": f"S{number % 7}", "ts": f"2024-01-02T14:30:{number // 8:02}.5Z"}
        row |= {"price": number / 4} if name == "ticks" else {"bid": number / 4, "ask": number, "bid_size": 5}
        row |= pick.choice([{}, {"sequence": number}, {"trade_id": f"T{number}"}, {"trade_id": str(number)}])
        if not plain:
            row |= pick.choice([{}, {"side": "buy"}, {"taker_side": "sell", "id": number}])
            row |= pick.choice([{}, {"exchange": "XNAS"}, {"venue": 4, "conditions": ["@", "T"]}])
            row |= pick.choice([{}, {"receipt_timestamp": 1_704_205_800.5}, {"received_at": "2024-01-02T14:31:00Z"}])
            row |= pick.choice([{}, {"nanos": 7}, {"x": {"a": [1, None]}}])
        rows.append(row)
    return rows


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("plain", [True, False], ids=["the columns of then", "whatever feeds carry"])
@pytest.mark.parametrize("as_table", [False, True], ids=["rows", "a table"])
def test_sent_again_no_row_is_doubled(
    name: str, plain: bool, as_table: bool, url: str, database: Connection, tmp_path: Path
) -> None:
    rows = rows_of(name, plain=plain)
    sent = message(rows, name=name)
    given = {"dataset": name, "rows": rows, "defaults": {}, "enqueued_at": sent.enqueued_at}
    Version040(tmp_path).take([given], url)
    before = select(database, f"SELECT {THEN[name]} FROM {NAMES[name]} ORDER BY {THEN[name]}")
    assert len(before) == len(rows)
    schema.upgrade(url)
    dataset = DATASETS[name]
    again = table_of(dataset, rows, sent.enqueued_at) if as_table else sent
    with closing(Writer(url)) as writer:
        (counts,) = write(writer, again, name=name)
        assert counts.unchanged + counts.written == len(rows)
        assert (counts.written == 0) == (plain and name == "quotes" and not any("trade_id" in row for row in rows))
        assert select(database, f"SELECT {THEN[name]} FROM {NAMES[name]} ORDER BY {THEN[name]}") == before
        assert write(writer, again, name=name) == [Counts(unchanged=len(rows))]


def test_plain_rows_are_unchanged(url: str, database: Connection, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "trade_id"} for row in rows_of("ticks", plain=True)]
    sent = message(rows, name="ticks")
    given = {"dataset": "ticks", "rows": rows, "defaults": {}, "enqueued_at": sent.enqueued_at}
    Version040(tmp_path).take([given], url)
    schema.upgrade(url)
    with closing(Writer(url)) as writer:
        assert write(writer, sent, name="ticks") == [Counts(unchanged=len(rows))]
    assert select(database, "SELECT count(*) FROM tick_data") == [(len(rows),)]


def table_of(dataset: Dataset, rows: list[Row], enqueued_at: int) -> DecodedMessage:
    """The rows as a table, in which a column has one type: values of others are texts."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    table = frame_of(columns)
    message = DecodedMessage(task_id="t", dataset=dataset, rows=read_table(dataset, table, {}), enqueued_at=enqueued_at)
    assert not decoded(dataset, [message]).rejects[0], json.dumps(rows[:3])
    return message


def test_any_row_has_the_seq_that_version_0_4_0_gave_it(tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []

    @given(messages())
    @settings(max_examples=400, deadline=None, database=None)
    def gather(message: dict[str, Any]) -> None:
        found.append(message)

    gather()
    for given_message, then in zip(found, Version040(tmp_path).take(found), strict=True):
        text = json.dumps(given_message["rows"]).encode()
        now = decode_rows(DATASETS[given_message["dataset"]], text, given_message["defaults"], 0)
        assert now.rejects == []
        assert now.columns[3] == then, given_message
