"""A dataset that takes no unknown fields takes no file that has them: nothing is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.rows import BAR

from market_data_store.datasets import DATASETS
from market_data_store.files.options import Options, Undecided
from market_data_store.files.plan import make_plan

OPTIONS = Options(dataset=replace(DATASETS["bars"], unknown="reject"))
#: Only the last row has a value of its own in `lots`.
ROWS = [{**BAR, "ts": f"2024-01-02T14:3{minute}:00Z", "lots": 7 if minute == 9 else None} for minute in range(10)]


def written(directory: Path, name: str, *, lots: bool) -> Path:
    rows = [{key: value for key, value in row.items() if lots or key != "lots"} for row in ROWS]
    path = directory / name
    if name.endswith(".csv"):
        lines = [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    elif name.endswith(".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["bars.csv", "bars.ndjson", "bars.parquet"])
def test_a_file_with_an_unknown_column_is_refused_before_a_row_is_sent(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, lots=True)
    with pytest.raises(Undecided) as caught:
        make_plan(path, OPTIONS)
    assert str(caught.value) == (
        f"{path}: bars does not know 'lots', and its contract is unknown = \"reject\"; give --map FIELD=COLUMN, "
        "declare a column, or load with MDS_UNKNOWN=bars=keep, which keeps them in metadata"
    )
    assert make_plan(path, replace(OPTIONS, dataset=DATASETS["bars"])).rows == len(ROWS)
    path.unlink()
    assert make_plan(written(tmp_path, name, lots=False), OPTIONS).rows == len(ROWS)


def test_a_column_without_any_value_refuses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    header, *lines = written(tmp_path, "all.csv", lots=False).read_text().splitlines()
    path.write_text("\n".join([f"{header},lots", *(f"{line}," for line in lines)]) + "\n")
    assert make_plan(path, OPTIONS).rows == len(ROWS)
