"""A client waits while the monitor says that the database is nearly full, and goes on when there is room again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from market_data_core.telemetry import BackpressureLevel
from support.brokers import on_redis
from support.rows import BAR
from support.waiting import wait_until

from market_data_store import Backpressure, StoreClient
from market_data_store.config import settings
from market_data_store.coordinator.feedback import DATABASE_FULL, NO_WORKERS, FeedbackEvent
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.producer import brake
from market_data_store.producer.told import Told
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE

pytestmark = on_redis

HARD, OK = BackpressureLevel.hard, BackpressureLevel.ok


@pytest.fixture
def publisher(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisFeedbackPublisher]:
    """What a monitor publishes with; the settings are those of its server."""
    monkeypatch.setenv("BROKER_URL", broker_url)
    monkeypatch.setattr(brake, "_HELD_INTERVAL_S", 0.0)
    settings.cache_clear()
    made = RedisFeedbackPublisher(settings().feedback_url)
    yield made
    made.close()
    settings.cache_clear()


def event(level: BackpressureLevel, reason: str | None, queue: str = QUEUE) -> FeedbackEvent:
    return FeedbackEvent.create(queue, 0, 100, level, reason)


def test_a_client_waits_while_the_database_is_nearly_full(publisher: RedisFeedbackPublisher, producer: Celery) -> None:
    publisher.send(event(HARD, DATABASE_FULL))
    with StoreClient(app=producer, on_pressure="raise", declare=False) as client:
        with pytest.raises(
            Backpressure, match=r"^the database is nearly full \(database_full, see `mds status`\); wait "
        ):
            client.write("bars", [BAR])
        publisher.send(event(OK, None))

        def is_taken() -> bool:
            try:
                return client.write("bars", [BAR]) == 1
            except Backpressure:
                return False

        wait_until(is_taken, "the client goes on")
    with StoreClient(app=producer, on_pressure="ignore", declare=False) as client:
        publisher.send(event(HARD, DATABASE_FULL))
        assert client.write("bars", [BAR]) == 1


def test_only_a_fresh_event_of_the_lane_counts(
    publisher: RedisFeedbackPublisher, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, backfill = Told.of(QUEUE), Told.of(BACKFILL_QUEUE)
    assert not live.is_database_full()
    publisher.send(event(HARD, NO_WORKERS))
    assert not live.is_database_full()
    publisher.send(event(HARD, DATABASE_FULL))
    assert live.is_database_full()
    assert not backfill.is_database_full()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 31)
    assert not live.is_database_full()
    monkeypatch.undo()
    assert live.is_database_full()
    live.close()
    assert not live.is_database_full(), "it opens no connection that nobody would close"
    backfill.close()
    assert not Told("redis://127.0.0.1:1/0", QUEUE).is_database_full()
    assert not Told("", QUEUE).is_database_full()


def test_a_user_who_may_not_read_the_events_goes_on(publisher: RedisFeedbackPublisher, broker_url: str) -> None:
    publisher.send(event(HARD, DATABASE_FULL))
    with redis.Redis.from_url(broker_url) as admin:
        admin.acl_setuser("deaf", enabled=True, passwords=["+deaf"], keys=["store.write*"], commands=["+@all"])
        try:
            told = Told(broker_url.replace("redis://", "redis://deaf:deaf@"), QUEUE)
            assert not told.is_database_full()
            assert not told.is_database_full()
            told.close()
        finally:
            admin.acl_deluser("deaf")
