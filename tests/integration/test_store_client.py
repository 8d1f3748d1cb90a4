"""The asynchronous client: it keeps what the pipeline would drop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from psycopg import Connection
from support.brokers import Broker
from support.waiting import wait_until
from support.workers import Worker

from market_data_store import AsyncStoreClient
from market_data_store.config import settings
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import InvalidMessage, SpoolInUse
from market_data_store.producer.client import StoreClient
from market_data_store.producer.spool import Spool, free_path

TICK = {"provider": "ibkr", "symbol": "NVDA", "size": None, "bid": None, "ask": None}


@pytest.fixture
def store(producer: Celery, broker_url: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes clients of this test's broker, database and spools."""
    monkeypatch.setenv("BROKER_URL", broker_url)
    monkeypatch.setenv("DATABASE_URL", database_url.replace("postgresql://", "postgres://"))
    settings.cache_clear()
    yield lambda **options: AsyncStoreClient(**{"app": producer, "spool": tmp_path / "spools", **options})
    settings.cache_clear()


def ticks(prices: range, **fields: Any) -> list[dict[str, Any]]:
    return [{**TICK, "ts": datetime(2025, 11, 3, 14, n // 60, n % 60), "price": float(n), **fields} for n in prices]


def test_rows_are_written_and_read_back(store: Any, start_worker: Callable[..., Worker], database: Connection) -> None:
    class Signal:
        """As the pipeline's inference hands it over."""

        def to_dict(self) -> dict[str, Any]:
            return {"provider": "p", "symbol": "NVDA", "ts": "2025-11-03T14:00:00Z", "name": "n", "value": 1.5}

    async def write() -> list[dict[str, Any]]:
        async with store() as client:
            assert await client.upsert_ticks(ticks(range(3))) == 3
            assert await client.upsert_ticks([]) == 0
            assert await client.write_signals([Signal()]) == 1
            assert await client.upsert_bars(bad_and_good) == 2
            await asyncio.to_thread(wait_until, lambda: stored() == [(3, 1, 1, 1)])
            start, end = datetime(2025, 11, 3, 14, tzinfo=UTC), datetime(2025, 11, 3, 14, 0, 2, tzinfo=UTC)
            read: list[dict[str, Any]] = await client.fetch_ticks_for_replay("ibkr", ["NVDA"], start, end, limit=10)
            return read

    def stored() -> list[tuple[Any, ...]]:
        tables = ("tick_data", "signals", "bars_ohlcv", "dead_letters")
        return database.execute("SELECT " + ", ".join(f"(SELECT count(*) FROM {t})" for t in tables)).fetchall()

    bar = {
        "provider": "p",
        "symbol": "S",
        "interval": "1m",
        "ts": 1_704_067_200,
        "open": 1,
        "high": 1,
        "low": 1,
        "close": 1,
    }
    bad_and_good = [{**bar, "close": math.nan}, bar]
    start_worker()
    read = asyncio.run(write())
    assert [(tick["ts"].isoformat(), tick["price"], tick["bid"]) for tick in read] == [
        ("2025-11-03T14:00:00+00:00", 0.0, None),
        ("2025-11-03T14:00:01+00:00", 1.0, None),
    ]
    assert list(read[0]) == ["provider", "symbol", "price", "ts", "size", "bid", "ask"]
    letters = database.execute("SELECT reason FROM dead_letters").fetchall()
    assert letters == [("close: 'nan' is not a finite number",)]


def test_behind_a_full_queue_rows_wait_in_the_spool(store: Any, producer: Celery, queue: QueueInspector) -> None:
    async def write() -> None:
        client = store(capacity=10, max_rows=1, close_timeout_s=0.1)
        for tick in ticks(range(12)):  # each that finds no room waits a second for it
            assert await client.upsert_ticks([tick]) == 1
        await client.aclose()

    asyncio.run(write())
    left = 12 - queue.depth()
    assert 2 <= left <= 4
    producer.control.purge()
    with producer.connection_for_write() as connection:
        connection.default_channel.queue_purge("store.write")

    async def later() -> None:
        async with store():  # takes over the spool that has rows
            await asyncio.to_thread(wait_until, lambda: queue.depth() == left)

    asyncio.run(later())


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_clients_have_a_spool_each_and_pick_up_what_others_left(broker: Broker, store_of: Any) -> None:
    async def write() -> None:
        first, second = store_of(broker), store_of(broker)
        broker.stop()
        assert await first.upsert_ticks(ticks(range(1))) == 1
        assert await second.upsert_ticks(ticks(range(2, 4))) == 2
        await asyncio.gather(first.aclose(), second.aclose())

    async def later() -> None:
        broker.start()
        clients = [store_of(broker) for _ in range(2)]
        for client in clients:
            await client.aopen()
        queue = QueueInspector(Celery(broker=broker.url, set_as_current=False), "store.write")
        await asyncio.to_thread(wait_until, lambda: queue.depth() == 2)
        queue.close()
        await asyncio.gather(*(client.aclose() for client in clients))

    asyncio.run(write())
    asyncio.run(later())


@pytest.fixture
def store_of(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(broker: Broker) -> AsyncStoreClient:
        monkeypatch.setenv("BROKER_URL", broker.url)
        settings.cache_clear()
        app = Celery(broker=broker.url, set_as_current=False)
        return AsyncStoreClient(database_url, app=app, spool=tmp_path / "spools", close_timeout_s=0.5)

    yield make
    settings.cache_clear()


def test_a_free_spool_that_holds_rows_comes_first(tmp_path: Path) -> None:
    directory = tmp_path / "spools"
    paths = [directory / f"00{n}.db" for n in range(4)]
    assert free_path(directory) == paths[0]
    spools = [Spool(path, 1_000) for path in paths[:3]]
    with pytest.raises(SpoolInUse):
        Spool(paths[0], 1_000)
    assert free_path(directory) == paths[3]
    for spool in spools:
        spool.close()
    assert free_path(directory) == paths[0]


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_without_a_place_for_spools_rows_are_kept_in_memory(
    store: Any, queue: QueueInspector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")

    async def write() -> None:
        async with store(spool=tmp_path / "file") as client:
            assert await client.upsert_ticks(ticks(range(2))) == 2

    asyncio.run(write())
    assert queue.depth() == 1
    assert "rows are kept in memory while the broker is away" in caplog.text


def test_pressure_needs_a_spool_to_spool_to() -> None:
    with pytest.raises(InvalidMessage, match="needs a spool"):
        StoreClient(on_pressure="spool", app=Celery(broker="memory://", set_as_current=False))
