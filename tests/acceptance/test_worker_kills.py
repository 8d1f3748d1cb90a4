"""Processes are killed and servers restarted under load: each row is stored once, each task has its result."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis
from celery import Celery
from support.brokers import on_rabbitmq, on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, HoldBack, Send, StartWorker, Stored
from support.rabbitmq import rabbitmq
from support.waiting import wait_until

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.local import start_valkey

pytestmark = pytest.mark.slow


def test_pool_processes_killed_in_mid_batch(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    writes_held_back: HoldBack,
) -> None:
    worker = start_worker()
    killed = worker.pool_pids
    with writes_held_back() as until_held:
        results = [send(bars[:10])]
        until_held(1)
        results += [send(bars[n : n + 10]) for n in range(10, 500, 10)]
        until_held(2)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
    assert [sum(result.get(timeout=30).values()) for result in results] == [10] * 50
    assert stored() == bars[:500]
    assert database.execute("SELECT FROM dead_letters").fetchall() == []
    assert worker.pool_pids.isdisjoint(killed)


@on_rabbitmq
def test_a_worker_killed_again_and_again(
    start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored, queue: QueueInspector
) -> None:
    results = [send(bars[n : n + 5]) for n in range(0, 5_000, 5)]
    worker = start_worker(MDS_BATCH_ROWS="50")

    def kill_after(rows: int) -> None:
        wait_until(lambda: len(stored()) >= rows)
        worker.kill()
        worker.restart()

    for rows in (1_000, 2_000, 3_000):
        kill_after(rows)
    assert [sum(result.get(timeout=30).values()) for result in results] == [5] * 1_000
    assert stored() == bars[:5_000]
    wait_until(lambda: queue.depth() == 0)


@on_rabbitmq
def test_rabbitmq_killed_in_mid_batch(
    start_worker: StartWorker, bars: list[Bar], stored: Stored, writes_held_back: HoldBack, tmp_path: Path
) -> None:
    # Of its own: RabbitMQ 3.10, killed, may answer 541 for ever for a queue that had been deleted and made again.
    with rabbitmq(tmp_path / "rabbitmq") as server, Celery(broker=server.url, set_as_current=False) as producer:
        producer.conf.task_create_missing_queue_type = "quorum"
        producer.conf.broker_transport_options = {"confirm_publish": True}
        start_worker(BROKER_URL=server.url)

        def send(rows: list[Bar]) -> None:
            producer.send_task(TASK, args=["bars", rows], queue=QUEUE)

        with writes_held_back() as until_held:
            send(bars[:1])
            until_held(1)
            for n in range(1, 200):
                send(bars[n : n + 1])
            until_held(2)
            server.kill()
            server.start()
        wait_until(lambda: stored() == bars[:200], timeout_s=60)
        send(bars[200:210])
        wait_until(lambda: stored() == bars[:210], timeout_s=60)


@on_redis
def test_redis_killed_in_mid_batch(
    start_worker: StartWorker, bars: list[Bar], stored: Stored, writes_held_back: HoldBack, tmp_path: Path
) -> None:
    before = start_valkey(tmp_path / "valkey")
    with before, Celery(broker=before.url, set_as_current=False) as producer, writes_held_back() as until_held:
        worker = start_worker(BROKER_URL=before.url, MDS_VISIBILITY_TIMEOUT_S="2")
        for n in range(200):
            producer.send_task(TASK, args=["bars", bars[n : n + 1]], queue=QUEUE)
            if n == 0:
                until_held(1)
        until_held(2)
        with redis.Redis.from_url(before.url) as client:
            wait_until(
                lambda: client.hlen("unacked") == 200
            )  # what is on its way to the worker can be lost (kombu #305)
        before.stop()
        after = start_valkey(tmp_path / "valkey", port=before.port)
        wait_until(lambda: worker.logs().count("Connected to") == 2)
    with after:
        wait_until(lambda: stored() == bars[:200], timeout_s=30)
