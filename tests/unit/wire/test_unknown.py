"""What a row has beyond its dataset's fields is kept, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from support.decoding import decode_frame, decode_rows
from support.rows import BAR, COMPLETE, NOW, QUOTE, TICK, Row, Send, as_text, both_ways, decode, only, stored

from market_data_store.datasets import DATASETS
from market_data_store.wire.arrow import frame_of
from market_data_store.wire.rows import Shape, read_rows


def metadata(row: Row) -> Any:
    return None if row["metadata"] is None else json.loads(row["metadata"])


@both_ways
def test_an_id_that_seq_cannot_give_back_is_kept_as_it_was_sent(send: Send) -> None:
    for sequence, kept in (("abc", "abc"), ("007", "007"), ("7", None), (7, None), ("-5", "-5")):
        row = only(decode("quotes", send([{**QUOTE, "sequence": sequence}])))
        assert metadata(row) == (None if kept is None else {"sequence": kept})
        assert metadata(only(decode("quotes", send([{**QUOTE, "trade_id": sequence}])))) == (
            None if kept is None else {"trade_id": kept}
        )


@both_ways
def test_the_id_of_a_trade_is_kept_and_is_its_sequence_if_there_is_no_other(send: Send) -> None:
    row = only(decode("ticks", send([{**TICK, "trade_id": "17"}])))
    assert (row["seq"], row["trade_id"], row["metadata"]) == (17, "17", None)
    row = only(decode("ticks", send([{**TICK, "trade_id": "17", "sequence": 3}])))
    assert (row["seq"], row["trade_id"], row["metadata"]) == (3, "17", None)
    row = only(decode("ticks", send([{**TICK, "trade_id": 17, "sequence": None}])))
    assert (row["seq"], row["trade_id"], row["metadata"]) == (17, "17", None)
    both = [{**TICK, "trade_id": "a", "sequence": 1}, {**TICK, "trade_id": "b", "sequence": None}]
    assert [row["trade_id"] for row in stored(decode("ticks", send(both)))] == ["a", "b"]


@both_ways
def test_a_second_name_is_kept_if_it_says_something_else(send: Send) -> None:
    row = {**TICK, "exchange": "XNAS", "market": "US", "ex": " XNAS ", "time": "2024-01-02T15:30:00+01:00"}
    got = only(decode("ticks", send([row])))
    assert (got["venue"], metadata(got)) == ("XNAS", {"market": "US"})
    wrong = only(decode("ticks", send([{**TICK, "datetime": "soon", "quantity": 1, "qty": [1]}])))
    assert metadata(wrong) == {"datetime": "soon", "qty": [1]}


def test_a_row_without_unknown_fields_has_no_metadata_and_is_read_with_the_others() -> None:
    for name, row in COMPLETE.items():
        rows = read_rows(DATASETS[name], as_text([row]), {})
        assert isinstance(rows.form, Shape)
        assert list(rows.form.joined([rows.content]).kept) == []


def test_messages_with_ids_and_sides_are_read_at_once() -> None:
    row = {**TICK, "trade_id": "17", "sequence": 3, "side": "buy", "x": 1, "#occurrence": 2}
    assert isinstance(read_rows(DATASETS["ticks"], as_text([row]), {}).form, Shape)


def test_more_than_64_kib_reject_the_row() -> None:
    (reject,) = decode("bars", as_text([BAR, {**BAR, "x": "y" * 65_536}])).rejects
    assert reject.position == 1
    assert "is longer than 65,536 bytes" in reject.reason
    assert len(reject.reason) < 400


def test_a_table_keeps_the_same_as_rows() -> None:
    rows = [{**BAR, "final": True, "x": 1, "y": "é", "z": [1.5]}, {**BAR, "symbol": "B", "x": None, "y": ""}]
    table = decode_frame(DATASETS["bars"], frame_of(pa.Table.from_pylist(rows)), {}, NOW)
    given = [{**rows[0], "final": True}, {**rows[1], "final": None, "z": None}]
    assert table.columns == decode_rows(DATASETS["bars"], as_text(given), {}, NOW).columns


def test_a_table_keeps_what_python_cannot_represent_as_text() -> None:
    column = pa.array([2**62], pa.int64()).cast(pa.timestamp("s"))
    table = pa.Table.from_pylist([BAR]).append_column("far", column)
    (kept,) = decode_frame(DATASETS["bars"], frame_of(table), {}, NOW).columns[-1]
    assert str(2**62) in json.loads(kept)["far"]


def test_an_integer_of_any_size_is_kept() -> None:
    (kept,) = decode("bars", as_text([BAR])[:-2] + b', "n": %s}]' % (b"7" * 5_000)).columns[-1]
    assert kept == b'{"n":%s}' % (b"7" * 5_000)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", [2]])
@both_ways
def test_a_wrong_number_among_equals_rejects_the_row(value: object, send: Send) -> None:
    (reject,) = decode("ticks", send([TICK, {**TICK, "#occurrence": value}])).rejects
    assert reject.reason.startswith("#occurrence: ")
