"""market-data-orchestrator as published, with this package in the place of the version it pins."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery
from support.brokers import on_redis
from support.neighbours import Neighbour
from support.stream import STREAM, Stream
from support.waiting import wait_until
from support.web import monitor


@pytest.mark.slow
@on_redis
def test_the_orchestrators_observer_counts_every_event_and_its_subscriber_accepts_our_bus(
    orchestrator: Neighbour, broker_url: str, database_url: str, producer: Celery, stream: Stream, tmp_path: Path
) -> None:
    servers = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    with orchestrator.running("observer", REDIS_URL=broker_url, EVENT_BUS_BACKEND="redis") as observer:
        wait_until(
            lambda: stream.client.exists(STREAM) and stream.client.xinfo_groups(STREAM), "it listens", timeout_s=60
        )
        with monitor(tmp_path, **servers, MDS_QUEUE_CAPACITY="10", MDS_FEEDBACK_HEARTBEAT_S="0.2"):
            stream.wait_for("ok", timeout_s=20)
            for _ in range(9):
                producer.send_task("store.write", args=["bars", []], queue="store.write", ignore_result=True)
            stream.wait_for("hard", timeout_s=20)
            wait_until(lambda: len(stream.events()) > 20, "heartbeats")
        wait_until(lambda: observer.printed()[-1] == {"seen": len(stream.events()), "errors": 0}, "all are counted")
        told = observer.finish()
    assert told[-2:] == [{"level": "hard", "reason": "no_workers"}, {"subscribers": 1}]
    assert not stream.client.exists(f"{STREAM}.dlq")
