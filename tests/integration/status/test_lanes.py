"""Each lane is judged and shown by itself; the headline and readiness are those of live rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from playwright.sync_api import Browser, expect
from support.brokers import slow_on_rabbitmq
from support.processes import mds
from support.stream import Stream
from support.waiting import wait_until
from support.web import get, monitor, serving

from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.local import free_port
from market_data_store.protocol import BACKFILL_QUEUE, TASK, held_queue

ROW = {"provider": "p", "symbol": "S", "name": "n", "ts": 1_704_067_200}
NOBODY = "no worker takes store.backfill; start one without -Q, or with -Q store.write,store.backfill"
METRICS = ("depth", "capacity", "level", "workers")


@pytest.fixture
def backfill_stream(redis_url: str) -> Iterator[RedisFeedbackPublisher]:
    with closing(RedisFeedbackPublisher(redis_url, queue=BACKFILL_QUEUE)) as stream:
        yield stream


def put(producer: Celery, queue: str, messages: int) -> None:
    for _ in range(messages):
        producer.send_task(TASK, args=["signals", [ROW]], queue=queue)


def states(stream: RedisFeedbackPublisher) -> list[tuple[str, str | None, int]]:
    return [(event.level.value, event.reason, event.queue_size) for event in stream.recent(1)]


@slow_on_rabbitmq
def test_a_backfill_lane_without_workers_is_told_and_leaves_live_rows_alone(
    broker_url: str,
    redis_url: str,
    database_url: str,
    producer: Celery,
    stream: Stream,
    backfill_stream: RedisFeedbackPublisher,
    chromium: Browser,
    tmp_path: Path,
) -> None:
    port = free_port()
    servers = {"BROKER_URL": broker_url, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    servers |= {"MDS_BACKFILL_CAPACITY": "10", "MDS_MONITOR_METRICS_PORT": str(port)}
    put(producer, BACKFILL_QUEUE, 9)
    put(producer, held_queue("bars", BACKFILL_QUEUE), 2)
    with monitor(tmp_path, **servers) as process, serving(tmp_path, **servers) as web:
        wait_until(lambda: states(backfill_stream) == [("hard", "no_workers", 9)], "its own stream", timeout_s=30)
        stream.wait_for("ok", timeout_s=30)
        assert {event.coordinator_id for event in stream.events()} == {"store.write"}
        assert {event.coordinator_id for event in backfill_stream.recent(50)} == {BACKFILL_QUEUE}
        wait_until(lambda: "store.backfill: level hard (no_workers), 9 of 10 messages" in process.whole_text())

        def shown() -> dict[str, Any]:
            status: dict[str, Any] = web.client.get("/status.json").json()
            return status

        wait_until(lambda: shown()["backfill"]["problem"] == NOBODY, "the page's JSON says it", timeout_s=30)
        status = shown()
        expected = {
            "depth": 9,
            "capacity": 10,
            "utilization": 0.9,
            "level": "hard",
            "reason": "no_workers",
            "workers": 0,
        }
        assert status["backfill"].items() >= expected.items()
        assert status["backfill"].keys() - status["queue"].keys() == {"problem"}
        assert (status["queue"]["depth"], status["queue"]["level"], status["queue"]["reason"]) == (0, "ok", None)
        assert status["headline"].startswith("degraded: ")
        assert [(each["dataset"], each["messages"]) for each in status["held"]] == [("bars", 2)]
        assert web.client.get("/readyz").status_code == 200
        (component,) = (each for each in web.health().components if each.name == "queue")
        assert component.details["depth"] == "0"
        said = mds(tmp_path, "status", **servers)
        said_lines = {line[:14].rstrip(): line[14:] for line in said.stdout.splitlines()}
        waiting = "9 waiting (90% of 10), held by workers: unknown"
        assert said_lines["backfill"] == f"{waiting}; level hard (no_workers); workers 0; {NOBODY}"
        assert json.loads(mds(tmp_path, "status", "--json", **servers).stdout)["backfill"] == status["backfill"]
        text = get(f"http://127.0.0.1:{port}/metrics").text
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("mds_backfill_"))
        assert [float(samples[f"mds_backfill_{name}"]) for name in METRICS] == [9, 10, 2, 0]
        assert float(samples['mds_backfill_held_messages{dataset="bars"}']) == 2
        assert "\nmds_backfill_level 2.0\n" in web.client.get("/metrics").text
        page = chromium.new_page()
        try:
            page.goto(web.url)
            expect(page.locator("#backfill-level")).to_have_text("hard (no_workers)", timeout=30_000)
            expect(page.locator("#backfill-problem")).to_have_text(NOBODY)
            expect(page.locator("#backfill-depth")).to_have_text("9")
            expect(page.locator("#depth")).to_have_text("0")
            expect(page.locator("#level-name")).to_have_text("degraded")
        finally:
            page.close()
        with producer.connection_for_write() as connection:
            connection.default_channel.queue_purge(BACKFILL_QUEUE)
        wait_until(lambda: states(backfill_stream) == [("ok", None, 0)], "nothing waits", timeout_s=30)
        wait_until(lambda: shown()["backfill"]["problem"] is None, timeout_s=30)
        assert stream.states() == [("ok", None)]
