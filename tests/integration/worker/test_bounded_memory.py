"""A pool process has a limit of memory: a message that meets it becomes a dead letter, and the others are written."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import Bar, Send, StartWorker, Stored
from support.waiting import wait_until

from market_data_store import dead_letters

pytestmark = [on_redis, pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")]

#: Rows that take 10 MB in a message, and 200 MB as objects: with a NaN all are read at once.
LARGE: list[Any] = [{"a": [[]] * 20}] * 120_000 + [{"a": math.nan}]


def test_a_message_that_takes_too_much_memory_costs_no_other(
    start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    worker = start_worker(MDS_POOL_MEMORY_BYTES=str(96 * 1024 * 1024))
    processes = worker.pool_pids
    large = send(LARGE, task_id="large")
    small = [send(bars[n : n + 1]) for n in range(20)]
    assert [result.get(timeout=60)["written"] for result in small] == [1] * 20
    wait_until(lambda: dead_letters.count(database) == 1, timeout_s=60)
    (kept,) = dead_letters.stream(database)
    assert (kept.task_id, kept.body_bytes) == ("large", len(kept.body or b""))
    assert kept.reason.startswith("message: 3 deliveries")
    assert json.loads(kept.body or b"")[0][0] == "bars"
    assert worker.pool_pids == processes
    assert large.failed()
    assert len(stored()) == 20
