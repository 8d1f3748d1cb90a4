"""A dataset whose table takes no row: its messages wait beside the queue, the others are written, and all is mended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from support.brokers import slow_on_rabbitmq
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, Send, StartWorker, Stored
from support.waiting import wait_until

from market_data_store.coordinator.queue import QueueInspector

BREAK, MEND = "ALTER TABLE bars_ohlcv RENAME vwap TO away", "ALTER TABLE bars_ohlcv RENAME away TO vwap"
PROBE_S = "1"


@pytest.fixture
def held(queue: QueueInspector) -> Callable[[], int]:
    """How many messages of bars are held."""
    return lambda: (queue.held() or {}).get("bars", 0)


def signal_row(n: int) -> dict[str, Any]:
    return {"provider": "p", "symbol": "S", "ts": 1_600_000_000 + n, "name": "n", "value": 1.0}


def count(database: Connection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


@slow_on_rabbitmq
def test_a_dataset_in_trouble_is_held_while_others_are_written_and_flows_back_when_it_is_mended(
    start_worker: StartWorker,
    send: Send,
    producer: Celery,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    held: Callable[[], int],
    queue: QueueInspector,
) -> None:
    database.execute(BREAK)
    worker = start_worker(MDS_HELD_PROBE_S=PROBE_S)
    for n in range(60):
        send(bars[n : n + 1])
        producer.send_task(TASK, args=["signals", [signal_row(n)]], queue=QUEUE)
    wait_until(lambda: count(database, "signals") == 60, timeout_s=10)
    wait_until(lambda: held() >= 59, timeout_s=10)  # the first may be the one that is tried
    assert worker.logs().count("The dataset bars is held: ") == 1
    worker.restart()
    send(bars[60:61])
    wait_until(lambda: held() >= 60, timeout_s=15)
    assert count(database, "bars_ohlcv") == 0
    database.execute(MEND)
    wait_until(lambda: stored() == bars[:61], timeout_s=30)
    wait_until(lambda: held() == queue.depth() == 0)
    assert count(database, "dead_letters") == 0


@pytest.mark.slow
def test_what_is_held_does_not_win_over_what_was_sent_later(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    held: Callable[[], int],
) -> None:
    database.execute(BREAK)
    start_worker(MDS_HELD_PROBE_S="2")
    send([{**bars[0], "close": 1.0}])
    wait_until(lambda: held() == 1)
    database.execute(MEND)
    send(bars[:1]).get(timeout=30)
    wait_until(lambda: held() == 0, timeout_s=30)
    wait_until(lambda: stored() == bars[:1])


@pytest.mark.slow
def test_workers_killed_in_the_middle_of_moves_lose_nothing(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    held: Callable[[], int],
) -> None:
    database.execute(BREAK)
    # Each of the three kills may meet the same message's turn, and three such turns would make a dead letter.
    worker = start_worker(MDS_HELD_PROBE_S=PROBE_S, MDS_VISIBILITY_TIMEOUT_S="2", MDS_MAX_DELIVERIES="5")
    for kill in range(3):
        for n in range(100 * kill, 100 * (kill + 1)):
            send(bars[n : n + 1])
        wait_until(lambda kill=kill: held() > 100 * kill, timeout_s=20)  # type: ignore[misc]
        worker.kill("SIGKILL")
        worker.restart()
    database.execute(MEND)
    wait_until(lambda: stored() == bars[:300], timeout_s=60)
    wait_until(lambda: held() == 0)
    assert count(database, "dead_letters") == 0


@pytest.mark.slow
def test_a_pool_process_killed_with_a_held_dataset_loses_nothing(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    held: Callable[[], int],
) -> None:
    database.execute(BREAK)
    worker = start_worker(MDS_HELD_PROBE_S=PROBE_S)
    for n in range(20):
        send(bars[n : n + 1])
    for pid in worker.pool_pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: held() >= 19, timeout_s=20)
    database.execute(MEND)
    wait_until(lambda: stored() == bars[:20], timeout_s=30)


@pytest.mark.slow
def test_a_message_with_a_reason_of_its_own_does_not_keep_the_others_held(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    held: Callable[[], int],
) -> None:
    database.execute("ALTER TABLE bars_ohlcv ADD CHECK (symbol <> 'BAD')")
    start_worker(MDS_HELD_PROBE_S=PROBE_S)
    # Nothing is stored, and more than a few rows are refused: that looks like the dataset's fault.
    send([{**bar, "symbol": "BAD"} for bar in bars[:10]])
    wait_until(lambda: held() == 1, timeout_s=10)
    for n in range(5):
        send(bars[n : n + 1])
    wait_until(lambda: stored() == bars[:5], timeout_s=20)
    # Now that there is something to compare with, it is known whose fault it is.
    wait_until(lambda: count(database, "dead_letters") == 10, timeout_s=20)
    wait_until(lambda: held() == 0)
