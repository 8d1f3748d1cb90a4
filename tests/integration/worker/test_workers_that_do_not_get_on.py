"""Workers that hear nothing, do nothing, or use another transport: what they say, and that they end to be started anew.

Those that have nothing to do, or can do nothing, go on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from celery import Celery
from support.brokers import on_rabbitmq, on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, Bar, Send, StartWorker, Stored
from support.processes import mds
from support.waiting import wait_until
from support.web import get, monitor, serving
from support.workers import Worker, stop_consuming

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.local import free_port

EXIT_S = 4.0
ENDS = "This worker ends, to be started anew: "

Ends = Callable[..., int]


def exit_code(worker: Worker, *, timeout_s: float = 40.0) -> int:
    return worker._process.wait(timeout_s)


def order(producer: Celery, name: str, worker: Worker) -> None:
    producer.control.broadcast(name, destination=[worker.hostname()])


def lives_on(worker: Worker, seconds: float) -> None:
    """The worker has lived for this long, and runs."""
    born = psutil.Process(worker.pid).create_time()
    wait_until(lambda: time.time() - born > seconds, timeout_s=seconds + 5)
    assert worker._process.is_running
    assert ENDS not in worker.logs()


def is_consumed(connection: Any) -> bool:
    """Whether the queue is there, and has a consumer."""
    with connection.channel() as channel:
        try:
            return bool(channel.queue_declare(QUEUE, passive=True).consumer_count)
        except connection.channel_errors:
            return False


def runs(pid: int) -> bool:
    """Whether the process is there, and more than an entry that nobody has asked for."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_deaf_worker_ends_and_the_next_one_writes(
    start_worker: StartWorker, producer: Celery, send: Send, bars: list[Bar], stored: Stored
) -> None:
    worker = start_worker(module="support.deaf_worker", MDS_EXIT_WHEN_STALLED=str(EXIT_S))
    send(bars[:1]).get(timeout=20)
    assert producer.control.broadcast("deafen", reply=True, timeout=5, limit=1)
    for n in range(1, 6):
        send(bars[n : n + 1])
    assert exit_code(worker) == 1
    assert f"{ENDS}none of the messages that wait has come to it for" in worker.logs()
    start_worker(MDS_EXIT_WHEN_STALLED=str(EXIT_S))
    wait_until(lambda: stored() == bars[:6])


@pytest.mark.soak
def test_a_worker_whose_loop_hangs_is_ended(
    start_worker: StartWorker, producer: Celery, send: Send, bars: list[Bar], stored: Stored
) -> None:
    worker = start_worker(module="support.deaf_worker", MDS_EXIT_WHEN_STALLED=str(EXIT_S))
    order(producer, "hang", worker)
    send(bars[:1])
    send(bars[1:2])
    pool = worker.pool_pids
    assert exit_code(worker, timeout_s=120) == 1
    wait_until(lambda: not any(map(runs, pool)))
    start_worker(MDS_VISIBILITY_TIMEOUT_S="2")
    wait_until(lambda: stored() == bars[:2])


@on_redis
@pytest.mark.slow
def test_a_worker_whose_jobs_do_not_end_ends_itself(
    start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored
) -> None:
    worker = start_worker(MDS_EXIT_WHEN_STALLED=str(EXIT_S))
    for pid in worker.pool_pids:
        os.kill(pid, signal.SIGSTOP)
    send(bars[:1])
    assert exit_code(worker) == 1
    assert f"{ENDS}none of its jobs has ended for" in worker.logs()
    start_worker()
    wait_until(lambda: stored() == bars[:1])


@on_redis
@pytest.mark.slow
def test_a_worker_that_falls_back_to_celerys_transport_ends_once_and_says_so_after_that(
    broker_url: str,
    redis_url: str,
    database_url: str,
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    tmp_path: Path,
) -> None:
    with redis.Redis.from_url(redis_url) as server:
        server.execute_command("ACL", "SETUSER", "worker", "on", "nopass", "~*", "&*", "+@all")
        try:
            url = broker_url.replace("redis://", "redis://worker:x@")
            worker = start_worker(BROKER_URL=url, MDS_EXIT_WHEN_STALLED=str(EXIT_S))
            send(bars[:1]).get(timeout=20)
            lives_on(worker, EXIT_S + 2)
            server.execute_command("ACL", "SETUSER", "worker", "-eval")
            send(bars[1:2]).get(timeout=20)
            assert exit_code(worker) == 1
            assert f"{ENDS}it has used Celery's own transport for" in worker.logs()
            worker.restart()
            lives_on(worker, EXIT_S + 5)
            servers = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
            said = "1 of 1 workers use Celery's own transport: Redis refuses EVAL"
            wait_until(lambda: said in mds(tmp_path, "status", **servers).stdout, timeout_s=60)
        finally:
            server.execute_command("ACL", "DELUSER", "worker")


@on_redis
@pytest.mark.slow
def test_a_deaf_worker_is_seen_in_every_place(
    broker_url: str,
    redis_url: str,
    database_url: str,
    start_worker: StartWorker,
    producer: Celery,
    send: Send,
    bars: list[Bar],
    tmp_path: Path,
) -> None:
    servers = {"BROKER_URL": broker_url, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    port = free_port()
    worker = start_worker(module="support.deaf_worker")
    with monitor(tmp_path, **servers, MDS_MONITOR_METRICS_PORT=str(port)), serving(tmp_path, **servers) as web:
        wait_until(lambda: web.states()["workers"] == "healthy")
        assert producer.control.broadcast("deafen", reply=True, timeout=5, limit=1)
        for n in range(5):
            send(bars[n : n + 1])
        wait_until(lambda: web.client.get("/readyz").status_code == 503, timeout_s=60)
        states = web.states()
        assert (states["datasets"], states["workers"]) == ("unhealthy", "degraded")
        said = "1 of 1 workers have taken no message, although some wait, for more than 8 s"
        status = web.client.get("/status.json").json()
        assert status["workers_in_trouble"] == [said]
        assert "nothing was committed for" in status["headline"]
        assert said in mds(tmp_path, "status", **servers).stdout
        wait_until(lambda: 'mds_workers_in_trouble{trouble="deaf"} 1.0' in get(f"http://127.0.0.1:{port}/metrics").text)
    text = "Messages wait in the queue, and none has come to this worker for"
    assert [text in line for line in worker.logs().splitlines() if "event=trouble " in line].count(True) == 1


@on_rabbitmq
@pytest.mark.slow
def test_a_worker_whose_queue_is_deleted_consumes_the_next_one(
    start_worker: StartWorker, producer: Celery, send: Send, bars: list[Bar], stored: Stored
) -> None:
    worker = start_worker(MDS_EXIT_WHEN_STALLED=str(EXIT_S))
    with producer.connection_for_write() as connection:
        for n in range(3):
            send(bars[n : n + 1])
            wait_until(lambda n=n: stored() == bars[: n + 1])  # type: ignore[misc]
            connection.default_channel.queue_delete(QUEUE)
            wait_until(lambda: is_consumed(connection))
    assert ENDS not in worker.logs()


@on_redis
@pytest.mark.slow
def test_a_worker_whose_connections_are_killed_again_and_again_hears(
    redis_url: str, start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored
) -> None:
    worker = start_worker(MDS_EXIT_WHEN_STALLED="20")
    with redis.Redis.from_url(redis_url) as server:
        for n in range(20):
            send(bars[n : n + 1])
            for client in server.client_list():
                if client["cmd"] in ("blmove", "eval", "hdel", "zrem", "subscribe"):
                    server.client_kill_filter(_id=client["id"])
    wait_until(lambda: stored() == bars[:20], timeout_s=60)
    assert ENDS not in worker.logs()


@pytest.mark.slow
def test_a_worker_that_has_nothing_to_do_or_whose_datasets_are_held_goes_on(
    start_worker: StartWorker, send: Send, bars: list[Bar], database: Connection, queue: QueueInspector
) -> None:
    worker = start_worker(MDS_EXIT_WHEN_STALLED="2", MDS_HELD_PROBE_S="1")
    lives_on(worker, 8)
    database.execute("ALTER TABLE bars_ohlcv RENAME vwap TO away")
    for n in range(50):
        send(bars[n : n + 1])
    held: Any = lambda: (queue.held() or {}).get("bars", 0)  # noqa: E731
    wait_until(lambda: held() >= 49)
    lives_on(worker, 20)
    assert held() >= 49


@on_redis
@pytest.mark.slow
def test_a_worker_that_was_ordered_to_stop_consuming_goes_on(
    start_worker: StartWorker, producer: Celery, send: Send, bars: list[Bar]
) -> None:
    worker = start_worker(MDS_EXIT_WHEN_STALLED="2", MDS_REMOTE_CONTROL="true")
    stop_consuming(producer, worker)
    send(bars[:1])
    lives_on(worker, 10)
