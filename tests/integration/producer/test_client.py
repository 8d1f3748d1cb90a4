"""StoreClient on real brokers: the messages that it makes, what it refuses, what it keeps while the broker is away."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from celery import Celery
from kombu import Queue
from market_data_core import Bar as CoreBar
from market_data_core import OptionSnapshot, Quote, Trade
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, Bar, Send
from support.processes import PYTHON, run
from support.waiting import wait_until
from support.workers import Worker

from market_data_store import StoreClient
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import BrokerUnavailable, InvalidMessage, InvalidRow
from market_data_store.local import start_valkey
from market_data_store.protocol import Counts

Taken = Callable[[], list[list[Any]]]

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def taken(producer: Celery) -> Taken:
    """Take what waits in the queue: the rows of each message."""

    def take() -> list[list[Any]]:
        with producer.connection_for_read() as connection:
            queue = Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})(connection.default_channel)
            queue.declare()
            payloads = iter(lambda: getattr(queue.get(no_ack=True), "payload", None), None)
            return [args[1] for args, _, _ in payloads]

    return take


def test_a_message_goes_when_it_has_500_rows(producer: Celery, taken: Taken, bars: list[Bar]) -> None:
    with StoreClient(app=producer, linger_s=60) as client:
        for bar in bars[:499]:
            client.write("bars", [bar])
        assert taken() == []
        client.write("bars", bars[499:1_700])
        assert taken() == [bars[:500], bars[500:1_000], bars[1_000:1_500]]
        client.flush()
        assert taken() == [bars[1_500:1_700]]
        client.write("bars", bars[:1])
    assert taken() == [bars[:1]], "close sends the rest"


@on_redis
def test_a_message_goes_before_it_has_more_than_a_mebibyte(producer: Celery, taken: Taken) -> None:
    news = [{"provider": "x", "ts": NOON.isoformat(), "id": str(n), "title": "t" * 60_000} for n in range(100)]
    with StoreClient(app=producer, linger_s=60) as client:
        for row in news:
            client.write("news", [row])
    messages = taken()
    assert [row for rows in messages for row in rows] == news
    assert all(len(msgspec.json.encode(rows)) <= 1024 * 1024 for rows in messages)
    assert len(messages) == 6


def test_a_message_goes_when_its_first_row_has_lingered(
    producer: Celery, queue: QueueInspector, taken: Taken, bars: list[Bar]
) -> None:
    with StoreClient(app=producer, linger_s=0.05) as client:
        client.write("bars", bars[:1])
        started = time.monotonic()
        client.write("bars", bars[1:3])
        wait_until(lambda: queue.depth() == 1)
        assert 0.04 < time.monotonic() - started < 1
        assert taken() == [bars[:3]]


def test_a_row_after_a_pause_goes_without_a_flush(
    producer: Celery, queue: QueueInspector, taken: Taken, bars: list[Bar]
) -> None:
    with StoreClient(app=producer) as client:
        for bar in bars[:2]:
            client.write("bars", [bar])
            wait_until(lambda: queue.depth() == 1, "it is sent")
            assert taken() == [[bar]]


@on_redis
def test_rows_share_a_message_with_their_dataset_and_defaults_alone(producer: Celery, taken: Taken) -> None:
    tick = {"symbol": "S", "ts": NOON.isoformat(), "price": 1.0}
    with StoreClient(app=producer, defaults={"provider": "a"}, linger_s=60) as client:
        client.write("ticks", [tick])
        client.write("quotes", [tick])
        client.write("ticks", [tick], defaults={"provider": "b"})
        client.write("ticks", [tick])
    assert sorted(map(len, taken())) == [1, 1, 2]


@on_redis
def test_a_closed_client_takes_nothing(producer: Celery, taken: Taken, bars: list[Bar]) -> None:
    client = StoreClient(app=producer)
    client.close()
    with pytest.raises(InvalidMessage, match="the client is closed"):
        client.write("bars", bars[:1])
    assert taken() == []


@dataclass
class DataclassBar:
    symbol: str
    ts: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int


class StructBar(msgspec.Struct):
    symbol: str
    ts: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int


PRICES: dict[str, Any] = {
    "open": Decimal("1.00"),
    "high": Decimal("4.5"),
    "low": Decimal("0.5"),
    "close": Decimal("2.25"),
    "volume": 7,
}

MAKERS: list[tuple[type[Any], dict[str, Any]]] = [
    (CoreBar, {"resolution": "1m"}),
    (DataclassBar, {}),
    (StructBar, {}),
    (dict, {}),
]


@pytest.mark.parametrize(
    ("dataset", "row", "query", "expected"),
    [
        *(
            pytest.param(
                "bars",
                make(symbol="ESH4", ts=NOON, **PRICES, **extra),
                "SELECT provider, symbol, interval, ts, open, high, low, close, volume FROM bars_ohlcv",
                ("x", "ESH4", "1m", NOON, 1.0, 4.5, 0.5, 2.25, 7.0),
                id=make.__name__,
            )
            for make, extra in MAKERS
        ),
        pytest.param(
            "quotes",
            Quote(symbol="ESH4", timestamp=NOON, bid=Decimal("1.25"), ask=Decimal("1.5"), last=None),
            "SELECT provider, symbol, ts, bid, ask, last FROM quotes",
            ("x", "ESH4", NOON, 1.25, 1.5, None),
            id="Quote",
        ),
        pytest.param(
            "ticks",
            Trade(symbol="ESH4", ts=NOON, price=Decimal("1.25"), size=3),
            "SELECT provider, symbol, ts, price, size FROM tick_data",
            ("x", "ESH4", NOON, 1.25, 3.0),
            id="Trade",
        ),
        pytest.param(
            "options",
            OptionSnapshot(
                symbol="ESH4",
                expiry=datetime(2024, 6, 21, tzinfo=UTC),
                strike=Decimal("5000"),
                option_type="C",
                bid=Decimal("10.5"),
                ask=Decimal("11.5"),
                last=None,
            ),
            "SELECT provider, symbol, expiry, strike, option_type, bid, ask, ts > now() - interval '1 min' "
            "FROM options_snap",
            ("x", "ESH4", date(2024, 6, 21), 5000.0, "C", 10.5, 11.5, True),
            id="OptionSnapshot",
        ),
    ],
)
@on_redis
def test_rows_may_be_of_any_type_that_has_fields(
    worker: Worker, producer: Celery, database: Connection, dataset: str, row: Any, query: str, expected: Any
) -> None:
    defaults = {"provider": "x", **({"interval": "1m"} if dataset == "bars" else {})}
    with StoreClient(app=producer, defaults=defaults, confirm=True) as client:
        client.write(dataset, [row])
        client.flush()
        assert client.confirm(timeout_s=10)
        assert client.confirmed == Counts(written=1)
    assert database.execute(query).fetchall() == [expected]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"close": None}, "close: null (required)"),
        ({"close": "high"}, "close: 'high' is not a number"),
        ({"close": float("nan")}, "close: nan is not a finite number"),
        ({"ts": "0000-00-00"}, "ts: '0000-00-00' is not a time"),
        ({"symbol": "a\0b"}, "symbol: 'a\\x00b' holds a NUL"),
        ({"symbol": 5}, "symbol: 5 is not a string"),
        ({"trade_count": 2**63}, "trade_count: 9223372036854775808 is beyond 64 bits"),
    ],
)
@on_redis
def test_a_mistake_is_refused_in_the_words_of_the_dead_letter_and_no_row_is_taken(
    worker: Worker,
    producer: Celery,
    database: Connection,
    send: Send,
    taken: Taken,
    bars: list[Bar],
    wrong: Bar,
    reason: str,
) -> None:
    rows = [bars[0], {**bars[1], **wrong}, bars[2]]
    client = StoreClient(app=producer, linger_s=60)
    with pytest.raises(InvalidRow) as refusal:
        client.write("bars", rows)
    client.close()
    assert (refusal.value.position, refusal.value.reason.startswith(reason)) == (1, True), refusal.value.reason
    found = send(rows).get(timeout=10)
    ((id_, position, kept),) = database.execute("SELECT id, position, reason FROM dead_letters").fetchall()
    assert (position, kept) == (1, refusal.value.reason)
    assert found == {"written": 2, "unchanged": 0, "stale": 0, "rejected": 1} | {
        "reasons": [{"position": 1, "reason": kept, "letter": id_}]
    }


@pytest.mark.parametrize(
    ("dataset", "rows", "defaults", "reason"),
    [
        ("candles", [], {}, "dataset: 'candles' is unknown; use one of bars, ticks"),
        ("bars", {"symbol": "S"}, {}, "rows: expected a list of objects"),
        ("bars", "rows", {}, "rows: expected a list of objects"),
        ("bars", [{"symbol": "S"}], {"ts": "never"}, "defaults: ts: 'never' is not a time"),
        ("news", [{"provider": "x", "ts": "2024-01-01", "title": "t"}], {"note": object()}, "defaults: .*object"),
    ],
)
def test_a_call_that_is_wrong_as_a_whole_is_refused(dataset: str, rows: Any, defaults: Bar, reason: str) -> None:
    with StoreClient(app=Celery(broker="memory://")) as client, pytest.raises(InvalidMessage, match=reason):
        client.write(dataset, rows, defaults=defaults)


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1/0", "amqp://user:secret@127.0.0.1:1//"])
def test_an_unreachable_broker_is_named_without_its_password(url: str, bars: list[Bar]) -> None:
    client = StoreClient(app=Celery(broker=url), linger_s=60)
    client.write("bars", bars[:3])
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1.*Connection refused.*; 3 rows wait") as refusal:
        client.flush()
    assert "secret" not in str(refusal.value)
    with pytest.raises(BrokerUnavailable, match=r"^3 rows in one message are lost: the broker at .*Connection refused"):
        client.close()


def test_the_error_of_a_block_is_not_replaced_by_what_closing_raises(bars: list[Bar]) -> None:
    def use() -> None:
        with StoreClient(app=Celery(broker="redis://127.0.0.1:1/0")) as client:
            client.write("bars", bars[:3])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as failure:
        use()
    (note,) = failure.value.__notes__
    assert note.startswith("3 rows in one message are lost: the broker at redis://127.0.0.1:1/0 took no message")


def test_an_error_has_the_words_of_a_full_broker(redis_url: str, bars: list[Bar]) -> None:
    with redis.Redis.from_url(redis_url) as broker, StoreClient(app=Celery(broker=redis_url)) as client:
        broker.config_set("maxmemory", 1)
        try:
            client.write("bars", bars[:3])
            with pytest.raises(BrokerUnavailable, match=r"took no message \(OOM .*command not allowed"):
                client.flush()
        finally:
            broker.config_set("maxmemory", 0)


def test_a_table_can_be_sent_as_rows(redis_url: str) -> None:
    table = {
        "provider": ["p"],
        "symbol": ["S"],
        "name": ["n"],
        "ts": [datetime(2024, 1, 1, tzinfo=UTC)],
        "value": [1.0],
    }
    with StoreClient(app=Celery(broker=redis_url), tables_as_rows=True) as client:
        assert client.write_table("signals", table) == 1
    with redis.Redis.from_url(redis_url) as broker:
        message = json.loads(broker.lindex(QUEUE, 0))
    assert message["content-type"] == "application/json"
    ((dataset, rows), *_) = json.loads(base64.b64decode(message["body"]))
    assert (dataset, rows[0]["value"]) == ("signals", 1.0)


UNCLOSED = """
from celery import Celery
from market_data_store import StoreClient
client = StoreClient(app=Celery(broker="{url}"), linger_s=60)
client.write("signals", [{{"provider": "p", "symbol": "S", "name": "n", "ts": 1_704_067_200, "value": 1}}])
"""


@pytest.mark.slow
def test_a_process_that_does_not_close_its_client_sends_the_rows_or_says_that_they_are_lost(
    redis_url: str, tmp_path: Path
) -> None:
    lost = run(PYTHON, "-c", UNCLOSED.format(url="redis://127.0.0.1:1/0"), directory=tmp_path)
    assert (lost.returncode, lost.stderr.count("\n")) == (0, 1)
    assert lost.stderr.startswith("market-data-store: 1 rows in one message are lost: the broker at ")
    sent = run(PYTHON, "-c", UNCLOSED.format(url=redis_url), directory=tmp_path)
    assert (sent.returncode, sent.stderr) == (0, "")
    with redis.Redis.from_url(redis_url) as broker:
        assert broker.llen(QUEUE) == 1


def test_rows_that_were_taken_are_sent_when_the_broker_is_back(tmp_path: Path, bars: list[Bar]) -> None:
    with start_valkey(tmp_path) as server:
        pass
    app = Celery(broker=server.url)
    with StoreClient(app=app) as client:
        client.write("bars", bars[:3])
        with pytest.raises(BrokerUnavailable):
            client.flush()
        with pytest.raises(BrokerUnavailable):
            client.write("bars", bars[3:5])
        with start_valkey(tmp_path, port=server.port):
            inspector = QueueInspector(app, QUEUE)
            wait_until(lambda: inspector.depth() == 1, "the rows are sent without another call")
            client.write("bars", bars[3:5])
            client.flush()
            assert inspector.depth() == 2
            inspector.close()


def test_a_full_redis_counts_as_unavailable(redis_url: str, bars: list[Bar]) -> None:
    app = Celery(broker=redis_url)
    with StoreClient(app=app, linger_s=0.01) as client, redis.Redis.from_url(redis_url) as server:
        server.config_set("maxmemory", 1)
        try:
            client.write("bars", bars[:3])
            with pytest.raises(BrokerUnavailable):
                client.flush()
        finally:
            server.config_set("maxmemory", 0)
        wait_until(lambda: server.llen(QUEUE) == 1, "the rows are sent without another call")


def test_threads_share_a_client(producer: Celery, taken: Taken, bars: list[Bar]) -> None:
    def write(thread: int) -> None:
        mine = bars[thread * 1_000 : (thread + 1) * 1_000]
        start = 0
        while start < len(mine):
            start += client.write("bars", mine[start : start + 1 + start % 7])

    with StoreClient(app=producer, linger_s=0.001) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    rows = [row for message in taken() for row in message]
    assert sorted(rows, key=lambda row: str(row["ts"])) == bars[:8_000]


def test_confirmations_say_what_became_of_the_rows(
    worker: Worker, producer: Celery, bars: list[Bar], stored: Callable[[], list[Bar]]
) -> None:
    with StoreClient(app=producer, confirm=True, check=False, max_rows=100) as client:
        client.write("bars", bars[:1_000])
        client.write("bars", [*bars[900:1_000], {**bars[1_000], "close": "high"}])
        client.flush()
        assert client.confirm(timeout_s=20)
        assert client.sent == 1_101
        assert client.confirmed == Counts(written=1_000, unchanged=100, rejected=1)
        assert list(client.rejecting.values()) == [1_100]
    assert stored() == bars[:1_000]


def test_settings_come_from_the_environment(broker_url: str, taken: Taken, bars: list[Bar], tmp_path: Path) -> None:
    script = (
        "import json, sys; from market_data_store import StoreClient\n"
        "with StoreClient() as store: store.write('bars', json.load(sys.stdin))"
    )
    sent = run(
        *(PYTHON, "-c", script),
        directory=tmp_path,
        environment={"BROKER_URL": broker_url},
        text=msgspec.json.encode(bars[:10]).decode(),
    )
    assert sent.returncode == 0, sent
    assert taken() == [bars[:10]]
