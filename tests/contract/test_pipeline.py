"""market-data-pipeline as published: it writes through the store, and slows down when the store asks it to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from psycopg import Connection
from psycopg.rows import dict_row
from support.brokers import Broker, on_redis
from support.fixtures.store import Bar, HoldBack, Send
from support.neighbours import Neighbour, Running
from support.stream import STREAM, Stream
from support.waiting import wait_until
from support.web import monitor
from support.workers import Worker, working

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.protocol import BACKFILL_QUEUE, TASK

#: By these a queue of ten messages is soft at six and hard at eight.
SMALL_QUEUE = {
    "MDS_QUEUE_CAPACITY": "10",
    "MDS_BACKFILL_CAPACITY": "10",
    "MDS_MONITOR_INTERVAL_S": "0.1",
    "MDS_FEEDBACK_HEARTBEAT_S": "0.5",
}


@pytest.fixture
def servers(broker_url: str, redis_url: str, database_url: str) -> dict[str, str]:
    """What the pipeline, the monitor and a worker are given."""
    bus = {"REDIS_URL": redis_url, "EVENT_BUS_BACKEND": "redis"}
    return {"BROKER_URL": broker_url, "DATABASE_URL": database_url, **bus}


@pytest.fixture
def bars_stored(database: Connection[Any]) -> Callable[[], list[dict[str, Any]]]:
    cursor = database.cursor(row_factory=dict_row)
    return lambda: cursor.execute("SELECT * FROM bars_ohlcv ORDER BY symbol, ts").fetchall()


#: What each sink makes of a bar: the rest of the row.
WRITTEN_AS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "store": lambda bar: {
        "provider": "synthetic",
        "interval": "1m",
        "volume": int(bar["volume"]),
        "vwap": None,
        "trade_count": None,
    },
    "database": lambda bar: {
        "provider": "market_data_pipeline",
        "interval": "1s",
        "volume": int(bar["volume"]),
        "vwap": bar["vwap"],
        "trade_count": bar["trade_count"],
    },
    "processor": lambda bar: {
        "provider": "synthetic",
        "interval": "1s",
        "volume": bar["volume"],
        "vwap": bar["vwap"],
        "trade_count": bar["trade_count"],
    },
}


@on_redis
@pytest.mark.parametrize(
    "sink", [pytest.param(name, marks=() if name == "store" else pytest.mark.slow) for name in WRITTEN_AS]
)
def test_every_bar_that_a_sink_takes_is_written_by_way_of_the_queue(
    sink: str,
    pipeline: Neighbour,
    servers: dict[str, str],
    queue: QueueInspector,
    start_worker: Callable[..., Worker],
    bars_stored: Callable[[], list[dict[str, Any]]],
) -> None:
    taken = pipeline.run("bars", sink, "4", **servers)
    assert len(taken) >= 8
    assert queue.depth() > 0
    assert bars_stored() == []
    start_worker()
    wait_until(lambda: len(bars_stored()) >= len(taken) and queue.depth() == 0, "the bars are stored")
    prices = ("open", "high", "low", "close")
    expected = [
        {"symbol": bar["symbol"], "ts": datetime.fromisoformat(bar["ts"]), **{name: bar[name] for name in prices}}
        | WRITTEN_AS[sink](bar)
        for bar in sorted(taken, key=lambda bar: (bar["symbol"], bar["ts"]))
    ]
    assert [{name: row[name] for name in expected[0]} for row in bars_stored()] == expected


@pytest.mark.parametrize("module", ["store_client", "producer.client", "cli", "coordinator.feedback"])
def test_the_pipeline_finds_the_client_whatever_is_imported_first(module: str, pipeline: Neighbour) -> None:
    """Core imports the pipeline, where it is installed, and that imports the store: a circle."""
    (told,) = pipeline.run("imports", f"market_data_store.{module}", BROKER_URL="redis://127.0.0.1:9/0")
    assert told == {"found": True, "early": (module == "producer.client")}


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_broker_that_is_away_costs_the_pipeline_no_bar(
    pipeline: Neighbour,
    broker: Broker,
    database_url: str,
    bars_stored: Callable[[], list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    servers = {"BROKER_URL": broker.url, "DATABASE_URL": database_url}
    broker.stop()
    taken = pipeline.run("bars", "store", "3", **servers)
    assert len(taken) >= 4
    broker.start()
    taken += pipeline.run("bars", "store", "3", **servers)  # sends what the first run left in the spool
    with working(tmp_path, **servers):
        wait_until(lambda: len(bars_stored()) >= len(taken), "the bars are stored", timeout_s=40)
    assert {(bar["symbol"], bar["ts"].isoformat()) for bar in bars_stored()} == {(b["symbol"], b["ts"]) for b in taken}


@pytest.mark.slow
@on_redis
def test_ticks_and_signals_are_stored_and_replayed(
    pipeline: Neighbour,
    servers: dict[str, str],
    stream: Stream,
    database: Connection[Any],
    start_worker: Callable[..., Worker],
) -> None:
    start_worker()
    with pipeline.running("streaming", "200", **servers) as running:
        wait_until(lambda: counted(database, "tick_data") == 200, "the ticks are stored", timeout_s=40)
        # Two ticks of an instant have one signal, by its key; the second one's value wins.
        wait_until(lambda: counted(database, "signals") == 100, "the signals are stored")
        running.finish()
    stored = database.execute("SELECT ts, price, size, bid, ask FROM tick_data ORDER BY price").fetchall()
    assert [row[1:] for row in stored] == [(p, 10, p - 0.125, p + 0.125) for p in (100 + n / 8 for n in range(200))]

    published = stream.client.xlen("mdp.events")
    with pipeline.running("replay", "200", **servers) as running:
        job = running.wait_until_printed("job_name")
        fetched = running.printed()[0]
    assert sorted(fetched["fetched"]) == [[ts.isoformat(), price] for ts, price, *_ in stored]
    assert [ts for ts, _ in fetched["fetched"]] == sorted(ts for ts, _ in fetched["fetched"])
    assert (job["job_name"], job["provider"], job["symbols"]) == ("tick_replay", "ibkr", ["NVDA"])
    assert job["metadata"] == {"speed": 0, "max_batch_size": 1000}
    assert stream.client.xlen("mdp.events") >= published + 200


@pytest.mark.slow
@on_redis
def test_levels_become_rate_adjustments_even_for_a_late_consumer(
    pipeline: Neighbour,
    servers: dict[str, str],
    stream: Stream,
    start_worker: Callable[..., Worker],
    send: Send,
    bars: list[Bar],
    writes_held_back: HoldBack,
    tmp_path: Path,
) -> None:
    def send_each(some: list[Bar]) -> None:
        for bar in some:
            send([bar], ignore_result=True)

    with monitor(tmp_path, **servers, **SMALL_QUEUE), ExitStack() as held:
        # A worker that takes no more than these two; with none at all the level would be hard.
        until_held = held.enter_context(writes_held_back())
        start_worker(MDS_PREFETCH_MESSAGES="1")
        send_each(bars[:2])
        until_held(2)
        stream.wait_for("ok", timeout_s=20)
        with pipeline.running("feedback", **servers) as running:
            assert adjusted(running, 1.0) == {"scale": 1.0, "level": "ok", "coordinator": [1.0, "ok"]}
            send_each(bars[2:8])
            assert adjusted(running, 0.5) == {"scale": 0.5, "level": "soft", "coordinator": [0.5, "soft"]}
            send_each(bars[8:11])
            assert adjusted(running, 0.0) == {"scale": 0.0, "level": "hard", "coordinator": [0.0, "hard"]}
            running.finish()
        stream.client.xgroup_destroy(STREAM, "pipeline")  # a group that comes anew begins behind the last event
        with pipeline.running("feedback", **servers) as late:
            assert adjusted(late, 0.0)["level"] == late.printed()[0]["level"] == "hard"
            held.close()
            assert adjusted(late, 1.0) == {"scale": 1.0, "level": "ok", "coordinator": [1.0, "ok"]}
            late.finish()
    assert not stream.client.exists(f"{STREAM}.dlq")


@pytest.mark.slow
@on_redis
def test_a_full_backfill_lane_does_not_slow_the_pipeline(
    pipeline: Neighbour,
    servers: dict[str, str],
    redis_url: str,
    stream: Stream,
    start_worker: Callable[..., Worker],
    producer: Celery,
    bars: list[Bar],
    writes_held_back: HoldBack,
    tmp_path: Path,
) -> None:
    of_backfill = RedisFeedbackPublisher(redis_url, queue=BACKFILL_QUEUE)
    with closing(of_backfill), monitor(tmp_path, **servers, **SMALL_QUEUE):
        with writes_held_back():
            start_worker(MDS_PREFETCH_MESSAGES="1")
            stream.wait_for("ok", timeout_s=20)
            with pipeline.running("feedback", **servers) as running:
                adjusted(running, 1.0)
                for bar in bars[:20]:
                    producer.send_task(TASK, args=["bars", [bar]], queue=BACKFILL_QUEUE, ignore_result=True)
                wait_until(lambda: [e.level.value for e in of_backfill.recent(1)] == ["hard"], "the lane is full")
                since = len(stream.events())
                wait_until(lambda: len(stream.events()) >= since + 4, "the level of live rows is told, and told again")
                told = running.finish()
        assert {(line["scale"], line["level"]) for line in told if "scale" in line} == {(1.0, "ok")}
        wait_until(lambda: [e.level.value for e in of_backfill.recent(1)] == ["ok"], "history is written", timeout_s=40)


@pytest.mark.slow
@on_redis
def test_the_pipeline_pauses_while_the_worker_is_stopped_and_nothing_is_lost(
    pipeline: Neighbour,
    servers: dict[str, str],
    stream: Stream,
    start_worker: Callable[..., Worker],
    bars_stored: Callable[[], list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    worker = start_worker()
    with monitor(tmp_path, **servers, **SMALL_QUEUE), pipeline.running("loop", **servers) as running:
        adjusted(running, 1.0)
        wait_until(lambda: len(bars_stored()) >= 4, "bars are stored")
        before = len(running.printed())
        worker.stop()
        adjusted(running, 0.0, since=before)
        paused_from = ticks(running)
        wait_until(
            lambda: len(running.printed()) > paused_from[0] + 20, "time goes by"
        )  # four lines a second, and bars
        paused_until = ticks(running)
        adjusted(running, 0.0, since=paused_until[0])  # until the worker is back
        before = len(running.printed())
        worker.restart()
        adjusted(running, 1.0, since=before)
        wait_until(lambda: ticks(running)[1] > paused_until[1] + 100, "at its old rate")
        told = running.finish()
        taken = {tuple(line["bar"]) for line in told if "bar" in line}
        wait_until(lambda: {(bar["symbol"], bar["ts"].isoformat()) for bar in bars_stored()} == taken, "all is stored")
    # The coordinator's own least rate is one tick a second.
    assert paused_until[1] - paused_from[1] < 20
    assert not stream.client.exists(f"{STREAM}.dlq")


def ticks(running: Running) -> tuple[int, int]:
    """How many lines there are, and how many ticks the next one tells of: the last may be 0.25 s old, 20 ticks."""
    before = len(running.printed())

    def told() -> list[int]:
        return [line["ticks"] for line in running.printed()[before:] if "ticks" in line]

    count = wait_until(told, "the number of ticks")[0]
    return len(running.printed()), count


def adjusted(running: Running, scale: float, *, since: int = 0) -> dict[str, Any]:
    """The first adjustment of this scale behind so many lines."""

    def found() -> list[dict[str, Any]]:
        return [line for line in running.printed()[since:] if line.get("scale") == scale]

    return wait_until(found, f"scale {scale}", timeout_s=60)[0]


def counted(database: Connection[Any], table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
