"""Fields that a dataset does not know are counted by name, with the kinds of all their values, however rows come."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from support.own_datasets import ROW, funding
from support.rows import BAR, COMPLETE, NOW, TICK, Send, as_text, both_ways

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.wire import seen
from market_data_store.wire.arrow import frame_of, read_table
from market_data_store.wire.columns import decode
from market_data_store.wire.rows import SentRows, read_rows
from market_data_store.wire.seen import MOST_NAMES, OTHERS, Seen, add_seen


def counted(dataset: Dataset, sent: SentRows) -> dict[str, tuple[int, set[str]]]:
    return {name: (each.rows, each.kinds) for name, each in decode(dataset, [sent], [NOW]).unknown.items()}


def of_rows(name: str, rows: bytes | list[Any]) -> dict[str, tuple[int, set[str]]]:
    return counted(DATASETS[name], read_rows(DATASETS[name], rows, {}))


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([True, False], {"true or false"}),
        ([1, -5, 2**53], {"integer"}),
        ([1, 2**53 + 1], {"integer", "integer beyond 53 bits"}),
        ([2**63 - 1, -(2**63)], {"integer beyond 53 bits"}),
        ([2**63], {"number beyond 64 bits"}),
        ([1.5], {"number"}),
        ([1e19, 1.5], {"number", "number beyond 64 bits"}),
        (["x", ""], {"text"}),
        ([["a"], ["b", "c"]], {"list of texts"}),
        ([[1, 2.5, None]], {"list of numbers"}),
        ([[2**53 + 1], [], [None], ["a", 1]], {"list"}),
        ([{}, {"a": 1}], {"object"}),
        ([True, 1, "x"], {"true or false", "integer", "text"}),
    ],
)
def test_the_kinds_are_those_of_all_values(values: list[Any], kinds: set[str]) -> None:
    rows = [{**BAR, "ts": f"2024-01-02T14:30:{at:02}Z", "x": value} for at, value in enumerate(values)]
    assert of_rows("bars", as_text(rows)) == {"x": (len(values), kinds)}
    assert of_rows("bars", rows) == {"x": (len(values), kinds)}


@both_ways
@pytest.mark.parametrize("name", COMPLETE)
def test_known_fields_and_fields_without_a_value_are_not_counted(send: Send, name: str) -> None:
    row = {**COMPLETE[name], "metadata": {"own": 1}, "nothing": None}
    if name == "ticks":
        row |= {"exchange": "X", "market": "Y", "trade_id": "abc"}
    assert of_rows(name, send([row])) == {}


def test_a_table_is_counted_as_rows_are() -> None:
    table = pa.table(
        {
            **{name: [value] * 3 for name, value in TICK.items() if name != "ts"},
            "ts": pa.array([1_704_205_800_000_000 + at for at in range(3)], pa.timestamp("us")),
            "lots": pa.array([1, None, 2**60]),
            "share": pa.array([0.5, float("nan"), None]),
            "fee": pa.array([Decimal("1.10"), None, None]),
            "legs": pa.array([[1.5], None, None]),
            "seen_at": pa.array([1, None, None], pa.timestamp("ns")),
        }
    )
    dataset = DATASETS["ticks"]
    assert counted(dataset, read_table(dataset, frame_of(table), {})) == {
        "lots": (2, {"integer", "integer beyond 53 bits"}),
        "share": (1, {"number"}),
        "fee": (1, {"text"}),
        "legs": (1, {"list of numbers"}),
        "seen_at": (1, {"text"}),
    }


@both_ways
def test_rejected_rows_are_counted_once_and_those_beside_them(send: Send) -> None:
    rows = [{**BAR, "lots": 1}, {**BAR, "lots": 2, "open": "?"}, {**BAR, "lots": "three", "high": None}, BAR]
    assert of_rows("bars", send(rows)) == {"lots": (3, {"integer", "text"})}
    rejecting = replace(DATASETS["bars"], unknown="reject")
    assert counted(rejecting, read_rows(rejecting, send(rows), {})) == {"lots": (3, {"integer", "text"})}


def test_rows_of_which_each_has_names_of_its_own_are_counted_too() -> None:
    rows = [{**BAR, f"x{number % 50}": number, "lots": 1.5} for number in range(100)]
    assert of_rows("bars", rows) == {"lots": (100, {"number"})} | {f"x{at}": (2, {"integer"}) for at in range(50)}


def test_a_declared_dataset_is_counted_too() -> None:
    dataset = funding()
    assert counted(dataset, read_rows(dataset, json.dumps([{**ROW, "lots": 1}]).encode(), {})) == {
        "lots": (1, {"integer"})
    }


def test_what_python_cannot_represent_is_beyond_all_kinds() -> None:
    text = as_text([BAR])[:-2] + b', "x": 1e400, "y": ' + b"9" * 5_000 + b"}]"
    assert of_rows("bars", text) == {"x": (1, {"number beyond 64 bits"}), "y": (1, {"number beyond 64 bits"})}
    assert seen.kinds_of([msgspec.Raw(b"1")]) == {"number beyond 64 bits"}


def test_the_number_of_names_is_bounded() -> None:
    counts: dict[str, Seen] = {}
    for number in range(3 * MOST_NAMES):
        add_seen(counts, {f"name {number}": Seen(1, {"text"}), "\ud800": Seen(1, {"text"}), "x" * 200: Seen(1)})
    assert len(counts) == MOST_NAMES
    assert counts[OTHERS].rows == 3 * 3 * MOST_NAMES - (MOST_NAMES - 1)
    assert counts[OTHERS].kinds == set()
