"""What becomes of a field that a dataset does not know is what its contract says, however the row comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.decoding import decode_frame, decode_rows
from support.own_datasets import FUNDING, ROW, datasets
from support.rows import BAR, COMPLETE, NOW, TICK, Send, both_ways

from market_data_store.config import settings
from market_data_store.datasets import DATASETS, Dataset
from market_data_store.wire.arrow import frame_of
from market_data_store.wire.rows import first_reject

REASON = (
    "row: bars does not know 'lots', and its contract is unknown = \"reject\"; remove or rename what is not a field "
    "(`mds datasets bars` lists the fields), or declare a column"
)


def rejecting(name: str) -> Dataset:
    return replace(DATASETS[name], unknown="reject")


@both_ways
def test_only_rows_with_unknown_fields_are_rejected_and_the_reason_names_them(send: Send) -> None:
    bars = rejecting("bars")
    rows: list[Any] = [BAR, {**BAR, "ts": "2024-01-02T14:31:00Z", "lots": 7}]
    found = decode_rows(bars, send(rows), {}, NOW)
    assert found.positions == [0]
    (reject,) = found.rejects
    assert (reject.position, reject.reason) == (1, REASON)
    assert reject.pattern == REASON.replace("'lots'", "…")
    assert json.loads(reject.row)["lots"] == 7
    checked = first_reject(bars, send(rows), {})
    assert checked is not None
    assert (checked.position, checked.reason) == (1, REASON)
    assert first_reject(bars, send([BAR]), {}) is None


def test_a_table_is_treated_as_rows_are() -> None:
    bars = rejecting("bars")
    columns = {name: [value] * 4 for name, value in BAR.items() if name != "ts"}
    times = [f"2024-01-02T14:3{minute}:00Z" for minute in range(4)]
    table = pa.table({**columns, "ts": times, "lots": pa.array([None, 1.5, None, float("nan")])})
    found = decode_frame(bars, frame_of(table), {}, NOW)
    assert found.positions == [0, 2, 3]
    assert [(each.position, each.reason) for each in found.rejects] == [(1, REASON)]
    without = decode_frame(bars, frame_of(table.drop_columns("lots")), {}, NOW)
    assert without.positions == [0, 1, 2, 3]


@both_ways
@pytest.mark.parametrize("name", COMPLETE)
def test_what_a_dataset_knows_or_ignores_rejects_no_row(send: Send, name: str) -> None:
    row = {**COMPLETE[name], "metadata": {"anything": 1}, "nothing": None, "": None}
    if name == "bars":
        row |= {"tenant_id": "t", "idempotency_key": "k", "closed": True}
    if name == "ticks":
        row |= {"exchange": "X", "market": "Y", "#occurrence": 2}
    found = decode_rows(rejecting(name), send([row]), {"unheard": 1}, NOW)
    assert (found.positions, found.rejects) == ([0], [])


@both_ways
def test_many_names_and_long_ones_make_a_short_reason(send: Send) -> None:
    row = {**TICK, **{f"field_{number:03}{'x' * 200}": number for number in range(70)}}
    (reject,) = decode_rows(rejecting("ticks"), send([row]), {}, NOW).rejects
    assert "field_000" in reject.reason
    assert " and 60 more" in reject.reason
    assert len(reject.reason) < 1_500


@both_ways
@pytest.mark.parametrize("contract", ["keep", "add"])
def test_the_other_contracts_keep_it_in_metadata(send: Send, contract: Any) -> None:
    found = decode_rows(replace(DATASETS["bars"], unknown=contract), send([{**BAR, "lots": 7}]), {}, NOW)
    assert found.rejects == []
    assert json.loads(found.columns[-1][0]) == {"lots": 7}


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Settings and declarations are read anew, in this test and after it."""
    settings.cache_clear()
    DATASETS.forget()
    yield
    settings.cache_clear()
    DATASETS.forget()


@pytest.mark.usefixtures("forgotten")
def test_a_declaration_says_it_and_the_setting_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = FUNDING.replace('key = ["provider"', 'unknown = "reject"\nkey = ["provider"')
    assert datasets(text)["funding"].unknown == "reject"
    assert datasets(FUNDING)["funding"].unknown == "keep"
    (tmp_path / "datasets.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert [DATASETS["funding"].unknown, DATASETS["bars"].unknown] == ["reject", "keep"]
    monkeypatch.setenv("MDS_UNKNOWN", "funding=add, bars=reject")
    settings.cache_clear()
    DATASETS.forget()
    assert [DATASETS["funding"].unknown, DATASETS["bars"].unknown, DATASETS["ticks"].unknown] == [
        "add",
        "reject",
        "keep",
    ]
    (reject,) = decode_rows(DATASETS["bars"], [{**BAR, "lots": 1}], {}, NOW).rejects
    assert reject.reason == REASON
    assert decode_rows(DATASETS["funding"], [{**ROW, "lots": 1}], {}, NOW).rejects == []
