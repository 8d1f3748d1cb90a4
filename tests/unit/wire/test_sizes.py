"""A message is refused before it becomes many times as large in memory, and what is usual is not refused."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_store.datasets import DATASETS
from market_data_store.errors import InvalidMessage
from market_data_store.wire.arrow import Frame, pack, unpack
from market_data_store.wire.columns import decode
from market_data_store.wire.reader import MOST_REJECTS, stored_defaults
from market_data_store.wire.rows import read_rows
from market_data_store.wire.sizes import MOST_ROWS, row_number
from market_data_store.wire.text import has_nul

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab,"\\[]{}é\n') | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a,"\\[{', max_size=3), inner, max_size=4),
    max_leaves=20,
)
MEGABYTE = 1_000_000


@given(st.lists(JSON_VALUES, min_size=1, max_size=20), st.booleans())
def test_the_items_of_a_list_are_counted(items: list[Any], is_ascii: bool) -> None:
    assert row_number(json.dumps(items, ensure_ascii=is_ascii).encode()) == len(items)


@pytest.mark.parametrize("item", [b"1", b"{}", b'""', b"[]", b"[{}]", b'{"a":[1,2]}', b'"\\\\\\""'])
def test_counting_takes_little_memory(item: bytes) -> None:
    text = b"[" + b",".join([item] * 300_000) + b"]"
    tracemalloc.start()
    try:
        assert row_number(text) == 300_000
        assert tracemalloc.get_traced_memory()[1] < 4 * len(text) + 4 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_a_message_may_have_a_million_rows() -> None:
    with pytest.raises(InvalidMessage, match="rows: 1,000,001 rows, at most 1,000,000; send smaller messages"):
        read_rows(DATASETS["bars"], b"[" + b",".join([b"1"] * (MOST_ROWS + 1)) + b"]", {})
    with pytest.raises(InvalidMessage, match="at most 1,000,000"):
        read_rows(DATASETS["bars"], [1] * (MOST_ROWS + 1), {})


def test_of_many_rejects_the_first_are_kept_and_the_others_counted() -> None:
    bar = {"provider": "p", "symbol": "s", "interval": "1m", "open": 1, "high": 1, "low": 1, "close": 1}
    rows: list[Any] = [{**bar, "ts": 1_700_000_000 + 60 * n} for n in range(12_000)]
    rows[::2] = [1] * 6_000
    found = decode(DATASETS["bars"], [read_rows(DATASETS["bars"], json.dumps(rows).encode(), {})], [0])
    assert [reject.position for reject in found.rejects[0]] == list(range(0, 2 * MOST_REJECTS, 2))
    assert (found.rejected, len(found.rows)) == ([6_000], 6_000)


def test_rows_beyond_a_piece_are_decoded_like_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = {"provider": "p", "symbol": "s", "interval": "1m", "open": 1, "high": 1, "low": 1}
    texts = [
        json.dumps([{**bar, "ts": 1_700_000_000 + 60 * n, "close": "x" if n % 7 == 3 else n} for n in range(size)])
        for size in (3, 0, 25, 1, 11)
    ]

    def decoded() -> Any:
        messages = [read_rows(DATASETS["bars"], text.encode(), {}) for text in texts]
        found = decode(DATASETS["bars"], messages, list(range(len(texts))))
        order = [("#message", "ascending"), ("#position", "ascending")]
        return found.rows.sort_by(order).to_pylist(), found.rejects, found.rejected

    whole = decoded()
    monkeypatch.setattr("market_data_store.wire.columns._PIECE_ROWS", 4)
    monkeypatch.setattr("market_data_store.wire.alone._PIECE", 2)
    assert decoded() == whole
    assert sum(whole[2]) == 6


def test_a_broken_message_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data_store.wire.alone._PIECE", 10)
    monkeypatch.setattr("market_data_store.wire.alone._MOST_READ", 20)
    read = []

    def counted(dataset: Any, position: int, *arguments: Any, **more: Any) -> Any:
        from market_data_store.wire.reader import read_row

        read.append(position)
        return read_row(dataset, position, *arguments, **more)

    monkeypatch.setattr("market_data_store.wire.alone.read_row", counted)
    found = decode(DATASETS["bars"], [read_rows(DATASETS["bars"], json.dumps([1] * 95).encode(), {})], [0])
    assert (found.rejected, read) == ([95], list(range(20)))


def test_defaults_that_mean_nothing_are_not_remembered() -> None:
    tracemalloc.start()
    try:
        for n in range(100):
            stored_defaults(DATASETS["bars"], {"provider": "p", "nothing": f"{n}" * 100_000})
        assert tracemalloc.get_traced_memory()[0] < 2 * MEGABYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", [b"\\" * 4 * MEGABYTE, b"\\" * (4 * MEGABYTE - 1) + b"\\u0000"])
def test_backslashes_take_no_time(text: bytes) -> None:
    started = time.process_time()
    assert has_nul(b'"\\u0000' + text)
    assert time.process_time() - started < 2.0


# --- Arrow -----------------------------------------------------------------------------------------------------------


def unpacked(columns: dict[str, Any]) -> Frame:
    return unpack(pack("signals", b"{}", Frame(pa.table(columns))))[1]


BOMBS: dict[str, Callable[[], dict[str, Any]]] = {
    "one text many times": lambda: {
        "symbol": pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int8()), pa.array(["x" * 1_000]))
    },
    "some text in each of many columns": lambda: {
        f"c{n}": pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int8()), pa.array(["x" * 1_000]))
        for n in range(50)
    },
    "a run of one text": lambda: {
        "symbol": pa.RunEndEncodedArray.from_arrays(pa.array([100_000], pa.int32()), pa.array(["x" * 1_000])),
        "pad": pa.array([1] * 100_000, pa.int64()),
    },
    "nulls in a list": lambda: {"metadata": pa.array([[None] * 10_000_000])},
    "nulls in a list of fixed size": lambda: {
        "metadata": pa.FixedSizeListArray.from_arrays(pa.nulls(10_000_000), 10_000_000)
    },
    "nulls in many columns": lambda: {
        "pad": pa.array([1] * 100_000, pa.int64()),
        **{f"c{n}": pa.nulls(100_000) for n in range(100)},
    },
    "one text many times in a list": lambda: {
        "metadata": pa.ListArray.from_arrays(
            pa.array([0, 10_000], pa.int32()),
            pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int8()), pa.array(["x" * 10_000])),
        )
    },
    "one list many times": lambda: {
        "metadata": pa.DictionaryArray.from_arrays(pa.array([0] * 5_000, pa.int32()), pa.array([[1] * 10_000]))
    },
    "views of one list": lambda: {
        "metadata": pa.ListViewArray.from_arrays(
            pa.array([0] * 1_000, pa.int32()), pa.array([10_000] * 1_000, pa.int32()), pa.array([1] * 10_000)
        )
    },
    "references to one member of a union": lambda: {
        "metadata": pa.UnionArray.from_dense(
            pa.array([0] * 100_000, pa.int8()), pa.array([0] * 100_000, pa.int32()), [pa.array(["x" * 1_000])]
        )
    },
    "nulls in many fields": lambda: {
        "metadata": pa.StructArray.from_arrays([pa.nulls(200_000)] * 60, names=[f"f{n}" for n in range(60)]),
        "pad": pa.array([1] * 200_000, pa.int64()),
    },
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_table_that_would_become_many_times_as_large_is_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match=r"too many values are repeated or null for [0-9,]+ bytes"):
        unpacked(BOMBS[name]())


def test_a_table_has_at_most_2_000_columns() -> None:
    with pytest.raises(InvalidMessage, match="columns: 2,001 columns, at most 2,000"):
        unpacked({f"c{n}": [1] for n in range(2_001)})


def test_a_table_may_have_a_million_rows() -> None:
    with pytest.raises(InvalidMessage, match="rows: 1,000,001 rows, at most 1,000,000"):
        unpacked({"value": pa.array([1] * (MOST_ROWS + 1), pa.int16())})


@pytest.mark.parametrize(
    "columns",
    [
        {"symbol": pa.array(["AAPL", "MSFT"] * 50_000).dictionary_encode(), "value": [1.0] * 100_000},
        {"value": [1.0] * 100_000, **{f"c{n}": pa.nulls(100_000) for n in range(60)}},
        {"metadata": [{"a": [1, 2, None], "b": {"c": "x"}}] * 10_000},
        {"metadata": pa.array([[("a", 1)]] * 1_000, pa.map_(pa.string(), pa.int64()))},
        {"symbol": pa.array(["x" * 40] * 10_000, pa.string_view())},
        {"symbol": pa.array(["x"] * 10_000, pa.large_string()), "d": pa.array([1] * 10_000).cast(pa.decimal128(24, 2))},
        {"u": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])},
        {
            "symbol": pa.array([b"x", b"y"], pa.binary_view()),
            "b": [True, None],
            "f": pa.array([b"ab", None], pa.binary(2)),
        },
        {},
    ],
    ids=["categories", "null columns", "structs", "maps", "views", "large", "unions", "binary", "nothing"],
)
def test_usual_tables_are_taken(columns: dict[str, Any]) -> None:
    assert len(unpacked(columns)) == (len(next(iter(columns.values()))) if columns else 0)
