"""While the table of dead letters is in trouble, messages that need a letter wait beside the queue."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import Celery
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, Send, StartWorker, Stored
from support.waiting import wait_until

from market_data_store.coordinator.queue import QueueInspector

pytestmark = pytest.mark.slow

BREAK, MEND = "ALTER TABLE dead_letters RENAME TO away", "ALTER TABLE away RENAME TO dead_letters"


def kept(database: Connection) -> list[Any]:
    return database.execute("SELECT task_id, position FROM dead_letters ORDER BY task_id, position").fetchall()


def test_messages_that_need_a_letter_wait_for_it_and_occupy_no_process(
    start_worker: StartWorker,
    send: Send,
    producer: Celery,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    queue: QueueInspector,
) -> None:
    def held() -> int:
        return (queue.held() or {}).get("dead_letters", 0)

    database.execute("ALTER TABLE bars_ohlcv ADD CHECK (close < 1000)")
    database.execute(BREAK)
    worker = start_worker(MDS_HELD_PROBE_S="2")
    for n in range(10):  # one row of each is rejected, one refused
        send([bars[n], {**bars[n], "close": "x"}, {**bars[n], "symbol": "BAD", "close": 5_000.0}], task_id=f"t{n}")
    producer.send_task(TASK, args=["no such dataset", []], queue=QUEUE, task_id="unusable")
    for n in range(10, 60):
        send(bars[n : n + 1])
    started = time.monotonic()
    wait_until(lambda: stored() == bars[:60], timeout_s=20)
    assert time.monotonic() - started < 15
    wait_until(lambda: held() >= 10, timeout_s=10)  # one may be the one that is tried
    results = [send(bars[n : n + 1]) for n in range(60, 70)]
    for result in results:
        result.get(timeout=3)
    assert worker.logs().count("The table dead_letters is held: ") == 1
    assert worker.logs().count('relation "dead_letters" does not exist') <= 2
    worker.restart()
    wait_until(lambda: held() >= 10, timeout_s=10)
    database.execute(MEND)
    expected = sorted([*((f"t{n}", position) for n in range(10) for position in (1, 2)), ("unusable", 0)])
    wait_until(lambda: kept(database) == expected, timeout_s=30)
    wait_until(lambda: held() == queue.depth() == 0)
    assert stored() == bars[:70]
    assert "goes back to the broker" not in worker.logs()
