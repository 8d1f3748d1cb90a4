"""A column that a migration added takes what fits it, and what does not fit stays in metadata: no row is rejected."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from support.decoding import DecodedRows, decode_frame, decode_rows
from support.rows import BAR, NOW, TICK, Send, both_ways

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.datasets.evolved import AddedColumn, column_name, with_columns
from market_data_store.wire.arrow import frame_of
from market_data_store.wire.seen import column_kind, kinds_of

#: By kind, values that it holds, and some that it does not.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "boolean": ([True, False], ["perhaps", [1]]),
    "bigint": ([0, -(2**63), 2**63 - 1], [1.5, "seven", 2**63, {"a": 1}]),
    "double": ([1.5, -0.25, 3, 2**53], ["high", True, 1e300]),
    "text": (["x", "é", 7, 2**63 - 1], [1.5, True, ["x"]]),
    "text[]": ([["a"], ["b", "c"]], [{"a": 1}, 5]),
    "double[]": ([[1.5, None], [2]], [["a"], 5]),
    "jsonb": ([{"a": [1]}, [1, "x"], [[]]], [5, True]),
}


def added(name: str, *columns: AddedColumn) -> Dataset:
    return with_columns(DATASETS[name], columns)


def found(decoded: DecodedRows, name: str) -> list[tuple[Any, Any]]:
    """For each row what the column has, and what metadata has of it."""
    assert decoded.rejects == []
    columns = dict(zip([c.name for c in decoded.dataset.columns], decoded.columns, strict=True))
    order = sorted(range(len(decoded.positions)), key=lambda at: decoded.positions[at])
    metadata = [json.loads(each or "{}") for each in columns["metadata"]]
    return [(columns[name][at], metadata[at].get(name)) for at in order]


@both_ways
@pytest.mark.parametrize("kind", VALUES)
def test_what_fits_is_in_the_column_and_the_rest_in_metadata(send: Send, kind: str) -> None:
    good, bad = VALUES[kind]
    bars = added("bars", AddedColumn("x", "x", kind))
    rows = [{**BAR, "ts": f"2024-01-02T14:30:{at:02}Z", "x": value} for at, value in enumerate([*good, *bad])]
    got = found(decode_rows(bars, send(rows), {}, NOW), "x")
    stored, kept = [cell for cell, _ in got], [other for _, other in got]
    assert all(cell is not None for cell in stored[: len(good)])
    assert kept == [*[None] * len(good), *bad]
    assert stored[len(good) :] == [None] * len(bad)
    # By itself each row becomes what it becomes among others.
    assert [found(decode_rows(bars, send([row]), {}, NOW), "x")[0] for row in rows] == got


@pytest.mark.parametrize("kind", VALUES)
def test_a_column_is_made_for_the_kinds_of_all_values(kind: str) -> None:
    good, bad = VALUES[kind]
    assert column_kind(kinds_of(good)) == kind
    for value in bad:
        narrower = column_kind(kinds_of([*good, value]))
        assert narrower != kind
        if narrower is not None:  # it holds every value
            bars = added("bars", AddedColumn("x", "x", narrower))
            rows = [{**BAR, "ts": f"2024-01-02T14:30:{at:02}Z", "x": each} for at, each in enumerate([*good, value])]
            assert {other for _, other in found(decode_rows(bars, rows, {}, NOW), "x")} == {None}


def test_tables_fill_it_too() -> None:
    bars = added("bars", AddedColumn("lots", "Lots", "bigint"))
    columns = {**{name: [value] * 3 for name, value in BAR.items() if name != "ts"}}
    times = [f"2024-01-02T14:30:0{at}Z" for at in range(3)]
    for lots, cells in (
        ([1, None, 2], [1, None, 2]),
        ([1.0, 2.5, None], [1, None, None]),
        (["7", "x", ""], [7, None, None]),
    ):
        decoded = decode_frame(bars, frame_of(pa.table({**columns, "ts": times, "Lots": lots})), {}, NOW)
        assert [cell for cell, _ in found(decoded, "lots")] == cells


@both_ways
def test_the_keys_of_rows_stay(send: Send) -> None:
    rows = [{**TICK, "lots": 1}, {**TICK, "lots": 2.5}, {**TICK, "lots": "x"}, {**TICK, "lots": "x"}]
    before = decode_rows(DATASETS["ticks"], send(rows), {}, NOW)
    after = decode_rows(added("ticks", AddedColumn("lots", "lots", "bigint")), send(rows), {}, NOW)
    assert after.columns[3] == before.columns[3]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("lots", "lots"),
        ("fundingRate", "funding_rate"),
        ("Open Interest", "open_interest"),
        ("E", "e"),
        ("a-b", "a_b"),
        ("metadata", None),
        ("xmin", None),
        ("1st", None),
        ("", None),
        ("é", None),
        ("taken", None),
        ("x" * 64, None),
        ('"; DROP TABLE x', None),
    ],
)
def test_the_name_of_a_column_is_an_identifier(field: str, name: str | None) -> None:
    assert column_name(field, {"taken"}) == name


def test_a_declared_name_comes_before_an_added_one() -> None:
    bars = DATASETS["bars"]
    assert with_columns(bars, (AddedColumn("volume", "volume", "text"), AddedColumn("x", "closed", "text"))) is bars
