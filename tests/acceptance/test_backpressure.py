"""Backpressure with real processes: a queue fills, the monitor publishes it, the producer slows down."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from kombu import Queue
from market_data_core.events.adapters.redis_streams import RedisStreamsBus
from market_data_core.telemetry import FeedbackEvent as CoreFeedbackEvent
from support.brokers import Broker
from support.processes import Process
from support.stream import STREAM, Stream
from support.waiting import wait_until
from support.web import monitor
from support.workers import working

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.producer.client import StoreClient
from market_data_store.protocol import QUEUE, SERIALIZER, TASK

ROW = {"provider": "p", "symbol": "S", "name": "n"}


pytestmark = pytest.mark.slow


@pytest.fixture
def producing(broker: Broker) -> Iterator[Celery]:
    with Celery("producer", broker=broker.url, set_as_current=False) as app:
        app.conf.task_queues = [Queue(QUEUE, routing_key=QUEUE, queue_arguments={"x-queue-type": "quorum"})]
        yield app


async def read_by_core(url: str, count: int) -> list[CoreFeedbackEvent]:
    """Return this many events, as Core's own bus hands them to a consumer group that reads from the start."""
    bus = RedisStreamsBus(redis_url=url, namespace="mdp")
    read = []
    async with asyncio.timeout(20):
        async for envelope in bus.subscribe("mdp.telemetry.feedback", group="test", consumer="one"):
            read.append(envelope.payload)
            await bus.ack("mdp.telemetry.feedback", envelope.id)
            if len(read) == count:
                break
    await bus.close()
    return read


def rows(numbers: range) -> list[dict[str, Any]]:
    return [{**ROW, "ts": 1_704_067_200 + number, "value": number} for number in numbers]


def send_messages(app: Celery, count: int) -> None:
    """Send `count` messages of one row each."""
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as sender:
        for row in rows(range(count)):
            app.send_task(TASK, args=["signals", [row]], queue=QUEUE, producer=sender, serializer=SERIALIZER)


def slow_down(database: psycopg.Connection[Any], seconds_a_row: float) -> None:
    """Make Postgres slow for each row."""
    body = f"BEGIN PERFORM pg_sleep({seconds_a_row}); RETURN NEW; END"
    database.execute(f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
    database.execute("CREATE TRIGGER slow BEFORE INSERT ON signals FOR EACH ROW EXECUTE FUNCTION slow()")


def count_stored(database: psycopg.Connection[Any]) -> int:
    return int(database.execute("SELECT count(*) FROM signals").fetchall()[0][0])


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by Core's bus, for redis-py 5
def test_a_backlog_dead_workers_and_a_missing_broker_are_published(
    broker: Broker,
    producing: Celery,
    stream: Stream,
    redis_url: str,
    database_url: str,
    database: psycopg.Connection[Any],
    tmp_path: Path,
) -> None:
    servers = {"DATABASE_URL": database_url, "BROKER_URL": broker.url, "REDIS_URL": redis_url}
    stream.client.xgroup_create(STREAM, "test", id="0", mkstream=True)
    with monitor(tmp_path, **servers, MDS_FEEDBACK_HEARTBEAT_S="2") as process:
        stream.wait_for("ok", timeout_s=20)
        send_messages(producing, 9_000)
        sent_at = time.time()
        wait_until(lambda: stream.events()[-1].level.value == "hard", timeout_s=2)
        assert next(event.ts for event in stream.events() if event.level.value == "hard") - sent_at < 2
        wait_until(lambda: stream.events()[-1].queue_size == 9_000, timeout_s=10)
        stream.wait_for("hard", "no_workers", timeout_s=10)

        slow_down(database, 0.001)  # else all is gone between two looks of the monitor
        with working(tmp_path, **servers):
            stream.wait_for("ok", timeout_s=90)
            assert [state for state in stream.states() if state[1] is None][-2:] == [("soft", None), ("ok", None)]
            wait_until(lambda: count_stored(database) == 9_000, timeout_s=60)
        send_messages(producing, 10)
        stream.wait_for("hard", "no_workers", timeout_s=20)

        broker.stop()
        assert stream.wait_for("hard", "broker_unreachable", timeout_s=20).capacity == 10_000
        assert process.is_running
        broker.start()
        stream.wait_for("hard", "no_workers", timeout_s=60)
        assert process.is_running

    events = stream.events()
    read = asyncio.run(read_by_core(redis_url, len(events)))
    assert [(e.level, e.queue_size, e.capacity) for e in read] == [(e.level, e.queue_size, e.capacity) for e in events]
    assert {event.level.value for event in read} == {"ok", "soft", "hard"}
    assert not stream.client.exists(f"{STREAM}.dlq")
    repeated = [new.ts - old.ts for old, new in pairwise(events) if (old.level, old.reason) == (new.level, new.reason)]
    assert repeated
    assert min(repeated) > 1.5  # by the heartbeat alone


def test_a_fast_producer_settles_at_the_rate_of_a_slow_worker(
    broker: Broker,
    producing: Celery,
    stream: Stream,
    redis_url: str,
    database_url: str,
    database: psycopg.Connection[Any],
    tmp_path: Path,
) -> None:
    """Capacity 1,000; each of two processes needs 20 ms per row; the producer offers three times their rate."""
    slow_down(database, 0.02)
    capacity, offered_per_s = 1_000, 3 * 2 * 50
    servers = {"DATABASE_URL": database_url, "BROKER_URL": broker.url, "REDIS_URL": redis_url}
    settings = {"MDS_QUEUE_CAPACITY": str(capacity), "MDS_PREFETCH_MESSAGES": "32"}
    depths: list[int] = []
    done = threading.Event()

    def sample() -> None:
        with closing(QueueInspector(producing, QUEUE)) as inspector:
            while not done.is_set():
                depths.append(inspector.depth())
                done.wait(0.05)

    with working(tmp_path, **servers, **settings), monitor(tmp_path, **servers, **settings):
        sampler = threading.Thread(target=sample)
        try:
            stream.wait_for("ok", timeout_s=20)
            sampler.start()
            wait_until(lambda: depths)
            marks: list[tuple[float, int, int]] = []
            with StoreClient(app=producing, capacity=capacity, max_rows=1, defaults=ROW) as client:
                started, sent = time.monotonic(), 0
                while len(marks) < 2:
                    elapsed = time.monotonic() - started
                    assert elapsed < 180, f"the queue's depth was {max(depths)} at most, and is {depths[-1]}"
                    if sent < elapsed * offered_per_s:
                        client.write("signals", rows(range(sent, sent + 1)))
                        sent += 1
                    else:
                        done.wait(0.001)
                    # From one full queue to another: what the queue itself took or gave is no part of the rates.
                    if depths[-1] >= 0.75 * capacity and elapsed > (marks[0][0] + 30 if marks else 0):
                        marks.append((elapsed, sent, count_stored(database)))
            wait_until(lambda: count_stored(database) == sent, f"{sent} rows", timeout_s=60)
            stream.wait_for("ok", timeout_s=20)
        finally:
            done.set()
            sampler.join()
    (t0, sent0, stored0), (t1, sent1, stored1) = marks
    producer_rate, worker_rate = (sent1 - sent0) / (t1 - t0), (stored1 - stored0) / (t1 - t0)
    assert offered_per_s > 2.5 * worker_rate
    assert producer_rate == pytest.approx(worker_rate, rel=0.2)
    assert max(depths) <= capacity
    levels = [level for level, _ in stream.states()]
    assert levels[0] == "ok"
    assert {"soft", "hard"} <= set(levels)
    assert levels[-2:] == ["soft", "ok"]


def test_another_monitor_takes_over_within_five_seconds(redis_url: str, stream: Stream, tmp_path: Path) -> None:
    settings = {"BROKER_URL": redis_url, "MDS_FEEDBACK_HEARTBEAT_S": "0.5", "MDS_MONITOR_INTERVAL_S": "0.2"}

    def newest_ts() -> float:
        return stream.events()[-1].ts

    def takeover_s(leader: Process, follower: Process) -> float:
        """Seconds without an event after the leader was killed."""
        seen = len(stream.events())
        wait_until(lambda: len(stream.events()) > seen + 4)
        gaps = [new.ts - old.ts for old, new in pairwise(stream.events()[seen:])]
        assert min(gaps) > 0.4  # one tells, not both
        leader.kill()
        killed_at = time.time()
        wait_until(lambda: newest_ts() > killed_at, timeout_s=15)
        assert follower.is_running
        return next(event.ts for event in stream.events() if event.ts > killed_at) - killed_at

    with ExitStack() as stack:
        leader = stack.enter_context(monitor(tmp_path, **settings))
        wait_until(lambda: len(stream.events()) >= 2)
        took: list[float] = []
        while not took or (min(took) >= 5 and len(took) < 3):  # of three, since the machine may be busy elsewhere
            follower = stack.enter_context(monitor(tmp_path, **settings))
            took.append(takeover_s(leader, follower))
            leader = follower
        assert min(took) < 5
