"""Producers hear that the database is nearly full before a write fails, and everyone sees it."""

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

SIZE = "SELECT pg_database_size(current_database())"


@on_redis
@pytest.mark.slow
def test_producers_hear_that_the_database_is_nearly_full_until_there_is_room(
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
    ((used,),) = database.execute(SIZE).fetchall()
    servers = {"BROKER_URL": broker_url, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    settings = {**servers, "MDS_DATABASE_QUOTA_BYTES": str(round(used / 0.85))}
    start_worker()
    with monitor(tmp_path, **settings), serving(tmp_path, **settings) as web:
        wait_until(lambda: [event.level.value for event in stream.events()][-1:] == ["ok"], timeout_s=15)
        database.execute("CREATE TABLE filler AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 3000)")
        stream.wait_for("hard", "database_full", timeout_s=30)
        assert send(bars[:3]).get(timeout=20)["written"] == 3  # it is a warning: there still is room
        wait_until(lambda: "the database is nearly full" in web.client.get("/status.json").json()["headline"])
        status = mds(tmp_path, "status", "--json", **settings)
        assert json.loads(status.stdout)["queue"]["reason"] == "database_full"
        database.execute("DROP TABLE filler")
        wait_until(lambda: stream.events()[-1].level.value == "ok", timeout_s=30)
        wait_until(lambda: web.client.get("/status.json").json()["headline"].startswith("ok"), timeout_s=30)
