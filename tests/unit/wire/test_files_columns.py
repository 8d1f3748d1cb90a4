"""What `mds load` sends in tables: metadata as texts of JSON, and times of any year."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from market_data_store.datasets import DATASETS
from market_data_store.errors import InvalidMessage
from market_data_store.wire.arrow import frame_of, read_table
from market_data_store.wire.columns import DecodedRows, decode
from market_data_store.wire.rows import read_rows

SIGNALS = DATASETS["signals"]
KEY = {"provider": ["p"], "symbol": ["S"], "name": ["n"]}


def decoded(**columns: list[object]) -> DecodedRows:
    return decode(SIGNALS, [read_table(SIGNALS, frame_of(pa.table({**KEY, **columns})), {})], [0])


def test_metadata_may_be_the_text_of_an_object() -> None:
    found = decoded(ts=["2024-01-02T00:00:00Z"], metadata=['{"a": [1, null], "big": 1651181822461636600}'])
    assert json.loads(found.rows.column("metadata")[0].as_py()) == {"a": [1, None], "big": 1651181822461636600}


@pytest.mark.parametrize("text", ["no JSON", "[1]", "1"])
def test_another_text_is_no_metadata(text: str) -> None:
    found = decoded(ts=["2024-01-02T00:00:00Z"], metadata=[text])
    assert [reject.reason.startswith("metadata: ") for reject in found.rejects[0]] == [True]


def test_a_tick_has_one_key_whether_its_metadata_is_a_text_or_an_object() -> None:
    ticks = DATASETS["ticks"]
    row = {"provider": "p", "symbol": "S", "ts": "2024-01-02T00:00:00Z", "price": 1.5, "metadata": {"a": 1}}
    table = pa.table({**{name: [value] for name, value in row.items()}, "metadata": ['{"a": 1}']})
    text, rows = json.dumps([row]).encode(), read_table(ticks, frame_of(table), {})
    keys = {decode(ticks, [sent], [0]).rows.column("seq")[0].as_py() for sent in (rows, read_rows(ticks, text, {}))}
    assert len(keys) == 1


@pytest.mark.parametrize("year", [1881, 2150])
def test_times_of_any_year_are_taken_if_the_message_says_so(year: int) -> None:
    times = pa.array([f"{year}-01-01T00:00:00Z"]).cast(pa.timestamp("us", tz="UTC"))
    table = frame_of(pa.table({**KEY, "ts": times}))
    rows = json.dumps([{**{name: value for name, (value,) in KEY.items()}, "ts": f"{year}-01-01T00:00:00Z"}]).encode()
    for defaults, stored in (({}, 0), ({"time_unit": "any_year"}, 1)):
        for sent in (read_table(SIGNALS, table, defaults), read_rows(SIGNALS, rows, defaults)):
            found = decode(SIGNALS, [sent], [0])
            assert (found.rows.num_rows, found.rejected) == (stored, [1 - stored])


def test_another_unit_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="time_unit"):
        read_rows(SIGNALS, b"[]", {"time_unit": "some_year"})
