"""The worker as any Celery client sees it: rows, results, events and remote control, on both brokers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
from celery import Celery, chain, chord, group
from support.brokers import on_rabbitmq, on_redis, slow_on_rabbitmq
from support.databases import Connection
from support.fixtures.store import HELD_BACK, QUEUE, TASK, Bar, HoldBack, Send, StartWorker, Stored
from support.processes import PYTHON, run
from support.waiting import wait_until
from support.workers import Worker

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.local import start_postgres
from market_data_store.postgres import schema


def counts(**numbers: int) -> dict[str, int]:
    return {"written": 0, "unchanged": 0, "stale": 0, "rejected": 0, **numbers}


@contextmanager
def task_events(app: Celery) -> Iterator[Callable[[], dict[str, list[str]]]]:
    """Every task's events so far, by its id, in the order in which they came."""
    seen: dict[str, list[str]] = {}

    def note(event: dict[str, Any]) -> None:
        if event["type"].startswith("task-"):
            seen.setdefault(event["uuid"], []).append(event["type"].removeprefix("task-"))

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": note})
        (consumer,) = receiver.get_consumers(lambda **options: kombu.Consumer(receiver.channel, **options), None)

        def drain() -> dict[str, list[str]]:
            try:
                while True:
                    connection.drain_events(timeout=0.05)
            except TimeoutError:
                return seen

        with consumer:
            drain()
            yield drain


def test_each_message_has_its_rows_stored_its_own_result_and_its_events(
    producer: Celery,
    send: Send,
    start_worker: StartWorker,
    writes_held_back: HoldBack,
    bars: list[Bar],
    stored: Stored,
) -> None:
    sizes = [1] * 100 + [10] * 40 + [500] * 5
    with task_events(producer) as events:
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        results = [send(bars[start : start + size]) for start, size in zip(starts, sizes, strict=True)]
        with writes_held_back():  # until all have come
            worker = start_worker()
            wait_until(lambda: len(events()) == len(sizes))
        assert [result.get(timeout=30) for result in results] == [counts(written=size) for size in sizes]
        expected = {result.id: ["received", "started", "succeeded"] for result in results}
        wait_until(lambda: events() == expected)
    assert stored() == bars[:3_000]
    batches = [int(messages) for messages in re.findall(r"of (\d+) messages", worker.logs())]
    assert sum(batches) == len(sizes)
    assert len(batches) < 20, "messages that wait are merged into a few writes"


def test_a_replay_changes_nothing(worker: Worker, send: Send, bars: list[Bar], stored: Stored) -> None:
    assert send(bars[:20]).get(timeout=10) == counts(written=20)
    assert send(bars[:30]).get(timeout=10) == counts(written=10, unchanged=20)
    assert stored() == bars[:30]


def test_an_older_message_does_not_overwrite_newer_rows(
    worker: Worker, send: Send, bars: list[Bar], stored: Stored
) -> None:
    older = [{**bar, "close": 1.0} for bar in bars[:3]]
    assert send(bars[:2], headers={"enqueued_at": 1_700_000_060.0}).get(timeout=10) == counts(written=2)
    assert send(older, headers={"enqueued_at": 1_700_000_000.0}).get(timeout=10) == counts(written=1, stale=2)
    assert stored() == [*bars[:2], older[2]]


def test_a_result_names_the_first_rejects_and_counts_what_its_own_rows_replaced(
    worker: Worker, send: Send, producer: Celery, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    wrong: list[Any] = [{**bars[0], "close": "much"}, 7, {**bars[0], "symbol": None}, {**bars[0], "open": True}]
    replaced = {**bars[1], "close": 1.0}
    sent = [bars[0], wrong[0], replaced, *wrong[1:], bars[1]]
    result = send(sent).get(timeout=20)
    assert next(iter(result)) == "rejected", "Flower shows the beginning"
    reasons = result.pop("reasons")
    assert result == counts(written=2, superseded=1, rejected=4)
    letters = database.execute("SELECT position, reason, id, pattern FROM dead_letters ORDER BY position").fetchall()
    assert [position for position, *_ in letters] == [1, 3, 4, 5]
    assert reasons == [{"position": p, "reason": r, "letter": id_} for p, r, id_, _ in letters[:3]]
    for _, _, id_, pattern in letters[:3]:
        worker.wait_for_log(f"dead letter {id_}: {pattern}")
    assert "much" not in worker.logs(), "a log has no values of rows"
    assert stored() == bars[:2]
    again = send(sent).get(timeout=20)
    assert [reason["letter"] for reason in again["reasons"]] != [reason["letter"] for reason in reasons], "another task"
    with_callback = producer.send_task(
        TASK, args=["bars", sent], queue=QUEUE, link=producer.signature(TASK, args=["bars", []], immutable=True)
    ).get(timeout=20)
    assert [reason["position"] for reason in with_callback.pop("reasons")] == [1, 3, 4]
    assert with_callback == counts(unchanged=2, superseded=1, rejected=4)


def test_an_expired_message_is_kept_and_not_written(
    worker: Worker, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    expired = send(bars[:1], expires=datetime.now(UTC) - timedelta(seconds=1))
    assert send(bars[1:2]).get(timeout=10) == counts(written=1)
    expired.get(timeout=10, propagate=False)
    assert expired.state == "FAILURE"
    wait_until(lambda: database.execute("SELECT FROM dead_letters WHERE reason LIKE 'expires: %'").rowcount == 1)
    assert stored() == bars[1:2]


def test_a_broadcast_changes_nothing_of_what_is_written(
    worker: Worker, producer: Celery, send: Send, bars: list[Bar], stored: Stored, writes_held_back: HoldBack
) -> None:
    processes = worker.pool_pids
    control = producer.control
    with writes_held_back() as until_held:
        result = send(bars[:10])
        until_held(1)
        control.revoke(result.id, terminate=True, signal="SIGKILL")
        for command, arguments in {
            "time_limit": {"task_name": TASK, "soft": 0.001, "hard": 0.001},
            "rate_limit": {"task_name": TASK, "rate_limit": "1/h"},
            "cancel_consumer": {"queue": QUEUE},
            "pool_grow": {"n": 30},
            "pool_shrink": {"n": 1},
            "shutdown": {},
            "no such command": {},
        }.items():
            control.broadcast(command, arguments)
        # An answer says that the worker has heard the commands before.
        assert control.ping(destination=[worker.hostname()], timeout=5)
    assert result.get(timeout=10) == counts(written=10)
    assert send(bars[10:20]).get(timeout=10) == counts(written=10)
    assert stored() == bars[:20]
    assert worker.pool_pids == processes


@on_redis  # Celery sends such a message to RabbitMQ by way of an exchange that delays it
def test_a_countdown_is_not_waited_for(worker: Worker, send: Send, bars: list[Bar], stored: Stored) -> None:
    assert send(bars[:10], countdown=3_600).get(timeout=10) == counts(written=10)
    assert stored() == bars[:10]


@pytest.mark.parametrize("limits", [{}, {"time_limit": "1m", "soft_time_limit": "abc"}], ids=["plain", "in words"])
def test_equal_ids_share_no_outcome(
    limits: dict[str, Any], worker: Worker, producer: Celery, queue: QueueInspector, bars: list[Bar], stored: Stored
) -> None:
    link = producer.signature(TASK, args=["bars", []], immutable=True, options={"queue": QUEUE})
    for n in range(20):
        producer.send_task(
            TASK,
            args=["bars", bars[n : n + 1]],
            queue=QUEUE,
            task_id="hourly-load",
            link=link if n % 3 == 1 else None,
            **limits,
        )
    wait_until(lambda: stored() == bars[:20])
    wait_until(lambda: queue.depth() == 0 and queue.reserved() in (0, None))


@pytest.mark.usefixtures("worker")
class TestCanvas:
    """What follows a message: Celery's own tracer sends it when the rows are committed."""

    @staticmethod
    def write(producer: Celery, rows: list[Bar]) -> Any:
        return producer.signature(TASK, args=["bars", rows], queue=QUEUE, immutable=True)

    def test_a_callback_runs(self, producer: Celery, send: Send, bars: list[Bar], stored: Stored) -> None:
        assert send(bars[:1], link=self.write(producer, bars[1:2])).get(timeout=10) == counts(written=1)
        wait_until(lambda: stored() == bars[:2])

    def test_a_chain_and_a_group_run(self, producer: Celery, bars: list[Bar], stored: Stored) -> None:
        parts = [self.write(producer, bars[n : n + 2]) for n in (0, 2, 4, 6)]
        assert chain(*parts[:2]).apply_async().get(timeout=10) == counts(written=2)
        assert group(parts[2:], app=producer).apply_async().get(timeout=10) == [counts(written=2)] * 2
        assert stored() == bars[:8]

    def test_a_senders_time_limit_is_not_followed(
        self, producer: Celery, send: Send, bars: list[Bar], stored: Stored, writes_held_back: HoldBack, worker: Worker
    ) -> None:
        with writes_held_back() as until_held:
            result = send(bars[:1], link=self.write(producer, bars[1:2]), soft_time_limit=0.1, time_limit=0.2)
            until_held(1)
            assert not result.ready()
        assert result.get(timeout=10) == counts(written=1)
        wait_until(lambda: stored() == bars[:2])

    @on_redis
    def test_a_chord_runs(self, producer: Celery, bars: list[Bar], stored: Stored) -> None:
        parts = [self.write(producer, bars[n : n + 2]) for n in (0, 2, 4)]
        assert chord(group(parts[:2], app=producer), parts[2]).apply_async().get(timeout=10) == counts(written=2)
        assert stored() == bars[:6]


@on_redis
def test_a_message_is_acknowledged_after_its_rows_are_committed(
    broker_url: str, worker: Worker, send: Send, bars: list[Bar], stored: Stored, writes_held_back: HoldBack
) -> None:
    with redis.Redis.from_url(broker_url) as client:
        with writes_held_back() as until_held:
            send(bars[:10])
            until_held(1)
            assert client.hlen("unacked") == 1
        wait_until(lambda: client.hlen("unacked") == 0)
        assert stored() == bars[:10]


@on_rabbitmq
def test_a_message_comes_back_when_its_worker_dies_before_the_commit(
    start_worker: StartWorker,
    queue: QueueInspector,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    writes_held_back: HoldBack,
) -> None:
    worker = start_worker()
    with writes_held_back() as until_held:
        result = send(bars[:10])
        until_held(1)
        assert queue.depth() == 0
        worker.kill()
        wait_until(lambda: queue.depth() == 1)
    worker.restart()
    # The killed worker's statement may be carried out by Postgres all the same.
    assert sum(result.get(timeout=10).values()) == 10
    assert stored() == bars[:10]


def test_a_lost_connection_to_postgres_is_made_anew(
    worker: Worker, send: Send, bars: list[Bar], stored: Stored, database: Connection, writes_held_back: HoldBack
) -> None:
    with writes_held_back() as until_held:
        result = send(bars[:10])
        until_held(1)
        database.execute(f"SELECT pg_terminate_backend(pid) FROM ({HELD_BACK}) AS held_back")
        worker.wait_for_log("trying again")
    assert result.get(timeout=10) == counts(written=10)
    assert stored() == bars[:10]


def test_messages_go_back_while_postgres_is_down_and_are_written_when_it_is_up(
    start_worker: StartWorker, send: Send, bars: list[Bar], tmp_path: Path
) -> None:
    with start_postgres(tmp_path / "postgres") as server:
        schema.upgrade(server.url)
        worker = start_worker(DATABASE_URL=server.url, MDS_RETRY_DEADLINE_S="0")
        assert send(bars[:10]).get(timeout=10) == counts(written=10)
    results = [send(bars[n : n + 10]) for n in (10, 20, 30)]
    worker.wait_for_log("goes back to the broker")
    with start_postgres(tmp_path / "postgres", port=server.port):
        assert [result.get(timeout=20) for result in results] == [counts(written=10)] * 3


@on_redis
def test_a_database_may_be_migrated_after_the_worker_was_started(
    unmigrated_url: str, start_worker: StartWorker, send: Send, bars: list[Bar]
) -> None:
    worker = start_worker(DATABASE_URL=unmigrated_url)
    result = send(bars[:10])
    worker.wait_for_log("The dataset bars is held")
    schema.upgrade(unmigrated_url)
    assert result.get(timeout=20) == counts(written=10)


DEFAULTS = {"provider": "CME", "symbol": "6EH4", "interval": "1m"}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (["bars", "ROWS", DEFAULTS], {}),
        (["bars", "ROWS"], {"defaults": DEFAULTS}),
        (["bars"], {"rows": "ROWS", "defaults": DEFAULTS}),
        ([], {"dataset": "bars", "rows": "ROWS", "defaults": DEFAULTS}),
    ],
)
@on_redis
def test_arguments_go_by_position_or_by_name(
    worker: Worker, producer: Celery, bars: list[Bar], stored: Stored, args: list[Any], kwargs: dict[str, Any]
) -> None:
    rows = [{name: value for name, value in bar.items() if name not in DEFAULTS} for bar in bars[:2]]
    filled = [rows if arg == "ROWS" else arg for arg in args]
    named = {name: rows if arg == "ROWS" else arg for name, arg in kwargs.items()}
    assert producer.send_task(TASK, args=filled, kwargs=named, queue=QUEUE).get(timeout=10) == counts(written=2)
    assert stored() == bars[:2]


NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)
PRICES = {"open": 1.0, "high": 4.0, "low": 0.5, "close": 2.0}
BAR = ("ibkr", "ESH4", "1m", NOON, 1.0, 4.0, 0.5, 2.0, 100.0)


@pytest.mark.parametrize(
    ("dataset", "row", "query", "expected"),
    [
        pytest.param(
            "bars",
            {"provider": "ibkr", "symbol": "ESH4", "interval": "1m", "ts": NOON.isoformat(), **PRICES, "volume": 100},
            "SELECT provider, symbol, interval, ts, open, high, low, close, volume FROM bars_ohlcv",
            BAR,
            id="the pipeline's default sink",
        ),
        pytest.param(
            "bars",
            {"tenant_id": "t", "vendor": "ibkr", "symbol": "ESH4", "timeframe": "1m", "ts": NOON.isoformat()}
            | {f"{name}_price": value for name, value in PRICES.items()}
            | {"volume": 100, "trade_count": 7, "vwap": 1.5, "metadata": {"a": 1}},
            "SELECT provider, symbol, interval, ts, open, high, low, close, volume, vwap, trade_count FROM bars_ohlcv",
            (*BAR, 1.5, 7),
            id="its database sink",
        ),
        pytest.param(
            "bars",
            {"symbol": "ESH4", "timestamp": NOON.isoformat(), **PRICES, "volume": 100, "source": "ibkr"}
            | {"vwap": 1.5, "trade_count": 7, "metadata": {}, "idempotency_key": "k", "interval": "1m"},
            "SELECT provider, symbol, interval, ts, open, high, low, close, volume, vwap, trade_count FROM bars_ohlcv",
            (*BAR, 1.5, 7),
            id="its StoreSink",
        ),
        pytest.param(
            "bars",
            {"symbol": "ESH4", "ts": NOON.isoformat(), "resolution": "1m", "delayed": False, "provider": "ibkr"}
            | {name: str(value) for name, value in PRICES.items()}
            | {"volume": "100"},
            "SELECT provider, symbol, interval, ts, open, high, low, close, volume FROM bars_ohlcv",
            BAR,
            id="Core's Bar, with Decimals",
        ),
        pytest.param(
            "ticks",
            {"provider": "ibkr", "symbol": "ESH4", "price": 1.5, "ts": "2024-03-04T12:00:00", "size": 3, "bid": 1.25}
            | {"ask": 1.75},
            "SELECT provider, symbol, price, ts, size, bid, ask FROM tick_data",
            ("ibkr", "ESH4", 1.5, NOON, 3.0, 1.25, 1.75),
            id="TickConsumer, whose time is naive",
        ),
        pytest.param(
            "signals",
            {"provider": "ibkr", "symbol": "ESH4", "ts": NOON.isoformat(), "name": "momentum", "value": 0.5}
            | {"score": None, "metadata": {"window": 5}},
            "SELECT provider, symbol, ts, name, value, score, metadata FROM signals",
            ("ibkr", "ESH4", NOON, "momentum", 0.5, None, {"window": 5}),
            id="streaming signals",
        ),
    ],
)
@on_redis
def test_records_of_the_neighbours_are_taken_unchanged(
    worker: Worker,
    producer: Celery,
    database: Connection,
    dataset: str,
    row: dict[str, Any],
    query: str,
    expected: tuple[Any, ...],
) -> None:
    assert producer.send_task(TASK, args=[dataset, [row]], queue=QUEUE).get(timeout=10) == counts(written=1)
    assert database.execute(query).fetchall() == [expected]


def test_remote_control_sees_each_task(
    worker: Worker,
    producer: Celery,
    queue: QueueInspector,
    send: Send,
    bars: list[Bar],
    writes_held_back: HoldBack,
) -> None:
    name = worker.hostname()
    inspect = producer.control.inspect(destination=[name], timeout=5)
    total = inspect.stats()[name]["total"].get(TASK, 0)
    with writes_held_back() as until_held:
        active = []
        for n in (0, 1):
            active.append(send(bars[n : n + 1]))
            until_held(n + 1)
        waiting = send(bars[2:3])
        wait_until(lambda: queue.depth() == 0)
        assert inspect.ping() == {name: {"ok": "pong"}}
        assert {task["id"] for task in inspect.active()[name]} == {result.id for result in active}
        assert {task["id"] for task in inspect.reserved()[name]} == {waiting.id}
    for result in (*active, waiting):
        result.get(timeout=10)
    assert inspect.stats()[name]["total"] == {TASK: total + 3}


def test_celery_purge_empties_the_queue(
    broker_url: str, database_url: str, queue: QueueInspector, send: Send, bars: list[Bar], tmp_path: Path
) -> None:
    for n in range(3):
        send(bars[n : n + 1])
    purge = run(
        *(PYTHON, "-m", "celery", "-A", "market_data_store.app", "purge", "-f"),
        directory=tmp_path,
        environment={"BROKER_URL": broker_url, "DATABASE_URL": database_url},
    )
    assert purge.returncode == 0, purge
    assert "Purged 3 messages from 2 known task queues." in purge.stdout
    assert queue.depth() == 0


@slow_on_rabbitmq
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_warm_shutdown_gives_back_what_is_not_written(
    pool: str,
    start_worker: StartWorker,
    queue: QueueInspector,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    writes_held_back: HoldBack,
) -> None:
    worker = start_worker(pool)
    held = {"prefork": 2, "solo": 1}[pool]
    with writes_held_back() as until_held:
        results = []
        for n in range(held):
            results.append(send(bars[n : n + 1]))
            until_held(n + 1)
        results += [send(bars[n : n + 1]) for n in range(held, 300)]  # more than the worker takes at once
        if pool == "prefork":  # solo takes none while it writes
            wait_until(lambda: queue.depth() < 100)
        worker.kill("SIGTERM")
        worker.wait_for_log("Warm shutdown")
    worker.stop()
    assert stored() == bars[:held], "what was being written is written"
    assert queue.depth() == 300 - held
    worker.restart()
    wait_until(lambda: stored() == bars[:300], timeout_s=60)
    assert [result.get(timeout=20) for result in results] == [counts(written=1)] * 300


@on_redis
def test_a_pool_of_threads_is_refused(tmp_path: Path, broker_url: str, database_url: str) -> None:
    worker = run(
        *(PYTHON, "-m", "celery", "-A", "market_data_store.app", "worker", "--pool", "threads"),
        directory=tmp_path,
        environment={"BROKER_URL": broker_url, "DATABASE_URL": database_url},
    )
    assert worker.returncode == 2
    assert worker.stderr == "error: --pool celery.concurrency.thread: use prefork (the default) or solo\n"


@on_redis
def test_two_workers_with_overlapping_shuffled_batches_never_deadlock(
    start_worker: StartWorker,
    producer: Celery,
    queue: QueueInspector,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
) -> None:
    chance = random.Random(1)  # noqa: S311  # no secret
    for version in range(40):
        rows = [{**bar, "volume": version} for bar in chance.sample(bars[:500], 400)]
        producer.send_task(TASK, args=["bars", rows], queue=QUEUE, ignore_result=True)
    settings = {"MDS_PREFETCH_MESSAGES": "2"}  # so that all four processes have work
    workers = [start_worker(**settings), start_worker(**settings)]
    wait_until(lambda: queue.depth() == 0 and len(stored()) == 500, timeout_s=60)
    wait_until(lambda: sum(int(n) for w in workers for n in re.findall(r"of (\d+) messages", w.logs())) == 40)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert database.execute(deadlocks).fetchall() == [(0,)]
    assert all("trying again" not in w.logs() for w in workers)
