"""Equal rows without an id are counted over a call, a table or a file."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from support.decoding import decode_rows
from support.rows import NOW, QUOTE, TICK, Row

from market_data_store.datasets import DATASETS
from market_data_store.producer import occurrences
from market_data_store.producer.encoding import encode_defaults
from market_data_store.producer.occurrences import Occurrences
from market_data_store.producer.packing import Packing
from market_data_store.producer.tables import table_parts
from market_data_store.wire.arrow import frame_of, unpack

TICKS = DATASETS["ticks"]


def numbers(rows: list[Row], *, name: str = "ticks", max_rows: int = 500, counted: Occurrences | None = None) -> Any:
    """The numbers that the rows of a call are sent with, None for the first of equal ones."""
    dataset = DATASETS[name]
    standard, _ = encode_defaults(dataset, {})
    packing = Packing(max_rows, 1024 * 1024, check=True)
    parts = packing.rows(dataset, rows, standard, max_rows, counted or Occurrences())
    return [row.get("#occurrence") for _, part in parts for row in json.loads(b"[%s]" % part)]


def test_equal_rows_of_a_call_are_numbered_also_if_it_is_split() -> None:
    rows = [TICK, {**TICK, "price": 2.0}, TICK, TICK]
    assert numbers(rows) == [None, None, 2, 3]
    assert numbers(rows, max_rows=1) == [None, None, 2, 3]


def test_rows_are_equal_if_they_are_stored_alike_however_they_were_sent() -> None:
    rows = [
        {**TICK, "size": 5},
        {**TICK, "ts": "2024-01-02T15:30:00+01:00", "size": "5.0"},
        {"vendor": "ibkr", "ticker": " AAPL", "time": "2024-01-02T14:30:00Z", "last_price": "1.5", "qty": 5},
    ]
    assert numbers(rows) == [None, 2, 3]


def test_rows_with_an_id_or_a_difference_are_not_numbered() -> None:
    assert numbers([{**TICK, "trade_id": 1}] * 2) == [None] * 2
    assert numbers([{**TICK, "side": "buy"}, TICK, {**TICK, "side": "sell"}]) == [None] * 3
    assert numbers([TICK, {**TICK, "symbol": "aapl"}]) == [None] * 2
    assert numbers([{**TICK, "#occurrence": 4}, TICK, TICK]) == [4, None, 2]


def test_other_calls_count_anew_unless_they_share_the_count() -> None:
    shared = Occurrences()
    assert [numbers([QUOTE], name="quotes", counted=shared) for _ in range(3)] == [[None], [2], [3]]
    assert numbers([QUOTE], name="quotes") == [None]


def test_defaults_say_that_rows_are_numbered() -> None:
    assert encode_defaults(TICKS, {"provider": "p"})[1] == b'{"#occurrence":1,"provider":"p"}'
    assert encode_defaults(DATASETS["bars"], {})[1] == b"{}"


def test_a_row_that_the_worker_rejects_is_not_numbered() -> None:
    packing = Packing(500, 1024 * 1024, check=False)
    parts = list(packing.rows(TICKS, [{**TICK, "price": "x"}] * 2 + [[1]] * 2, {}, 500, Occurrences()))
    assert b"#occurrence" not in parts[0][1]


def test_the_count_stays_right_when_it_moves_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occurrences, "_ROWS_IN_MEMORY", 100)
    counted = Occurrences()
    for turn in range(1, 4):
        for start in range(0, 1_000, 50):
            assert counted.numbers([("key", start + i) for i in range(50)]) == [turn] * 50
    assert counted.numbers([None, ("key", 0), ("key", 0), ("new",)]) == [1, 4, 5, 1]


def test_equal_rows_of_a_table_are_numbered_over_all_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [TICK, {**TICK, "price": 2.0}, TICK]
    frame = frame_of(pa.Table.from_pylist(rows))
    standard, defaults = encode_defaults(TICKS, {})
    monkeypatch.setattr("market_data_store.producer.tables._TABLE_ROWS", 2)
    packing = Packing(500, 1024 * 1024, check=True)
    found = [unpack(body) for _, body in table_parts(packing, TICKS, frame, standard, defaults)]
    assert [frame.objects() for _, frame, _ in found] == [
        [{**rows[0], "#occurrence": None}, {**rows[1], "#occurrence": None}],
        [{**rows[2], "#occurrence": 2}],
    ]
    assert found[0][2] == {"#occurrence": 1}
    frame = frame_of(pa.Table.from_pylist([{**row, "trade_id": "x"} for row in rows]))
    ((_, body),) = table_parts(packing, TICKS, frame_of(frame.table.slice(0, 2)), {}, b"{}")
    assert "#occurrence" not in unpack(body)[1].table.column_names


def test_the_number_is_in_the_key_and_not_in_the_row() -> None:
    found = decode_rows(TICKS, json.dumps([TICK, {**TICK, "#occurrence": 2}]).encode(), {"#occurrence": 1}, NOW)
    ids = found.columns[3]
    assert ids[0] != ids[1]
    assert found.columns[-1] == [None, None]
