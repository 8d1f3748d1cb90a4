"""Producers and workers whose clocks are wrong: which of two rows with one key is the newest."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from celery import Celery
from support.brokers import on_redis
from support.databases import Connection
from support.faketime import clock_off_by
from support.fixtures.store import QUEUE, TASK, Bar, HoldBack, Send, StartWorker, Stored
from support.processes import PYTHON, Process
from support.waiting import wait_until
from support.workers import Worker, stop_consuming

from market_data_store import StoreClient
from market_data_store.coordinator.queue import QueueInspector

Moment = Callable[[], float]
#: Seconds by which a moment may differ from the clock that this test reads before and after.
_SLACK_S = 0.05


@pytest.fixture
def moment(database: Connection) -> Moment:
    """When the one stored row was enqueued, in epoch seconds."""

    def read() -> float:
        ((found,),) = database.execute("SELECT extract(epoch FROM enqueued_at)::float8 FROM bars_ohlcv").fetchall()
        return float(found)

    return read


def stores(database: Connection, close: float) -> bool:
    return database.execute("SELECT close FROM bars_ohlcv").fetchall() == [(close,)]


def let_visibility_time_out(url: str) -> None:
    """Of all messages that workers hold on a Redis."""
    with redis.Redis.from_url(url) as server:
        held: Any = server.hkeys("unacked")
        assert server.zadd("unacked_index", dict.fromkeys(held, 0), xx=True, ch=True) == len(held) > 0


def say(process: Process, line: str, answers: int) -> None:
    """Have a producer write a bar, and wait until it is sent."""
    assert process.popen.stdin is not None
    process.popen.stdin.write(f"{line}\n".encode())
    process.popen.stdin.flush()
    assert process.wait_for_line(answers) == line


@on_redis
def test_of_producers_that_update_one_key_in_turn_the_last_wins_whatever_their_clocks(
    worker: Worker, broker_url: str, database: Connection, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        producers = [
            Process(
                *(PYTHON, "-m", "support.turn_producer"),
                directory=tmp_path,
                environment={"BROKER_URL": broker_url, **clock_off_by(seconds)},
                name=f"off-{seconds:+.0f}",
                with_input=True,
                output_apart=True,
            )
            for seconds in (-600.0, 600.0)
        ]
        for producer in producers:
            stack.callback(producer.kill)
        for turn, producer in zip(range(1, 13), itertools.cycle(producers)):
            say(producer, str(float(turn)), (turn + 1) // 2)
            wait_until(partial(stores, database, close=turn), f"turn {turn} is stored")
        logs = [producer.text() for producer in producers]
    assert "this machine's clock is 600 s behind the broker's" in logs[0]
    assert "this machine's clock is 600 s ahead of the broker's" in logs[1]
    assert [log.count("this machine's clock") for log in logs] == [1, 1]


def test_a_producer_that_may_not_ask_for_the_time_uses_its_own(
    redis_url: str, bars: list[Bar], caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(redis_url) as server:
        server.execute_command("ACL", "SETUSER", "timeless", "on", "nopass", "~*", "&*", "+@all", "-time")
        url = redis_url.replace("redis://", "redis://timeless:x@")
        try:
            with (
                Celery("timeless", broker=url, set_as_current=False) as app,
                StoreClient(app=app, linger_s=60) as client,
            ):
                for bar in bars[:3]:
                    client.write("bars", [bar])
                client.flush()
            texts = [text for text in caplog.messages if "does not tell its time" in text]
            assert len(texts) == 1
            assert server.llen(QUEUE) == 1
        finally:
            server.execute_command("ACL", "DELUSER", "timeless")


@pytest.fixture(params=[-3_600.0, 3_600.0], ids=["behind", "ahead"])
def wrong_worker(request: pytest.FixtureRequest, start_worker: StartWorker) -> Worker:
    """A worker whose clock is an hour off."""
    return start_worker(**clock_off_by(request.param))


def test_a_message_without_a_time_gets_that_of_a_server_and_not_of_the_worker(
    wrong_worker: Worker, send: Send, bars: list[Bar], moment: Moment
) -> None:
    before = time.time()
    send(bars[:1]).get(timeout=20)
    assert before - _SLACK_S <= moment() <= time.time() + _SLACK_S


def test_a_message_of_an_exact_producer_keeps_its_time_whatever_the_workers_clock(
    wrong_worker: Worker, send: Send, bars: list[Bar], moment: Moment
) -> None:
    sent = time.time()
    send(bars[:1], headers={"enqueued_at": sent}).get(timeout=20)
    assert moment() == pytest.approx(sent, abs=1e-6)


ODD = ["abc", "", True, [1.7e9], {}, 0, -5e9, -1e300, 1e300, 9.5e12, 4_102_444_800, 946_684_799, float("nan")]


@pytest.mark.parametrize("way", ["plain", "callback", "chain", "group"])
def test_a_time_that_cannot_be_right_counts_as_now(
    worker: Worker, producer: Celery, broker_url: str, bars: list[Bar], database: Connection, way: str
) -> None:
    odd_ones = [odd for odd in ODD if odd == odd or broker_url.startswith("redis")]  # RabbitMQ takes no NaN
    nothing = producer.signature(TASK, args=["bars", []], queue=QUEUE, immutable=True)
    options: dict[str, Any] = {
        "plain": {},
        "callback": {"link": nothing},
        "chain": {"chain": [nothing]},
        "group": {"group_id": "g"},
    }[way]
    before = time.time()
    results = [
        producer.send_task(TASK, args=["bars", [bar]], queue=QUEUE, headers={"enqueued_at": odd}, **options)
        for odd, bar in zip(odd_ones, bars, strict=False)
    ]
    assert [result.get(timeout=20)["written"] for result in results] == [1] * len(odd_ones)
    stored = database.execute("SELECT extract(epoch FROM enqueued_at)::float8 FROM bars_ohlcv").fetchall()
    assert len(stored) == len(odd_ones)
    for (moment,) in stored:
        assert before - _SLACK_S <= moment <= time.time() + _SLACK_S


_WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.slow
@pytest.mark.parametrize("header", ["none", "ahead"])
def test_a_message_that_is_delivered_again_is_no_newer_than_before(
    header: str,
    broker_url: str,
    start_worker: StartWorker,
    producer: Celery,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database_url: str,
    database: Connection,
) -> None:
    """Its worker is killed while it has the message, and another message has changed the row."""
    older, newer = {**bars[0], "close": 1.0}, {**bars[0], "close": 2.0}
    with psycopg.connect(database_url) as other:  # a lock, since the frozen worker must not have written its row
        other.execute("LOCK TABLE bars_ohlcv IN ACCESS EXCLUSIVE MODE")
        first = start_worker(MDS_REMOTE_CONTROL="true")
        headers = {"enqueued_at": time.time() + 3_600} if header == "ahead" else {}
        late = send([older], headers=headers)
        wait_until(lambda: database.execute(_WAITING).rowcount == 1)
        stop_consuming(producer, first)
        os.killpg(first.pid, signal.SIGSTOP)
    start_worker()
    assert send([newer]).get(timeout=20)["written"] == 1
    first.container.kill()
    if broker_url.startswith("redis"):
        let_visibility_time_out(broker_url)
    assert late.get(timeout=40)["stale"] == 1
    assert stored() == [newer]


@on_redis
@pytest.mark.slow
def test_messages_go_back_by_the_clock_of_redis_and_not_by_that_of_a_worker(
    broker_url: str, start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored
) -> None:
    """A worker an hour ahead neither takes what others are at work on, nor keeps what it had when it was killed."""
    with redis.Redis.from_url(broker_url, decode_responses=True) as server:
        exact = start_worker(MDS_VISIBILITY_TIMEOUT_S="600")
        for pid in exact.pool_pids:
            os.kill(pid, signal.SIGSTOP)
        result = send(bars[:1])
        (kept,) = wait_until(lambda: server.hkeys("unacked"))
        ahead = start_worker(MDS_VISIBILITY_TIMEOUT_S="600", **clock_off_by(3_600))
        looked = int(server.info("commandstats")["cmdstat_zrange"]["calls"])
        wait_until(lambda: int(server.info("commandstats")["cmdstat_zrange"]["calls"]) >= looked + 4, timeout_s=40)
        assert server.hkeys("unacked") == [kept]
        for pid in exact.pool_pids:
            os.kill(pid, signal.SIGCONT)
        assert result.get(timeout=20)["written"] == 1
        exact.stop()

        os.killpg(ahead.pid, signal.SIGSTOP)
        ahead.container.kill()
        taking = start_worker(MDS_VISIBILITY_TIMEOUT_S="600", **clock_off_by(3_600))
        for pid in taking.pool_pids:
            os.kill(pid, signal.SIGSTOP)
        send(bars[1:2])
        wait_until(lambda: server.hkeys("unacked"))
        taking.container.kill()
        start_worker(MDS_VISIBILITY_TIMEOUT_S="2")
        wait_until(lambda: stored() == bars[:2], timeout_s=40)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broker_url", "header"), [("redis", "exact"), ("redis", "none"), ("rabbitmq", "exact")], indirect=["broker_url"]
)
def test_a_backlog_that_workers_with_wrong_clocks_take_and_lose_ends_with_what_was_sent_last(
    header: str,
    broker_url: str,
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    database: Connection,
    queue: QueueInspector,
    writes_held_back: HoldBack,
) -> None:
    """Forty updates of one bar wait; a worker an hour ahead is killed with them, one an hour behind writes them."""

    def update(close: float) -> Any:
        return send([{**bars[0], "close": close}], headers={} if header == "none" else {"enqueued_at": time.time()})

    for n in range(1, 41):
        update(float(n))
    with writes_held_back() as until_held:
        ahead = start_worker(**clock_off_by(3_600))
        until_held(1)
        ahead.container.kill()
    if broker_url.startswith("redis"):
        let_visibility_time_out(broker_url)
    start_worker(**clock_off_by(-3_600))
    start_worker(**clock_off_by(3_600))
    wait_until(lambda: (queue.depth(), queue.reserved() or 0) == (0, 0), timeout_s=60)
    wait_until(lambda: stores(database, 40.0))
    assert database.execute("SELECT count(*) FROM bars_ohlcv WHERE enqueued_at > now()").fetchall() == [(0,)]
    assert update(41.0).get(timeout=20)["written"] == 1
    assert stores(database, 41.0)
