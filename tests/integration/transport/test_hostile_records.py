"""Where messages go back to on Redis, and what becomes of records that cannot be given back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import kombu
import pytest
import redis
from celery import Celery
from support.consumers import consuming
from support.waiting import wait_until

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.transport.moving import counted_turns
from market_data_store.transport.redis.malformed import MOST_ENTRIES
from market_data_store.transport.redis.scripts import MOST_DECODED_BYTES
from market_data_store.transport.selection import Connection

#: What a client that is not kombu writes there, gocelery among them.
ORIGINS: list[Any] = [
    {"exchange": "", "routing_key": "q"},
    {"exchange": "celery", "routing_key": "celery"},
    {"exchange": {"a": 1}, "routing_key": "q"},
    {"routing_key": None},
    {"exchange": "", "routing_key": ""},
    {"exchange": "", "routing_key": "other"},
    {"exchange": 5, "routing_key": 5},
    {"exchange": "", "routing_key": "q", "redelivered": [], "priority": 1e308},
    {},
]
BODIES: list[Any] = [{"a": 1}, [1, 2], 4.5, 400_000_000, True, None, "", "\ud800", "not base64!"]


@pytest.fixture
def server(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def push(server: Any, tag: str, body: Any = "1", origin: Any = None, **more: Any) -> None:
    properties = {"delivery_tag": tag, "delivery_info": ORIGINS[0] if origin is None else origin}
    message = {"body": body, "headers": {}, "properties": {**properties, **more.pop("properties", {})}, **more}
    server.lpush("q", json.dumps({"content-type": "application/json", "content-encoding": "utf-8", **message}))


def expire(server: Any) -> None:
    """Let the visibility timeout of all that is taken be over."""
    for tag in server.zrange("unacked_index", 0, -1):
        server.zadd("unacked_index", {tag: 0})


@pytest.mark.parametrize("by", ["closing", "rejecting", "being killed"])
def test_a_message_goes_back_to_its_queue_whatever_it_says(by: str, redis_url: str, server: Any) -> None:
    for n, origin in enumerate(ORIGINS):
        push(server, f"tag-{n}", str(n), origin, properties={"priority": [9, -1, "x", None, 1e308][n % 5]})
    with consuming(redis_url, "q") as first:
        first.take(len(ORIGINS))
        match by:
            case "rejecting":
                for message in first.messages:
                    message.reject(requeue=True)
            case "being killed":
                first.leave()
    expire(server)
    with consuming(redis_url, "q", unacked_restore_throttle=1) as second:
        second.take(len(ORIGINS))
        assert sorted(second.numbers()) == list(range(len(ORIGINS)))
        second.acknowledge()
    assert not server.keys("*unacked*")


def test_a_record_that_cannot_be_read_is_set_aside_once(redis_url: str, server: Any) -> None:
    records = [
        b"garbage",
        b"[]",
        b"[1, 2, 3]",
        b'[{}, "", "q"]',
        b'[{"properties": {"delivery_info": 1}}, "", "q"]',
        b"\xff",
    ]
    for n, record in enumerate(records):
        server.hset("unacked", f"bad-{n}", record)
        server.zadd("unacked_index", {f"bad-{n}": 0})
    push(server, "good")
    with consuming(redis_url, "q") as first:
        first.take(1)
        first.leave()
    expire(server)
    with consuming(redis_url, "q", unacked_restore_throttle=1) as second:
        second.take(1)
        second.wait_until(lambda: server.llen("unacked_malformed") == len(records))
        second.acknowledge()
        assert set(server.lrange("unacked_malformed", 0, -1)) == set(records)
    assert server.keys() == [b"unacked_malformed"]


def test_messages_of_one_delivery_tag_are_all_delivered_again(redis_url: str, server: Any) -> None:
    for n in range(10):
        push(server, ["same", ""][n % 2], str(n))
    with consuming(redis_url, "q") as first:
        first.take(10)
        assert server.hlen("unacked") == 10
        first.leave()
    expire(server)
    with consuming(redis_url, "q", unacked_restore_throttle=1) as second:
        second.take(10)
        assert sorted(second.numbers()) == list(range(10))
        second.acknowledge()
    assert server.keys() == []


@pytest.mark.parametrize("by", ["closing", "being killed"])
def test_a_count_of_deliveries_that_the_sender_wrote_counts_nothing(by: str, redis_url: str, server: Any) -> None:
    push(server, "tag", headers={"x-delivery-count": 2**31 - 1})
    with consuming(redis_url, "q") as first:
        first.take(1)
        assert counted_turns(first.messages[0].headers) == 0
        if by == "being killed":
            first.leave()
    expire(server)
    with consuming(redis_url, "q", unacked_restore_throttle=1) as second:
        second.take(1)
        assert counted_turns(second.messages[0].headers) == 1
        second.acknowledge()


@pytest.mark.parametrize("encoding", ["base64", "rot13", 5, []], ids=repr)
@pytest.mark.parametrize("body", BODIES, ids=repr)
def test_a_body_of_any_type_is_delivered(body: Any, encoding: Any, redis_url: str, server: Any) -> None:
    push(server, "tag", body, properties={"body_encoding": encoding})
    with consuming(redis_url, "q") as consumer:
        consumer.take(1)
        assert isinstance(consumer.messages[0].body, bytes)
        assert len(consumer.messages[0].body) < 100
        consumer.acknowledge()


@pytest.mark.parametrize("seconds", [None, 1_000_000])
def test_a_lock_that_does_not_end_keeps_nobody_from_giving_back(
    seconds: int | None, redis_url: str, server: Any
) -> None:
    push(server, "tag")
    with consuming(redis_url, "q") as first:
        first.take(1)
        first.leave()
    expire(server)
    server.set("unacked_mutex", "somebody", ex=seconds)
    began = time.monotonic()
    with consuming(redis_url, "q", unacked_restore_throttle=1, unacked_mutex_expire=1) as second:
        second.take(1)
        second.acknowledge()
    assert time.monotonic() - began > 0.5


BROADCASTS = [b"[1]", b"5", b"{}", b'{"properties": 5}', b"\xff", b"[" * 100_000, b'{"body": 1, "properties": {}}']


@pytest.mark.parametrize("value", ["a", "\ud800"], ids=["letters", "halves of surrogate pairs"])
def test_an_entry_of_many_mebibytes_is_set_aside_undecoded(redis_url: str, server: Any, value: str) -> None:
    properties = {"delivery_tag": "large", "delivery_info": ORIGINS[0]}
    large = json.dumps({"headers": {"x": value * MOST_DECODED_BYTES}, "body": "1", "properties": properties})
    push(server, "1")
    server.lpush("q", large)
    push(server, "2")
    with consuming(redis_url, "q") as consumer:
        consumer.take(2)
        assert [message.delivery_tag for message in consumer.messages] == ["1", "2"]
    assert server.lrange("unacked_malformed", 0, -1) == [large.encode()]


@pytest.mark.parametrize("between", ["", " "], ids=["compact", "as kombu"])
def test_a_body_of_many_mebibytes_that_comes_first_is_not_looked_at(redis_url: str, server: Any, between: str) -> None:
    body = "A" * (MOST_DECODED_BYTES + 4)
    properties = {"delivery_tag": "1", "delivery_info": ORIGINS[0], "body_encoding": "base64"}
    message = {"body": body, "headers": {}, "properties": properties, "content-type": "application/data"}
    server.lpush("q", json.dumps(message, separators=("," + between, ":" + between)))
    with consuming(redis_url, "q") as consumer:
        consumer.take(1)
        assert len(consumer.messages[0].body) == len(body) // 4 * 3
    assert not server.exists("unacked_malformed")


def test_malformed_broadcasts_are_dropped(redis_url: str, server: Any) -> None:
    heard: list[Any] = []
    queue = kombu.Queue("ears", kombu.Exchange("voice", type="fanout"))
    with Connection(redis_url) as connection, connection.channel() as channel:
        others = server.pubsub_numpat()  # of workers that other tests share
        kombu.Consumer(channel, [queue], on_message=heard.append, no_ack=True).consume()
        with suppress(TimeoutError):  # subscribes
            connection.drain_events(timeout=0.2)
        wait_until(lambda: server.pubsub_numpat() == others + 1)
        for broadcast in BROADCASTS:
            server.publish("/0.voice", broadcast)
        connection.Producer(serializer="json").publish("good", exchange=queue.exchange)
        deadline = time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            try:
                connection.drain_events(timeout=0.2)
            except TimeoutError:
                continue
    assert [message.payload for message in heard] == ["good"]


def test_of_entries_that_are_not_messages_the_newest_are_kept(
    redis_url: str, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [b"no message %d" % n for n in range(MOST_ENTRIES + 2_000)]
    server.lpush("q", *entries)
    push(server, "good")
    began = time.monotonic()
    with consuming(redis_url, "q") as consumer:
        consumer.take(1)
        consumer.acknowledge()
    assert set(server.lrange("unacked_malformed", 0, -1)) == set(entries[-MOST_ENTRIES:])
    lines = [record.getMessage() for record in caplog.records if "unacked_malformed" in record.getMessage()]
    assert 1 <= len(lines) <= 2 + time.monotonic() - began
    assert sum(int(line.split()[0]) for line in lines) == len(entries)


@pytest.mark.parametrize("by", ["being killed", "closing"])
def test_records_that_cannot_be_given_back_are_kept_up_to_a_bound(
    by: str, redis_url: str, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.lpush("unacked_malformed", *[b"older"] * MOST_ENTRIES)
    tags = [f"bad-{n}" for n in range(120)]
    server.hset("unacked", mapping={tag: f"garbage {tag}" for tag in tags})
    began = time.monotonic()
    if by == "being killed":
        server.zadd("unacked_index", dict.fromkeys(tags, 0))
    with consuming(redis_url, "q", unacked_restore_throttle=1) as consumer:
        if by == "closing":
            consumer.channel.give_back(tags)
        consumer.wait_until(lambda: not server.exists("unacked"))
    found = server.lrange("unacked_malformed", 0, -1)
    assert len(found) == MOST_ENTRIES
    assert {entry for entry in found if entry != b"older"} == {f"garbage {tag}".encode() for tag in tags}
    lines = [record.getMessage() for record in caplog.records if "unacked_malformed" in record.getMessage()]
    assert 1 <= len(lines) <= 2 + time.monotonic() - began
    assert sum(int(line.split()[0]) for line in lines) == len(tags)


def test_what_is_set_aside_is_counted(redis_url: str, server: Any) -> None:
    with Celery(broker=redis_url, set_as_current=False) as app:
        inspector = QueueInspector(app, "q")
        assert inspector.malformed() == 0
        server.lpush("unacked_malformed", *"abc")
        assert inspector.malformed() == 3
        inspector.close()
