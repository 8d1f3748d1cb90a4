"""Tables of Arrow, from a producer to Postgres: `StoreClient.write_table`, and a foreign Celery client's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from celery import Celery
from kombu.serialization import register, unregister
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, StartWorker
from support.waiting import wait_until
from support.workers import Worker

from market_data_store import StoreClient
from market_data_store.app import app as store_app
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.dead_letters.replay import replay
from market_data_store.errors import InvalidMessage, InvalidRow
from market_data_store.protocol import ARROW, Counts
from market_data_store.wire.arrow import frame_of, pack

Stored = Callable[[], list[Bar]]


def frame(bars: list[Bar]) -> pa.Table:
    return pa.Table.from_pylist([bar | {"ts": datetime.fromisoformat(bar["ts"])} for bar in bars])


@pytest.fixture
def client(producer: Celery) -> Any:
    # The producer's backend is rpc:// on RabbitMQ.
    with StoreClient(app=producer, confirm=True) as client:
        yield client


def test_a_table_is_stored_as_its_rows_are(
    client: StoreClient, worker: Worker, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    assert client.write_table("bars", frame(bars[:12_000])) == 12_000
    assert client.confirm(timeout_s=30)
    assert client.confirmed == Counts(written=12_000)
    assert stored() == bars[:12_000]

    client.write("bars", bars[:500])
    client.write_table("bars", frame(bars[:500]))
    assert client.confirm(timeout_s=30)
    assert client.confirmed == Counts(written=12_000, unchanged=1_000), "in either form it is the same row"
    assert "('bars', <5000 rows>)" not in worker.whole_log(), "no line a message"
    assert database.execute("SELECT FROM dead_letters").rowcount == 0


@on_redis
def test_a_tables_newer_row_wins_over_rows_that_were_gathered_before(
    client: StoreClient, worker: Worker, bars: list[Bar], stored: Stored
) -> None:
    newer = [bar | {"volume": bar["volume"] + 1} for bar in bars[:10]]
    client.write("bars", bars[:10])
    client.write_table("bars", frame(newer))
    client.write("bars", bars[10:11])
    client.flush()
    assert client.confirm(timeout_s=30)
    assert stored() == [*newer, bars[10]]


@on_redis
def test_a_bad_row_raises_at_write_table_and_nothing_is_sent(
    client: StoreClient, queue: QueueInspector, bars: list[Bar]
) -> None:
    bad = [*bars[:5_003], bars[5_003] | {"open": float("nan")}]
    with pytest.raises(InvalidRow, match="row 5003: open: nan is not a finite number") as raised:
        client.write_table("bars", frame(bad))
    assert raised.value.position == 5_003
    with pytest.raises(InvalidMessage, match="dataset: 'bar' is unknown"):
        client.write_table("bar", frame(bars[:1]))
    client.flush()
    assert queue.depth() == 0


@on_redis
def test_unchecked_its_bad_row_is_a_dead_letter_that_can_be_replayed(
    producer: Celery, worker: Worker, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    rows = [bar | {"provider": None if n == 1 else bar["provider"]} for n, bar in enumerate(bars[:3])]
    with StoreClient(app=producer, confirm=True, check=False) as client:
        client.write_table("bars", frame(rows))
        assert client.confirm(timeout_s=30)
        assert client.confirmed == Counts(written=2, rejected=1)
    letter = database.execute("SELECT position, reason, row->>'symbol' FROM dead_letters").fetchall()
    assert letter == [(1, "provider: null (key column); give it in the row or in defaults", "6EH4")]
    database.execute('UPDATE dead_letters SET defaults = \'{"provider": "CME"}\'')
    assert replay(producer, database) == 1
    wait_until(lambda: stored() == bars[:3], "the row is written")
    assert database.execute("SELECT FROM dead_letters").rowcount == 0


@on_redis
def test_a_spool_keeps_tables_for_the_next_client_in_order(
    producer: Celery, tmp_path: Path, bars: list[Bar], start_worker: StartWorker, stored: Stored
) -> None:
    newer = [bar | {"volume": bar["volume"] + 1} for bar in bars[:6_000]]
    nobody = Celery("nobody", broker="redis://127.0.0.1:1/0", set_as_current=False)
    with StoreClient(app=nobody, spool=tmp_path / "rows.db", close_timeout_s=0.1) as client:
        client.write_table("bars", frame(bars[:6_000]))
        client.write("bars", newer[:1])
        client.write_table("bars", frame(newer[1:]))
        assert client.pending_rows == 12_000
    nobody.close()
    start_worker()
    with StoreClient(app=producer, spool=tmp_path / "rows.db"):
        wait_until(lambda: stored() == newer, "what was spooled is written, the newest of each")


def test_a_foreign_client_needs_a_serializer_of_one_line(
    producer: Celery, worker: Worker, bars: list[Bar], stored: Stored
) -> None:
    """As docs/producing.md has it: the body is the stream, and its schema says the dataset."""
    table = frame([{name: value for name, value in bar.items() if name != "provider"} for bar in bars[:700]])
    table = table.replace_schema_metadata({"dataset": "bars", "defaults": '{"provider": "CME"}'})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    register("arrow", lambda body: body[0][0], None, content_type=ARROW, content_encoding="binary")
    try:
        result = producer.send_task(TASK, args=[sink.getvalue().to_pybytes()], queue=QUEUE, serializer="arrow")
        assert result.get(timeout=30) == {"written": 700, "unchanged": 0, "stale": 0, "rejected": 0}
    finally:
        unregister("arrow")
    assert stored() == bars[:700]


@on_redis
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda body: body[:-200], "body: not a readable Arrow IPC stream"),
        (lambda body: body.replace(b"bars", b"barz"), "dataset: 'barz' is unknown"),
    ],
)
def test_a_table_that_is_no_table_is_a_dead_letter_and_the_worker_goes_on(
    producer: Celery,
    client: StoreClient,
    worker: Worker,
    bars: list[Bar],
    database: Connection,
    stored: Stored,
    spoil: Callable[[bytes], bytes],
    reason: str,
) -> None:
    body = spoil(pack("bars", b"{}", frame_of(frame(bars[:100]))))
    store_app.send_task  # noqa: B018  # importing the application registers its serializers
    result = producer.send_task(TASK, args=["bars", body], queue=QUEUE, serializer="store-arrow")
    with pytest.raises(Exception, match=reason):
        result.get(timeout=30)
    assert database.execute("SELECT body, reason FROM dead_letters").fetchall()[0][0] == body
    client.write_table("bars", frame(bars[:100]))
    assert client.confirm(timeout_s=30)
    assert stored() == bars[:100]
    database.execute("UPDATE dead_letters SET body = %s", [pack("bars", b"{}", frame_of(frame(bars[100:200])))])
    assert replay(producer, database) == 1
    wait_until(lambda: stored() == bars[:200], "a letter that holds a table is sent as one")
