"""Equal ticks and quotes without an id: two in one message, one in two messages, and the same again unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.databases import Connection
from support.writing import Row, message, select, write

from market_data_store import dead_letters
from market_data_store.datasets import DATASETS
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

TICK: Row = {"provider": "p", "symbol": "S", "ts": "2024-01-02T14:30:00Z", "price": 1.5}
QUOTE: Row = {"provider": "p", "symbol": "S", "ts": "2024-01-02T14:30:00Z", "bid": 1.5}


@pytest.fixture
def writer(database_url: str) -> Iterator[Writer]:
    writer = Writer(database_url)
    yield writer
    writer.close()


def sent(writer: Writer, *rows: Any, name: str = "ticks", at: float = 0.0, **defaults: Any) -> Counts:
    (counts,) = write(writer, message(list(rows), name=name, at=at, **defaults), name=name)
    return counts


@pytest.mark.parametrize(("name", "row"), [("ticks", TICK), ("quotes", QUOTE)])
def test_equal_rows_of_a_message_are_as_many_rows(name: str, row: Row, writer: Writer, database: Connection) -> None:
    other = {**row, "side": "buy"}
    rows = [row, other, {**row, "symbol": " S "}, row, other]
    assert sent(writer, *rows, name=name) == Counts(written=5)
    assert sent(writer, *rows, name=name, at=1) == Counts(unchanged=5)
    assert sent(writer, *rows[:2], name=name, at=2) == Counts(unchanged=2)
    assert select(database, f"SELECT count(*) FROM {DATASETS[name].table.name}") == [(5,)]


def test_equal_rows_of_several_messages_are_one_row(writer: Writer, database: Connection) -> None:
    messages = [message([TICK, TICK], name="ticks", at=at) for at in range(3)]
    counts = write(writer, *messages, name="ticks")
    assert sum(count.written for count in counts) == 2
    assert select(database, "SELECT count(*) FROM tick_data") == [(2,)]
    assert sent(writer, TICK, at=9) == Counts(unchanged=1)


def test_rows_with_an_id_are_what_their_id_says(writer: Writer, database: Connection) -> None:
    for id_ in ("sequence", "trade_id", "seq"):
        sent(writer, {**TICK, id_: 7}, {**TICK, id_: 7}, TICK)
    assert select(database, "SELECT count(*) FROM tick_data") == [(2,)]
    sent(writer, TICK, TICK, trade_id="abc")
    assert select(database, "SELECT count(*) FROM tick_data") == [(3,)]


def test_rows_that_their_producer_has_numbered_are_not_counted(writer: Writer, database: Connection) -> None:
    numbered = [TICK, {**TICK, "#occurrence": 2}, TICK]
    write(writer, message(numbered, name="ticks", **{"#occurrence": 1}), name="ticks")  # type: ignore[arg-type]
    assert select(database, "SELECT count(*) FROM tick_data") == [(2,)]
    assert sent(writer, TICK, TICK, at=1) == Counts(unchanged=2), "the same keys as those that a worker counts"


def test_rows_that_are_read_one_by_one_are_counted_with_the_others(writer: Writer, database: Connection) -> None:
    odd = {**TICK, "timestamp": TICK["ts"], "price": "1.5"}
    assert sent(writer, TICK, odd, {"symbol": 5}, TICK) == Counts(written=3, rejected=1)
    assert select(database, "SELECT count(*), count(DISTINCT seq) FROM tick_data") == [(3, 3)]


def test_a_refused_row_keeps_its_number_in_its_letter(writer: Writer, database: Connection) -> None:
    database.execute("ALTER TABLE tick_data ADD CONSTRAINT cheap CHECK (price < 1)")
    assert sent(writer, TICK, {**TICK, "price": 0.5}, TICK) == Counts(written=1, rejected=2)
    letters = [dead_letters.get(database, letter.id) for letter in dead_letters.page(database)]
    rows = [json.loads(letter.row) for letter in letters if letter and letter.row]
    assert rows[0] == TICK
    assert {**rows[1], "seq": None} == {**TICK, "seq": None}
    database.execute("ALTER TABLE tick_data DROP CONSTRAINT cheap")
    for row in rows:  # each by itself
        assert sent(writer, row) == Counts(written=1)
    assert sent(writer, TICK, TICK, at=1) == Counts(unchanged=2)
    database.execute("DELETE FROM tick_data")
