"""Each client writes by one lane: its queue, its capacity, its spool, and the word that no worker takes it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from support.brokers import slow_on_rabbitmq
from support.fixtures.store import Bar, StartWorker, Stored
from support.waiting import wait_until

from market_data_store import AsyncStoreClient, StoreClient
from market_data_store.config import settings
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import Backpressure
from market_data_store.local import free_port
from market_data_store.protocol import BACKFILL_QUEUE, LANES, QUEUE

NOBODY = f"no worker takes {BACKFILL_QUEUE}; start one without -Q, or with -Q {QUEUE},{BACKFILL_QUEUE}"


def waiting(app: Celery) -> list[int]:
    """The messages that wait in the lane of live rows and in that of history."""
    counts = []
    for queue in LANES.values():
        with closing(QueueInspector(app, queue)) as inspector:
            counts.append(inspector.waiting())
    return counts


@slow_on_rabbitmq
def test_rows_of_both_lanes_are_written(
    producer: Celery, start_worker: StartWorker, bars: list[Bar], stored: Stored
) -> None:
    with StoreClient(app=producer) as live, StoreClient(app=producer, lane="backfill") as history:
        history.write("bars", bars[100:])
        live.write("bars", bars[:100])
    assert waiting(producer) == [1, 60]
    start_worker()
    wait_until(lambda: stored() == bars, "all rows are stored", timeout_s=60)


@slow_on_rabbitmq
def test_a_full_lane_slows_only_its_own_clients(
    producer: Celery, bars: list[Bar], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDS_BACKFILL_CAPACITY", "10")
    settings.cache_clear()
    options: dict[str, Any] = {"app": producer, "max_rows": 1, "on_pressure": "raise"}
    try:
        with StoreClient(lane="backfill", **{**options, "on_pressure": "ignore"}) as history:
            history.write("bars", bars[:9])
        with StoreClient(lane="backfill", **options) as history, pytest.raises(Backpressure, match="capacity is 10"):
            history.write("bars", bars[:1])
        with StoreClient(**options) as live:
            live.write("bars", bars[:50])
    finally:
        settings.cache_clear()
    assert waiting(producer) == [50, 9]


def test_a_table_is_sent_in_messages_of_5_000_rows_in_each_lane(producer: Celery, bars: list[Bar]) -> None:
    table = {name: [bar[name] for bar in bars[:10_000]] for name in bars[0]}
    with StoreClient(app=producer) as live, StoreClient(app=producer, lane="backfill") as history:
        live.write_table("bars", table)
        history.write_table("bars", table)
    assert waiting(producer) == [2, 2]


@slow_on_rabbitmq
def test_who_writes_to_a_lane_that_no_worker_takes_hears_so_once_within_five_seconds(
    producer: Celery, bars: list[Bar], caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    with StoreClient(app=producer, lane="backfill", linger_s=0.001) as client:
        began = time.monotonic()
        client.write("bars", bars[:1])
        client.flush()
        assert time.monotonic() - began < 1.0
        wait_until(lambda: NOBODY in said(), "it is said", timeout_s=5.0)
        client.write("bars", bars[1:2])
        began = time.monotonic()
    assert time.monotonic() - began < 1.0
    assert said().count(NOBODY) == 1


def test_what_is_in_a_spool_keeps_its_lane(
    producer: Celery, bars: list[Bar], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = tmp_path / "rows.db"
    nowhere = Celery(broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    with StoreClient(app=nowhere, lane="backfill", spool=spool, close_timeout_s=0.1) as client:
        client.write("bars", bars[:10])
    with StoreClient(app=producer, spool=spool) as client:
        client.write("bars", bars[10:20])
        client.flush()
    assert waiting(producer) == [1, 1]


def test_asynchronous_clients_of_two_lanes_share_no_spool(
    producer: Celery,
    broker_url: str,
    database_url: str,
    bars: list[Bar],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BROKER_URL", broker_url)
    settings.cache_clear()
    nowhere = Celery(broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)

    def client(app: Celery, **lane: Any) -> AsyncStoreClient:
        return AsyncStoreClient(database_url, app=app, spool=tmp_path / "spools", close_timeout_s=0.2, **lane)

    async def write() -> None:
        async with client(nowhere, lane="backfill") as history:
            await history.write_bars(bars[:10])
        async with client(producer) as live:
            await live.write_bars(bars[10:20])
        assert waiting(producer) == [1, 0]
        async with client(producer, lane="backfill"):
            await asyncio.to_thread(wait_until, lambda: waiting(producer) == [1, 1], "the spooled rows are sent")

    try:
        asyncio.run(write())
    finally:
        settings.cache_clear()
