"""`mds load` goes by the lane of history, unless it is told otherwise, and says so if no worker takes it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from celery import Celery
from support.brokers import on_redis
from support.fixtures.store import StartWorker
from support.processes import MDS, mds, running
from support.waiting import wait_until

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.protocol import BACKFILL_QUEUE, LANES

ROWS = "ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


@on_redis
def test_a_load_says_by_which_lane_it_goes(
    file: Path, broker_url: str, database_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    servers = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    given = ("load", str(file), "--dataset", "signals")
    dry = mds(tmp_path, *given, "--dry-run", **servers)
    assert "lane          backfill" in dry.stdout.splitlines(), dry
    start_worker()
    for lane in LANES:
        done = mds(tmp_path, *given, "--lane", lane, "--json", **servers)
        assert json.loads(done.stdout)["lane"] == lane, done
        assert json.loads(done.stdout)["sent"] == 1
    wrong = mds(tmp_path, *given, "--lane", "fast", **servers)
    assert (wrong.returncode, "'fast' is not one of 'live', 'backfill'" in wrong.stderr) == (2, True), wrong


@on_redis
def test_a_load_whose_lane_no_worker_takes_says_so(
    file: Path, broker_url: str, database_url: str, producer: Celery, tmp_path: Path
) -> None:
    servers = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    command = (*MDS, "load", str(file), "--dataset", "signals")
    with (
        closing(QueueInspector(producer, BACKFILL_QUEUE)) as lane,
        running(*command, directory=tmp_path, environment=servers) as load,
    ):
        wait_until(lambda: lane.waiting() == 1, load.said, timeout_s=60)
        nobody = f"no worker takes {BACKFILL_QUEUE}; start one without -Q, or with -Q {','.join(LANES.values())}\n"
        wait_until(lambda: nobody in load.said(), load.said, timeout_s=5.0)
