"""A message whose turns end badly becomes a dead letter, its neighbours are written, and an id may be missing."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import kombu
import pytest
from support.brokers import on_redis, slow_on_rabbitmq
from support.databases import Connection
from support.fixtures.store import QUEUE, Bar, HoldBack, Send, StartWorker, Stored
from support.waiting import wait_until

from market_data_store import dead_letters
from market_data_store.local import free_port

#: What Python imports when it starts: a row with SLOW exceeds the soft time limit, which is one second.
SLOW = """
import time
from celery.signals import celeryd_after_setup, worker_process_init

@celeryd_after_setup.connect(weak=False)
def shorten(conf, **_):
    from market_data_store.worker import tasks
    tasks.write.soft_time_limit = 1

@worker_process_init.connect(weak=False)
def arm(**_):
    from market_data_store.worker import tasks
    read_rows = tasks.read_rows

    def slow(dataset, rows, *rest):
        if "SLOW" in str(rows):
            time.sleep(60)
        return read_rows(dataset, rows, *rest)

    tasks.read_rows = slow
"""
#: A worker that ends gives its jobs one second.
IMPATIENT = """
from celery.signals import celeryd_after_setup

@celeryd_after_setup.connect(weak=False)
def shorten(**_):
    from market_data_store.worker import consumer, shutdown
    consumer.kill_after = lambda pool: shutdown.kill_after(pool, 1.0)
"""


def customized(directory: Path, code: str) -> dict[str, str]:
    """The environment of a worker whose Python runs this first."""
    (directory / "customized").mkdir()
    (directory / "customized" / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(directory / "customized"), *filter(None, sys.path)])}


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, str]:
    return customized(tmp_path, SLOW)


@slow_on_rabbitmq
def test_a_message_that_exceeds_the_time_limit_each_time_is_a_dead_letter(
    slow: dict[str, str], start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    for n in range(5):
        send(bars[n : n + 1])
    result = send([{**bars[5], "note": "SLOW"}], task_id="slow")
    start_worker(**slow)
    (letter,) = wait_until(lambda: list(dead_letters.stream(database)), timeout_s=30)
    assert letter.task_id == "slow"
    assert letter.reason.startswith("message: 3 deliveries, and each took its process down or exceeded the time limit")
    assert b"SLOW" in (letter.body or b"")
    wait_until(lambda: stored() == bars[:5])
    with pytest.raises(Exception, match="3 deliveries"):
        result.get(timeout=10)


@on_redis
@pytest.mark.parametrize(
    "given", [*(pytest.param(given, marks=pytest.mark.slow) for given in ({}, {"id": ""})), {"id": 5}]
)
def test_a_message_of_protocol_1_without_an_id_is_written_when_it_is_delivered_again(
    given: dict[str, Any],
    broker_url: str,
    start_worker: StartWorker,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
) -> None:
    database.execute("ALTER TABLE bars_ohlcv RENAME TO away")
    with kombu.Connection(broker_url) as connection:
        connection.Producer().publish(
            json.dumps({"task": "store.write", "args": ["bars", bars[:1]], "kwargs": {}, **given}),
            routing_key=QUEUE,
            content_type="application/json",
            content_encoding="utf-8",
        )
    worker = start_worker(MDS_HELD_PROBE_S="1")
    worker.wait_for_log("The dataset bars is held")
    database.execute("ALTER TABLE away RENAME TO bars_ohlcv")
    wait_until(lambda: stored() == bars[:1], timeout_s=20)
    assert database.execute("SELECT FROM dead_letters").rowcount == 0


@on_redis
@pytest.mark.slow
def test_a_message_that_waits_for_longer_than_the_visibility_timeout_is_not_delivered_again(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    writes_held_back: HoldBack,
) -> None:
    worker = start_worker(MDS_VISIBILITY_TIMEOUT_S="1")
    with writes_held_back() as until_held:
        result = send(bars[:1])
        until_held(1)
        send(bars[1:2])
        until_held(2)
        # The worker looks for lost messages every ten seconds.
        started = time.monotonic()
        wait_until(lambda: time.monotonic() > started + 12, timeout_s=15)
        until_held(2)
    result.get(timeout=20)
    wait_until(lambda: stored() == bars[:2])
    assert "goes back" not in worker.logs()
    assert worker.logs().count(", of 1 messages in ") == 2, "each was processed once"
    assert database.execute("SELECT FROM dead_letters").rowcount == 0


@pytest.mark.slow
def test_restarts_of_a_worker_during_an_outage_count_no_turn(
    tmp_path: Path, start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/away"
    worker = start_worker(DATABASE_URL=away, MDS_MAX_DELIVERIES="2", **customized(tmp_path, IMPATIENT))
    send(bars[:1])
    for _ in range(3):
        worker.wait_for_log("trying again")
        worker.stop()
        assert "did not end in time and was killed" in worker.logs()
        worker.restart()
        worker.ready()
    worker.wait_for_log("trying again")
    worker.stop()
    start_worker()
    wait_until(lambda: stored() == bars[:1])
    assert database.execute("SELECT FROM dead_letters").rowcount == 0
