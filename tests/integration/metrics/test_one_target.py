"""The monitor is the one target: it serves what all workers count, over their ends, and what Postgres holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families
from support.brokers import on_redis, slow_on_rabbitmq
from support.databases import Connection
from support.fixtures.store import Bar, Send, StartWorker
from support.waiting import wait_until
from support.web import get, monitor

from market_data_store.coordinator.oldest import OldestMessages
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.local import free_port
from market_data_store.protocol import QUEUE, TASK


class Target:
    """What is served on a port."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/metrics"

    def values(self, name: str, **labels: str) -> list[float]:
        """Of all series of this name with these labels, and more; none while nobody listens."""
        try:
            text = get(self.url).raise_for_status().text
        except httpx.TransportError:
            return []
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
        assert len(names) == len(set(names)), "a name twice, which Prometheus refuses"
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.values(name, **labels))


@contextmanager
def target(directory: Path, **environment: str) -> Iterator[Target]:
    port = free_port()
    with monitor(directory, MDS_MONITOR_METRICS_PORT=str(port), **environment):
        yield Target(port)


@slow_on_rabbitmq
def test_the_counts_of_workers_are_gathered_and_do_not_fall(
    broker_url: str,
    redis_url: str,
    database_url: str,
    send: Send,
    bars: list[Bar],
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    servers = {"BROKER_URL": broker_url, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    written = {"dataset": "bars", "outcome": "written"}
    with target(tmp_path, **servers) as one:
        wait_until(lambda: one.values("mds_rows_total", **written) == [0], "it is there before its first", timeout_s=60)
        first, second = start_worker(), start_worker()
        for n in range(0, 40, 10):
            send(bars[n : n + 10])
        send([{**bars[50], "high": "much"}, *bars[:3]])
        wait_until(lambda: one.sum("mds_rows_total", **written) == 40, "both are counted", timeout_s=30)
        wait_until(lambda: one.sum("mds_rows_total", outcome="rejected") == 1, "so are rejects", timeout_s=30)
        assert one.sum("mds_rows_total", outcome="unchanged") == 3
        assert one.sum("mds_latency_seconds_count") == 5
        assert one.sum("mds_batch_rows_sum", dataset="bars") == 44
        assert one.sum("mds_write_seconds_bucket", dataset="bars", le="+Inf") == one.sum("mds_batch_rows_count")
        assert one.values("mds_write_retries_total", sqlstate_class="40") == [0]
        first.container.kill()
        second.stop()
        start_worker()
        send(bars[100:107]).get(timeout=30)
        wait_until(lambda: one.sum("mds_rows_total", **written) == 47, "the next one adds", timeout_s=30)


@on_redis
def test_what_postgres_holds_is_served(
    broker_url: str, database_url: str, database: Connection, producer: Celery, tmp_path: Path
) -> None:
    insert = (
        "INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at) "
        "VALUES (%s, 'S', '1m', %s, 1, 1, 1, 1, now())"
    )
    now = datetime.now(UTC)
    database.execute(insert, ["old", now - timedelta(hours=1)])
    database.execute(insert, ["new", now])
    producer.send_task(TASK, args=["bars", []], queue=QUEUE, headers={"enqueued_at": time.time() - 100})
    limits = {"MDS_FRESHNESS": "bars=10m"}
    with target(tmp_path, BROKER_URL=broker_url, DATABASE_URL=database_url, **limits) as one:
        feed = {"dataset": "bars", "group": "all"}
        wait_until(
            lambda: one.values("mds_feed_stopped", provider="old", **feed) == [1], "it has stopped", timeout_s=60
        )
        assert one.values("mds_feed_stopped", provider="new", **feed) == [0]
        newest = one.values("mds_feed_newest_timestamp_seconds", provider="new", **feed)
        assert newest == [pytest.approx(now.timestamp(), abs=0.01)]
        assert one.values("mds_feed_limit_seconds", provider="old", **feed) == [600]
        assert one.values("mds_feeds", state="stopped") == one.values("mds_feeds", state="going") == [1]
        assert one.values("mds_database_up") == [1]
        assert one.values("mds_dead_letters") == [0]
        wait_until(lambda: one.values("mds_stored_rows", dataset="bars") == [2], "rows are estimated", timeout_s=30)
        assert 100 <= one.values("mds_oldest_message_age_seconds", lane="live")[0] < 200
        assert one.values("mds_oldest_message_age_seconds", lane="backfill") == [0]
        database.execute(insert, ["old", datetime.now(UTC)])
        wait_until(lambda: one.values("mds_feed_stopped", provider="old") == [0], "it goes on", timeout_s=30)


def test_a_database_that_is_away_is_served_as_that(redis_url: str, tmp_path: Path) -> None:
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/none"
    with target(tmp_path, BROKER_URL=redis_url, DATABASE_URL=nowhere) as one:
        wait_until(lambda: one.values("mds_database_up") == [0], "it is away", timeout_s=60)
        assert one.values("mds_feed_stopped") == []


@slow_on_rabbitmq
def test_the_oldest_message_tells_its_age_where_the_broker_can(
    broker_url: str, producer: Celery, queue: QueueInspector
) -> None:
    is_known = broker_url.startswith("redis")

    def age() -> float | None:
        with queue.lent() as connection:
            return OldestMessages().age_s(connection, QUEUE)

    if not is_known:
        producer.send_task(TASK, args=["bars", []], queue=QUEUE)
        assert age() is None
        return
    assert age() == 0.0
    for sent in (time.time() - 50, time.time() - 10):
        producer.send_task(TASK, args=["bars", ["x" * 100_000]], queue=QUEUE, headers={"enqueued_at": sent})
    assert 49 < (age() or 0) < 80
    with queue.lent() as connection:
        connection.default_channel.client.rpop(QUEUE)
    assert 9 < (age() or 0) < 40
    with queue.lent() as connection:
        connection.default_channel.client.lpush(QUEUE, '{"body": "", "headers": {}, "properties": {}}')
        connection.default_channel.client.rpop(QUEUE)
    assert age() is None, "it does not say when it was enqueued"
