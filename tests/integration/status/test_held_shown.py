"""A held dataset is seen wherever an operator looks, with its SQLSTATE and the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import Bar, Send, StartWorker
from support.processes import mds
from support.stream import Stream
from support.waiting import wait_until
from support.web import monitor, serving

REASON = "bars_ohlcv.vwap is missing; the store needs double precision"


@on_redis
@pytest.mark.slow
def test_a_held_dataset_is_seen_in_every_place_until_it_is_mended(
    broker_url: str,
    redis_url: str,
    database_url: str,
    database: Connection,
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stream: Stream,
    tmp_path: Path,
) -> None:
    servers = {"BROKER_URL": broker_url, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    settings = {**servers, "MDS_HELD_CAPACITY": "3", "MDS_HELD_PROBE_S": "2"}
    start_worker(MDS_HELD_PROBE_S="2")
    database.execute("ALTER TABLE bars_ohlcv RENAME vwap TO away")
    for n in range(5):
        send([{**bars[n], "vwap": 1.0}])
    with monitor(tmp_path, **settings), serving(tmp_path, **settings) as web:
        wait_until(lambda: web.client.get("/readyz").status_code == 503, timeout_s=15)
        assert web.states()["datasets"] == "unhealthy"
        (component,) = (each for each in web.health().components if each.name == "datasets")
        assert f"bars is held: {REASON} (SQLSTATE 42703)" in str(component.details["error"])
        status = web.client.get("/status.json").json()
        assert [(each["dataset"], each["sqlstate"], each["reason"]) for each in status["held"]] == [
            ("bars", "42703", REASON)
        ]
        assert REASON in status["headline"]
        stream.wait_for("hard", "dataset_held", timeout_s=15)
        said = mds(tmp_path, "status", **settings)
        assert said.returncode == 1
        assert f"bars is held: {REASON} (SQLSTATE 42703)" in said.stdout
        assert json.loads(mds(tmp_path, "status", "--json", **settings).stdout)["queue"]["reason"] == "dataset_held"
        database.execute("ALTER TABLE bars_ohlcv RENAME away TO vwap")
        wait_until(lambda: web.client.get("/readyz").status_code == 200, timeout_s=30)
        wait_until(lambda: stream.events()[-1].level.value == "ok", timeout_s=15)
        assert web.client.get("/status.json").json()["held"] == []
