"""What becomes of fields that a dataset does not know, through a worker: kept or rejected, counted, and replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from celery import Celery
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, StartWorker
from support.processes import mds
from support.rows import BAR, TICK
from support.waiting import wait_until
from support.writing import select

from market_data_store import InvalidRow, StoreClient
from market_data_store.config import settings
from market_data_store.datasets import DATASETS

pytestmark = on_redis

ROWS: list[dict[str, Any]] = [
    {**BAR, "ts": f"2024-01-02T14:{minute}:00Z", "lots": 7 if minute % 2 else None} for minute in range(30, 40)
]


def seen(directory: Path, database_url: str) -> dict[tuple[str, str], dict[str, Any]]:
    done = mds(directory, "datasets", "unknown", "--json", DATABASE_URL=database_url)
    assert done.returncode == 0, done
    return {(each["dataset"], each["name"]): each for each in json.loads(done.stdout)}


def test_a_contract_holds_for_every_way_in_and_its_fields_are_counted(
    start_worker: StartWorker,
    producer: Celery,
    broker_url: str,
    database_url: str,
    database: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    rejecting = start_worker(MDS_UNKNOWN="bars=reject")
    result = producer.send_task(TASK, args=["bars", ROWS], queue=QUEUE).get(timeout=30)
    assert (result["written"], result["rejected"]) == (5, 5)
    assert result["reasons"][0]["reason"].startswith("row: bars does not know 'lots', and its contract is ")
    kept = producer.send_task(TASK, args=["ticks", [{**TICK, "lots": 1.5, "Note": "x"}]], queue=QUEUE)
    assert kept.get(timeout=30)["written"] == 1

    with monkeypatch.context() as patch:
        for name, value in {**variables, "MDS_UNKNOWN": "bars=reject"}.items():
            patch.setenv(name, value)
        settings.cache_clear()
        DATASETS.forget()
        with StoreClient() as client:
            with pytest.raises(InvalidRow, match="bars does not know 'lots'") as wrong:
                client.write("bars", ROWS)
            assert wrong.value.position == 1
            with pytest.raises(InvalidRow, match="bars does not know 'lots'"):
                client.write_table("bars", pa.Table.from_pylist(ROWS))
    settings.cache_clear()
    DATASETS.forget()
    with StoreClient(app=producer, check=False) as client:  # a producer with another contract
        client.write_table("bars", pa.Table.from_pylist([{**row, "symbol": "TABLE"} for row in ROWS]))
    letters = "SELECT count(*) FROM dead_letters WHERE dataset = 'bars'"
    wait_until(lambda: select(database, letters) == [(10,)], "the table's rows are letters too")

    (tmp_path / "bars.ndjson").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    refused = mds(tmp_path, "load", "bars.ndjson", "--dataset", "bars", **variables, MDS_UNKNOWN="bars=reject")
    assert (refused.returncode, "bars does not know 'lots'" in refused.stderr) == (2, True), refused

    every = {("bars", "lots"): (10, ["integer"]), ("ticks", "Note"): (1, ["text"]), ("ticks", "lots"): (1, ["number"])}

    def counts() -> bool:
        found = seen(tmp_path, database_url)
        return {key: (each["rows"], each["kinds"]) for key, each in found.items() if key in every} == every

    wait_until(counts, "all are counted")
    mds(tmp_path, "dead-letters", "replay", "--dataset", "bars", **variables)
    wait_until(lambda: seen(tmp_path, database_url)[("bars", "lots")]["rows"] == 20, "replays are rejected and counted")
    assert select(database, letters) == [(10,)]

    rejecting.stop()  # a contract that keeps takes the letters
    start_worker()
    mds(tmp_path, "dead-letters", "replay", "--dataset", "bars", **variables)
    wait_until(lambda: select(database, letters) == [(0,)], "the letters are written")
    metadata = "SELECT DISTINCT metadata FROM bars_ohlcv WHERE metadata IS NOT NULL"
    assert select(database, metadata) == [({"lots": 7},)]
    shown = mds(tmp_path, "datasets", "unknown", "bars", DATABASE_URL=database_url, MDS_UNKNOWN="bars=reject").stdout
    header, line = shown.splitlines()
    assert header.split()[:3] == ["dataset", "field", "kinds"]
    assert line.startswith("bars")
    assert line.rstrip().endswith("rejects its rows")
