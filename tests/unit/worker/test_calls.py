"""The arguments of a message keep the digits of exact numbers, whichever parser reads its body."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.decoding import decode_rows
from support.own_datasets import FUNDING, ROW

from market_data_store.datasets import DATASETS
from market_data_store.worker.calls import parsed
from market_data_store.worker.envelope import Envelope

RATE = "12345678901234567890.123456789012345678"


@pytest.fixture(autouse=True)
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "datasets.toml").write_text(FUNDING)
    monkeypatch.chdir(tmp_path)
    DATASETS.forget()
    yield
    DATASETS.forget()


def rates(body: str) -> list[Any]:
    call, _ = parsed(Envelope("t", body.replace('"RATE"', RATE).encode(), None, True, None, None))
    found = decode_rows(call.dataset, call.rows, call.defaults, 0)  # type: ignore[arg-type]
    assert not found.rejects, found.rejects
    return found.columns[[column.name for column in call.dataset.columns].index("rate")]


@pytest.mark.parametrize("mark", [0.5, float("nan")])
def test_numbers_of_rows_and_defaults_are_exact(mark: float) -> None:
    row = {**ROW, "mark": mark, "rate": "RATE"}
    without = {name: value for name, value in row.items() if name != "rate"}
    for rows, defaults in (([row], {}), ([without, row], {"rate": "RATE"})):
        args = ["funding", rows, defaults]
        by_protocol_1 = {"task": "store.write", "args": args, "kwargs": {}}
        for body in ([args, {}, {}], [["funding"], {"rows": rows, "defaults": defaults}, {}], by_protocol_1):
            assert rates(json.dumps(body)) == [Decimal(RATE)] * len(rows)
