"""Names: what is removed around them, and that all ways of reading agree on it."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.decoding import decode_frame
from support.rows import BAR, NEWS, NOW, TICK, Send, as_text, both_ways, decode, only

from market_data_store.datasets import DATASETS
from market_data_store.producer.encoding import check_rows, encode
from market_data_store.wire.arrow import frame_of
from market_data_store.wire.arrow_casts import texts
from market_data_store.wire.text import SPACES, name_of

PADDED = st.text(st.sampled_from([*SPACES, "A", "b", "\u180e", "\u200c", "\0", "é"]), min_size=1, max_size=12)


def test_all_whitespace_of_unicode_is_removed_and_three_kinds_without_width() -> None:
    whitespace = {chr(code) for code in range(0x110000) if chr(code).isspace()}
    assert set(SPACES) == whitespace | {"\u200b", "\u2060", "\ufeff"}
    assert len(SPACES) == len(set(SPACES))


@given(st.lists(PADDED, min_size=1, max_size=5))
def test_a_column_of_names_is_read_as_each_name_by_itself(names: list[str]) -> None:
    (together,) = [texts(20, trimmed=True, numbered=False)(pa.array(names))]
    assert together.to_pylist() == [name_of(name) if name_of(name) and "\0" not in name else None for name in names]


@given(PADDED)
def test_every_way_in_agrees_on_a_name(name: str) -> None:
    rows = [{**BAR, "symbol": name}]
    json, objects = decode("bars", as_text(rows)), decode("bars", rows)
    table = decode_frame(DATASETS["bars"], frame_of(pa.Table.from_pylist(rows)), {}, NOW)
    assert json.columns == objects.columns == table.columns
    assert [len(found.rejects) for found in (json, objects, table)] == [len(json.rejects)] * 3


@pytest.mark.parametrize("symbol", ["AAPL ", " AAPL", "\u00a0AAPL\ufeff", "AAPL\u200b\n"])
@both_ways
def test_whitespace_around_a_name_is_removed_and_its_case_stays(symbol: str, send: Send) -> None:
    assert only(decode("bars", send([{**BAR, "symbol": symbol}])))["symbol"] == "AAPL"
    assert only(decode("bars", send([{**BAR, "symbol": symbol.lower()}])))["symbol"] == "aapl"
    assert only(decode("bars", send([BAR]), symbol=symbol))["symbol"] == "aapl"  # the row's own


@both_ways
def test_what_is_no_name_keeps_its_whitespace(send: Send) -> None:
    got = only(decode("news", send([{**NEWS, "title": " Up ", "symbol": " a ", "id": " 1 "}])))
    assert (got["title"], got["symbol"], got["id"]) == (" Up ", "a", "1")


@pytest.mark.parametrize("empty", ["", " ", "\u00a0\ufeff"])
@both_ways
def test_a_name_of_whitespace_alone_rejects_the_row(empty: str, send: Send) -> None:
    (reject,) = decode("bars", send([BAR, {**BAR, "symbol": empty}])).rejects
    assert reject.position == 1
    assert reject.reason.startswith("symbol: ")
    assert reject.reason.endswith(" is empty")


@both_ways
def test_the_limit_of_a_name_counts_without_the_whitespace_around_it(send: Send) -> None:
    longest = "x" * 128
    assert only(decode("bars", send([{**BAR, "symbol": f"  {longest}  "}])))["symbol"] == longest


@both_ways
def test_codes_may_be_numbers(send: Send) -> None:
    row = {**TICK, "id": 10**20, "side": 1, "exchange": " 4 ", "conditions": ["@", 12]}
    got = only(decode("ticks", send([row])))
    assert (got["trade_id"], got["side"], got["venue"]) == (str(10**20), "1", "4")
    assert got["conditions"] == ["@", "12"]


@pytest.mark.parametrize(("conditions", "stored"), [("@ T", ["@ T"]), ([], []), ([7], ["7"]), (None, None)])
@both_ways
def test_conditions_are_a_list_of_texts(conditions: object, stored: list[str] | None, send: Send) -> None:
    assert only(decode("ticks", send([{**TICK, "conditions": conditions}])))["conditions"] == stored


@pytest.mark.parametrize("rows", [[{**BAR, "symbol": "\ufeff"}], [{**BAR, "final": "maybe"}]])
def test_the_producer_finds_it_before_the_worker_does(rows: list[dict[str, object]]) -> None:
    with pytest.raises(ValueError, match=r"symbol: |final: 'maybe' is not true or false"):
        check_rows(DATASETS["bars"], rows, encode(rows, 0), {}, 0)
