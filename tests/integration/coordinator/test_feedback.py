"""Inspection, receivers and the producer's brake, on real brokers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from market_data_core.protocols import Sink
from prometheus_client import REGISTRY
from support.waiting import wait_until
from support.workers import Worker

from market_data_store.config import Settings
from market_data_store.coordinator.feedback import FeedbackEvent, backpressure_changed, feedback_bus
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.receivers import connected
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.errors import Backpressure, BrokerUnavailable
from market_data_store.local import free_port, start_valkey
from market_data_store.metrics.definitions import count_delivery
from market_data_store.producer.client import StoreClient
from market_data_store.producer.sink import StoreSink
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE, TASK, again_queue, held_queue

ROW = {"provider": "p", "symbol": "S", "name": "n", "ts": 1_704_067_200}


@pytest.fixture
def inspector(producer: Celery) -> Iterator[QueueInspector]:
    with closing(QueueInspector(producer, QUEUE)) as inspector:
        yield inspector


def fill(producer: Celery, messages: int) -> None:
    with StoreClient(app=producer, max_rows=1, on_pressure="ignore") as client:
        for number in range(messages):
            client.write("signals", [{**ROW, "ts": 1_704_067_200 + number}])


def purge(producer: Celery) -> None:
    with producer.connection_for_write() as connection:
        connection.default_channel.queue_purge(QUEUE)


def test_depth_counts_what_waits_and_a_missing_queue_is_empty(producer: Celery, inspector: QueueInspector) -> None:
    assert inspector.depth() == 0
    fill(producer, 3)
    wait_until(lambda: inspector.depth() == 3)  # RabbitMQ counts a moment later than it confirms


def put(producer: Celery, queue: str, messages: int = 1) -> None:
    for _ in range(messages):
        producer.send_task(TASK, args=["signals", [ROW]], queue=queue)


def test_one_inspector_answers_for_each_lane(producer: Celery, inspector: QueueInspector) -> None:
    assert (inspector.depth(), inspector.held(), inspector.set_aside()) == (0, {}, {})
    put(producer, QUEUE)
    put(producer, BACKFILL_QUEUE, 2)
    put(producer, again_queue(BACKFILL_QUEUE), 3)
    put(producer, held_queue("bars", BACKFILL_QUEUE), 4)
    with closing(QueueInspector(producer, BACKFILL_QUEUE)) as own:
        for asked in (partial(inspector.depth, BACKFILL_QUEUE), own.depth):
            wait_until(lambda: asked() == 5, "what waits, and what waits again")  # noqa: B023
        assert (inspector.waiting(BACKFILL_QUEUE), own.waiting()) == (2, 2)
        for each in (inspector.held(BACKFILL_QUEUE), own.held()):
            assert each == {"bars": 4}
        assert (
            inspector.set_aside(BACKFILL_QUEUE)
            == own.set_aside()
            == {
                "store.backfill.again": 3,
                "store.backfill.held.bars": 4,
            }
        )
    assert (inspector.depth(), inspector.held(), inspector.set_aside()) == (1, {}, {})


def test_reserved_messages_and_workers_are_counted(
    producer: Celery, inspector: QueueInspector, worker: Worker, writes_held_back: Any, send: Any, bars: Any
) -> None:
    assert len(inspector.workers()) == 1
    with writes_held_back() as until_held:
        result = send(bars[:1])
        until_held(1)
        assert inspector.depth() == 0
        # RabbitMQ tells of that by its management API alone.
        assert inspector.reserved() == (1 if str(producer.conf.broker_url).startswith("redis") else None)
    result.get(timeout=20)


def test_a_broker_that_hangs_is_given_a_second(tmp_path: Path) -> None:
    with (
        start_valkey(tmp_path) as server,
        Celery("hanging", broker=server.url, set_as_current=False) as app,
        closing(QueueInspector(app, QUEUE)) as inspector,
    ):
        assert inspector.depth() == 0
        os.kill(server.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            inspector.depth()
        with pytest.raises(BrokerUnavailable):
            inspector.workers()
        assert time.monotonic() - started < 5  # a second each, and a busy machine
        os.kill(server.pid, signal.SIGCONT)
        wait_until(lambda: inspector.depth() == 0)


def event(size: int, queue: str = "store.write") -> FeedbackEvent:
    return FeedbackEvent.create(queue, size, 1_000, "soft")


def test_the_newest_level_is_delivered_when_redis_is_back(tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    outcome = {"receiver": "redis", "outcome": "failed"}
    failed = REGISTRY.get_sample_value("mds_feedback_events_total", outcome) or 0.0
    with connected(Settings(REDIS_URL=url), count_delivery) as receivers:  # type: ignore[call-arg]
        assert receivers == ["log", "redis", "redis-backfill"]
        started = time.monotonic()
        for size in range(50):
            backpressure_changed.send(sender="test", event=event(size))
        assert time.monotonic() - started < 5  # nobody waited for Redis
        wait_until(lambda: (REGISTRY.get_sample_value("mds_feedback_events_total", outcome) or 0.0) > failed)
        with start_valkey(tmp_path, port=port), closing(RedisFeedbackPublisher(url)) as publisher:
            last = wait_until(publisher.last)
            assert last is not None
            assert last.queue_size == 49
            with redis.Redis.from_url(url) as client:
                assert client.xlen(publisher.stream) == 1


def test_the_stream_is_trimmed_and_the_channel_gets_the_event(redis_url: str) -> None:
    with closing(RedisFeedbackPublisher(redis_url)) as publisher, redis.Redis.from_url(redis_url) as client:
        listener = client.pubsub()
        listener.subscribe(publisher.channel)
        for _ in range(12_000):
            client.xadd(publisher.stream, {"data": "old"})
        wait_until(lambda: listener.get_message() is not None)
        asyncio.run(publisher.publish(event(7)))
        message = wait_until(lambda: listener.get_message(ignore_subscribe_messages=True))
        assert FeedbackEvent.model_validate_json(message["data"]).queue_size == 7
        assert 10_000 <= client.xlen(publisher.stream) < 10_200  # by whole nodes of a hundred
        assert publisher.last() == FeedbackEvent.model_validate_json(message["data"])
        listener.close()


def test_each_lane_has_its_stream_and_only_live_events_go_elsewhere(redis_url: str) -> None:
    seen: list[FeedbackEvent] = []
    live, backfill = RedisFeedbackPublisher(redis_url), RedisFeedbackPublisher(redis_url, queue=BACKFILL_QUEUE)
    with closing(live), closing(backfill), redis.Redis.from_url(redis_url) as client:
        assert backfill.stream == "mdp:mdp.telemetry.feedback.backfill"
        listener = client.pubsub()
        listener.psubscribe("*telemetry.feedback*")
        wait_until(lambda: listener.get_message() is not None)
        feedback_bus().subscribe(seen.append)
        with connected(Settings(REDIS_URL=redis_url)):  # type: ignore[call-arg]
            for size in range(20):
                backpressure_changed.send(sender="test", event=event(size))
                backpressure_changed.send(sender="test", event=event(100 + size, BACKFILL_QUEUE))
            wait_until(lambda: [e.queue_size for e in live.recent(1)] == [19])
            wait_until(lambda: [e.queue_size for e in backfill.recent(1)] == [119], "neither replaced the other")
        feedback_bus().unsubscribe(seen.append)
        announced = [FeedbackEvent.model_validate_json(m["data"]) for m in iter(listener.get_message, None)]
        listener.close()
        assert [e.queue_size for e in seen] == [*range(20)]
        assert {e.coordinator_id for e in [*live.recent(50), *announced]} == {QUEUE}
        assert {e.coordinator_id for e in backfill.recent(50)} == {BACKFILL_QUEUE}


def test_a_full_queue_raises_or_lets_wait_and_takes_nothing(producer: Celery, inspector: QueueInspector) -> None:
    fill(producer, 8)
    wait_until(lambda: inspector.depth() == 8)
    options: dict[str, Any] = {"app": producer, "capacity": 10, "max_rows": 1}
    with StoreClient(**options, on_pressure="raise") as client, pytest.raises(Backpressure, match="capacity is 10"):
        client.write("signals", [ROW])
    with StoreClient(**options, pressure_timeout_s=0.5) as client:
        started = time.monotonic()
        with pytest.raises(Backpressure):
            client.write("signals", [ROW])
        assert time.monotonic() - started >= 0.5
        assert inspector.depth() == 8
        purge(producer)
        assert client.write("signals", [ROW]) == 1
    wait_until(lambda: inspector.depth() == 1)


def test_a_client_never_runs_past_the_capacity_between_two_looks(producer: Celery, inspector: QueueInspector) -> None:
    client = StoreClient(app=producer, capacity=100, max_rows=1, on_pressure="raise")

    def write_on() -> None:
        for number in range(1_000):
            client.write("signals", [{**ROW, "ts": 1_704_067_200 + number}])

    with client, pytest.raises(Backpressure):
        write_on()
    wait_until(lambda: inspector.depth() >= 80)
    assert inspector.depth() <= 100


def test_a_sink_is_a_core_sink_that_keeps_the_loop_going(producer: Celery, inspector: QueueInspector) -> None:
    async def write() -> int:
        sink = StoreSink("signals", app=producer, capacity=10, max_rows=1, defaults=ROW)
        assert isinstance(sink, Sink)
        blocked = asyncio.create_task(sink.write([{"ts": 1_704_067_208}]))
        ticks = 0
        while not blocked.done():
            await asyncio.sleep(0.01)
            ticks += 1
            if ticks == 20:
                purge(producer)
        await blocked
        await sink.flush()
        await sink.close()
        return ticks

    fill(producer, 8)
    wait_until(lambda: inspector.depth() == 8)
    assert asyncio.run(write()) >= 20
    wait_until(lambda: inspector.depth() == 1)
