"""StoreClient keeps what is not yet safe: while the broker is away, for the next process, until it is committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery
from kombu import Connection as BrokerConnection
from kombu import Queue
from support.brokers import Broker, on_rabbitmq, on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, Bar, StartWorker
from support.waiting import wait_until

from market_data_store import StoreClient
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.watermarks import Watermarks
from market_data_store.errors import BrokerUnavailable, ConfigurationError, SpoolFull, SpoolUnavailable
from market_data_store.local import free_port
from market_data_store.producer.brake import Brake
from market_data_store.producer.throttle import Throttle


class Sent(NamedTuple):
    task_id: str
    enqueued_at: float
    rows: list[Bar]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@contextmanager
def application(url: str) -> Iterator[Celery]:
    with Celery(
        "producer", broker=url, backend=url if url.startswith("redis") else "rpc://", set_as_current=False
    ) as app:
        app.conf.task_create_missing_queue_type = "quorum"
        yield app
        if url.startswith("redis"):
            app.backend.client.connection_pool.disconnect()


def taken(url: str) -> list[Sent]:
    """Take what waits in the queue, as a broker that loses it."""
    with BrokerConnection(url) as connection:
        queue = Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})(connection.default_channel)
        queue.declare()
        messages = iter(lambda: queue.get(no_ack=True), None)
        return [Sent(m.headers["id"], m.headers["enqueued_at"], m.payload[0][1]) for m in messages]


def nowhere() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=pytest.mark.slow)], indirect=True)
def test_rows_written_while_the_broker_is_away_go_in_order_when_it_is_back(
    broker: Broker, spool: Path, bars: list[Bar], caplog: pytest.LogCaptureFixture
) -> None:
    with application(broker.url) as app, StoreClient(app=app, spool=spool) as client:
        client.write("bars", bars[:700])
        wait_until(lambda: client.pending_rows == 0, "all are sent")
        broker.stop()
        for n in range(700, 3_000, 100):
            client.write("bars", bars[n : n + 100])
        assert client.pending_rows == 2_300
        with pytest.raises(BrokerUnavailable, match=f"rows are kept in {spool}"):
            client.flush()
        broker.start()
        wait_until(lambda: client.pending_rows == 0, "all are sent without another call", timeout_s=60)
        client.write("bars", bars[3_000:3_100])
        client.flush()
        assert [row for message in taken(broker.url) for row in message.rows] == bars[:3_100]
    assert [r.getMessage() for r in caplog.records if "takes messages again" in r.getMessage()]
    away = [r for r in caplog.records if "took no message" in r.getMessage()]
    assert len(away) == 1, "an outage is told of once"


def test_the_next_client_with_the_spool_sends_what_an_earlier_one_kept(
    broker_url: str, spool: Path, bars: list[Bar], caplog: pytest.LogCaptureFixture
) -> None:
    with application(nowhere()) as app, StoreClient(app=app, spool=spool, close_timeout_s=0.5) as client:
        for n in range(0, 1_200, 400):
            client.write("bars", bars[n : n + 400])
        with pytest.raises(SpoolUnavailable, match="in use"):
            StoreClient(app=app, spool=spool)
    said = [
        r.getMessage()
        for r in caplog.records
        if r.levelno >= logging.WARNING and "the next StoreClient" in r.getMessage()
    ]
    assert said == [f"1200 rows are kept in {spool}; the next StoreClient with this spool sends them"]
    with application(broker_url) as app, StoreClient(app=app, spool=spool) as client:
        client.write("bars", bars[1_200:1_300])
        client.flush()
        assert client.pending_rows == 0
    messages = taken(broker_url)
    assert [row for message in messages for row in message.rows] == bars[:1_300]
    assert [m.enqueued_at for m in messages] == sorted({m.enqueued_at for m in messages})


@pytest.mark.parametrize(
    ("broker_url", "keeps"), [("redis", "spool"), ("redis", "memory"), ("rabbitmq", "spool")], indirect=["broker_url"]
)
def test_a_message_that_the_broker_lost_goes_again_as_the_same_until_it_is_committed(
    broker_url: str,
    start_worker: StartWorker,
    stored: Callable[[], list[Bar]],
    spool: Path,
    bars: list[Bar],
    keeps: str,
) -> None:
    options: dict[str, Any] = {"spool": spool} if keeps == "spool" else {}
    with (
        application(broker_url) as app,
        StoreClient(app=app, confirm=True, confirm_timeout_s=0.2, **options) as client,
    ):
        client.write("bars", bars[:1_000])
        lost: list[Sent] = []

        def lose() -> bool:
            lost.extend(taken(broker_url))
            return len(lost) >= 4

        wait_until(lose, "each goes a second time")
        assert len({(message.task_id, message.enqueued_at) for message in lost}) == 2
        assert {len(message.rows) for message in lost} == {500}
        assert client.pending_rows == 1_000
        assert not client.confirm()
        start_worker()
        assert client.confirm(timeout_s=30)
        assert (client.sent, client.pending_rows) == (1_000, 0)
        assert client.confirmed.rejected == client.confirmed.stale == 0
        assert stored() == bars[:1_000]


def test_what_was_not_confirmed_is_confirmed_by_the_next_client(
    broker_url: str,
    start_worker: StartWorker,
    stored: Callable[[], list[Bar]],
    spool: Path,
    bars: list[Bar],
    database: Connection,
) -> None:
    bad = {**bars[700], "close": "high"}
    options: dict[str, Any] = {"confirm": True, "confirm_timeout_s": 0.5, "spool": spool, "check": False}
    with application(broker_url) as app:
        with StoreClient(app=app, **options, close_timeout_s=0.1) as client:
            client.write("bars", [*bars[:700], bad])
            client.flush()
        taken(broker_url)
        start_worker()
        with StoreClient(app=app, **options) as client:
            assert client.confirm(timeout_s=30)
            counts = client.confirmed
            assert (counts.written + counts.unchanged, counts.rejected) == (700, 1)
            assert list(client.rejecting.values()) == [500]
        with StoreClient(app=app, **options) as client:
            assert client.pending_rows == 0
    assert stored() == bars[:700]
    assert database.execute("SELECT DISTINCT position FROM dead_letters").fetchall() == [(200,)]


@on_rabbitmq
def test_a_queue_that_vanished_is_made_again_and_the_message_reaches_it(broker_url: str, bars: list[Bar]) -> None:
    with application(broker_url) as app, StoreClient(app=app) as client, BrokerConnection(broker_url) as connection:
        client.write("bars", bars[:500])
        connection.default_channel.queue_delete(QUEUE)
        client.write("bars", bars[500:1_000])  # unroutable: logged, and tried again
        client.flush()
        assert [message.rows for message in taken(broker_url)] == [bars[500:1_000]]


def test_a_full_spool_refuses_rows_and_takes_them_when_the_broker_is_back(
    broker_url: str, spool: Path, bars: list[Bar]
) -> None:
    with (
        application(nowhere()) as app,
        StoreClient(app=app, spool=spool, spool_max_bytes=300_000, close_timeout_s=0.1) as client,
    ):
        accepted = 0

        def fill() -> None:
            nonlocal accepted
            while True:
                accepted += client.write("bars", bars[accepted : accepted + 100])

        with pytest.raises(SpoolFull, match=f"{spool} is full"):
            fill()
        assert client.pending_rows == accepted >= 1_000
    with (
        application(broker_url) as app,
        StoreClient(app=app, spool=spool, spool_max_bytes=300_000, on_pressure="raise") as client,
    ):
        client.flush()
        client.write("bars", bars[accepted : accepted + 100])
    assert [row for message in taken(broker_url) for row in message.rows] == bars[: accepted + 100]


@on_redis
def test_a_backlog_in_the_spool_does_not_fill_the_queue_beyond_its_upper_mark(
    broker_url: str, spool: Path, bars: list[Bar], start_worker: StartWorker, stored: Callable[[], list[Bar]]
) -> None:
    options: dict[str, Any] = {"spool": spool, "max_rows": 10, "capacity": 20}
    with application(nowhere()) as app, StoreClient(app=app, **options, close_timeout_s=0.1) as client:
        client.write("bars", bars[:600])
    with application(broker_url) as app, closing(QueueInspector(app, QUEUE)) as inspector:
        with StoreClient(app=app, **options) as client:
            wait_until(lambda: inspector.depth() >= 16)
            assert client.pending_rows >= 600 - 10 * 20
            start_worker()
            wait_until(lambda: client.pending_rows == 0, timeout_s=40)
            assert inspector.depth() <= 20
        wait_until(lambda: stored() == bars[:600])


def test_behind_a_backlog_nothing_goes_a_second_time(broker_url: str, bars: list[Bar]) -> None:
    with application(broker_url) as app:
        brake = Brake(Throttle(100, Watermarks()), QueueInspector(app, QUEUE), has_spool=False)
        with closing(brake), StoreClient(app=app, max_rows=1, on_pressure="ignore") as client:
            assert brake.room() == 40
            client.write("bars", bars[:30])
            assert brake.room() == 10
            client.write("bars", bars[30:100])
            assert brake.room() == 0
    with application(nowhere()) as app:
        brake = Brake(Throttle(100, Watermarks()), QueueInspector(app, QUEUE), has_spool=False)
        assert brake.room() == 0


def test_confirmation_without_a_place_for_results_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="confirm=True needs results"):
        StoreClient(app=Celery(broker="memory://", set_as_current=False), confirm=True)
