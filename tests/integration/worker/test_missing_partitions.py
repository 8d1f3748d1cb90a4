"""Rows without a partition wait until a monitor has made it, within seconds, and others of the dataset go on."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery
from support.brokers import slow_on_rabbitmq
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, StartWorker
from support.partitions import partitions
from support.writing import bar, select

from market_data_store.datasets.spans import Span
from market_data_store.postgres import schema
from market_data_store.upkeep.partitions import Partitions

pytestmark = slow_on_rabbitmq

#: By the issue, a row that has no partition is stored within so many seconds.
WITHIN_S = 10.0


def test_only_rows_without_a_partition_wait_for_a_monitor(
    producer: Celery,
    start_worker: StartWorker,
    database: Connection,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sent(**changes: str) -> Any:
        return producer.send_task(TASK, args=["bars", [bar(**changes)]], queue=QUEUE)

    now = datetime.now(UTC).isoformat()
    with partitions(monkeypatch):
        schema.upgrade(database_url)
        worker = start_worker(MDS_PARTITIONS="bars=month")
        late = sent(ts="2016-03-04")
        worker.wait_for_log("The dataset bars has rows that wait: no partition for 2016_03; the monitor makes it")
        # Nobody makes it, and the dataset's other rows are written.
        assert sent(ts=now).get(timeout=10)["written"] == 1
        assert select(database, "SELECT count(*) FROM bars_ohlcv") == [(1,)]
        monitor = Partitions(database_url, {"bars": Span.MONTH})
        monitor.start()
        try:
            assert late.get(timeout=60)["written"] == 1
            # With a monitor, the time is bounded, also for the next.
            began = time.monotonic()
            assert sent(ts="1995-07-01").get(timeout=60)["written"] == 1
            assert time.monotonic() - began < WITHIN_S
            several = [sent(ts=f"{year}-01-01") for year in range(1990, 1995)]
            assert [each.get(timeout=60)["written"] for each in several] == [1] * 5
            assert time.monotonic() - began < 2 * WITHIN_S
        finally:
            monitor.stop()
    assert select(database, "SELECT count(*) FROM partitions_wanted") == [(0,)]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]
