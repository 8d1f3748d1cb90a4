"""Our Redis transport against a real server, beside kombu's own."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import kombu
import pytest
import redis
from celery import Celery
from support.brokers import Broker, on_redis
from support.consumers import consuming
from support.fixtures.store import QUEUE, Bar, Send, StartWorker
from support.waiting import wait_until

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.protocol import BACKFILL_QUEUE
from market_data_store.transport.redis import channel, peeking, qos
from market_data_store.transport.redis.mover import RedisMover
from market_data_store.transport.redis.qos import RESERVED_BYTES
from market_data_store.transport.selection import Connection

TransportOptions = dict[str, Any]


@pytest.fixture
def server(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
        client.config_set("maxmemory", 0)


def publish(url: str, numbers: range, queue: str = "q", *, priority: int = 0, **options: Any) -> None:
    with kombu.Connection(url, transport_options=options) as connection:
        producer = connection.Producer(serializer="json")
        for number in numbers:
            producer.publish(number, routing_key=queue, priority=priority, headers={"empty": [], "é": "\u2028"})


def publish_bodies(url: str, number: int, size: int, queue: str = "q", **headers: str) -> None:
    with kombu.Connection(url) as connection:
        producer = connection.Producer()
        for _ in range(number):
            producer.publish(bytes(size), routing_key=queue, headers=headers, content_type="application/data")


def calls(server: Any, command: str) -> int:
    return int(server.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_records_are_those_of_kombu(redis_url: str, server: Any) -> None:
    publish(redis_url, range(1))
    text = server.rpop("q")
    tag = json.loads(text)["properties"]["delivery_tag"]
    records = []
    for kind in (kombu.Connection, Connection):
        server.lpush("q", text)
        with consuming(redis_url, "q", kind=kind) as consumer:
            consumer.take(1)
            records.append(json.loads(server.hget("unacked", tag)))
            assert abs(server.zscore("unacked_index", tag) - time.time()) < 60
            consumer.acknowledge()
        assert server.keys() == []
    taken_at = records[1][0].pop("taken_at")
    assert abs(taken_at - time.time()) < 60
    assert records[0] == records[1] == [json.loads(text), "", "q"]


def test_the_servers_time_of_the_first_delivery_survives_the_next_ones(redis_url: str, server: Any) -> None:
    publish(redis_url, range(3))
    seen: list[dict[Any, Any]] = []
    for kind in (Connection, kombu.Connection, Connection):  # kombu's own keeps it for the next
        with consuming(redis_url, "q", kind=kind, prefetch=3) as consumer:
            consumer.take(3)
            seen.append({message.payload: getattr(message, "taken_at", None) for message in consumer.messages})
    assert seen[0] == seen[2]
    assert seen[1] == dict.fromkeys(range(3))
    times = [seen[0][number] for number in range(3)]
    assert times == sorted(set(times)), "messages of one fetch stay in order"
    assert all(abs(taken_at - time.time()) < 60 for taken_at in times)


@pytest.mark.parametrize(
    ("sent", "is_stamped"),
    [(1_700_000_000.5, False), (4_102_444_800, True), (5, True), ("1700000000", True), (None, True)],
)
def test_only_a_record_without_a_past_time_of_its_own_gets_the_servers(
    redis_url: str, server: Any, sent: Any, is_stamped: bool
) -> None:
    with kombu.Connection(redis_url) as connection:
        connection.Producer().publish(0, routing_key="q", headers={"enqueued_at": sent})
    (text,) = server.lrange("q", 0, 0)
    with consuming(redis_url, "q") as consumer:
        consumer.take(1)
        assert abs(consumer.messages[0].taken_at - time.time()) < 60
        ((record, *_),) = map(json.loads, server.hvals("unacked"))
        assert (record.pop("taken_at", None) is not None) == is_stamped
        assert record == json.loads(text)
        consumer.acknowledge()


@pytest.mark.parametrize("forged", ["4102444800", "-1", "0", '"soon"', "[]", "1e400", "null"])
def test_a_sender_cannot_set_the_time_of_the_first_delivery(redis_url: str, server: Any, forged: str) -> None:
    publish(redis_url, range(1))
    text = server.rpop("q").decode()
    server.lpush("q", f'{{"taken_at": {forged}, {text[1:-1]}, "taken_at": {forged}}} \n')
    with consuming(redis_url, "q") as consumer:
        consumer.take(1)
        assert abs(consumer.messages[0].taken_at - time.time()) < 60
        assert consumer.numbers() == [0]
        consumer.acknowledge()
    assert server.keys() == []


def test_where_the_server_does_not_tell_its_time_messages_are_taken_without(redis_url: str, server: Any) -> None:
    publish(redis_url, range(3))
    server.execute_command("ACL", "SETUSER", "timeless", "on", "nopass", "~*", "&*", "+@all", "-time")
    try:
        with consuming(redis_url.replace("redis://", "redis://timeless:x@"), "q") as consumer:
            consumer.take(3)
            assert consumer.numbers() == [0, 1, 2]
            assert [message.taken_at for message in consumer.messages] == [None] * 3
            consumer.acknowledge()
    finally:
        server.execute_command("ACL", "DELUSER", "timeless")


def test_a_message_is_always_in_the_queue_or_recorded(redis_url: str, server: Any) -> None:
    publish(redis_url, range(1_500))
    sums, stopped = set(), threading.Event()

    def look() -> None:
        while not stopped.is_set():
            sums.add(sum(server.pipeline(transaction=True).llen("q").hlen("unacked").execute()))

    thread = threading.Thread(target=look)
    thread.start()
    with consuming(redis_url, "q") as consumer:
        consumer.take(1_500)
        stopped.set()
        thread.join()
        assert consumer.numbers() == list(range(1_500))
        consumer.acknowledge()
    assert sums == {1_500}


def test_acknowledgements_go_together(redis_url: str, server: Any) -> None:
    publish(redis_url, range(100))
    with consuming(redis_url, "q", with_hub=True) as consumer:
        consumer.take(100)
        before = calls(server, "hdel")
        consumer.acknowledge()
        consumer.wait_until(lambda: not server.exists("unacked", "unacked_index"))
        assert calls(server, "hdel") - before < 10


def test_acknowledgements_are_kept_when_the_connection_breaks(redis_url: str, server: Any) -> None:
    publish(redis_url, range(2))
    with consuming(redis_url, "q", with_hub=True) as consumer:
        consumer.take(2)
        consumer.messages[0].ack()
        consumer.wait_until(lambda: server.hlen("unacked") == 1)
        consumer.messages[1].ack()
        server.client_kill_filter(_type="normal", skipme=True)
        consumer.wait_until(lambda: server.hlen("unacked") == 0)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_acknowledgements_on_a_connection_that_was_given_up_are_not_tried_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(qos, "ACK_RETRY_S", 0.05)
    publish(broker.url, range(2))
    with consuming(broker.url, "q", with_hub=True) as consumer:
        consumer.take(2)
        broker.kill()
        consumer.messages[0].ack()
        consumer.wait_until(lambda: "1 acknowledgements could not be sent (ConnectionError)" in caplog.messages)
        with suppress(*consumer.connection.connection_errors, AttributeError):  # the other cannot be given back
            consumer.connection.collect()  # as Celery's consumer does before it connects anew
        caplog.clear()
        ends = time.monotonic() + 5 * qos.ACK_RETRY_S
        consumer.wait_until(lambda: time.monotonic() > ends)
        assert caplog.messages == []
        consumer.leave()


def test_a_channel_that_is_closed_gives_everything_back_in_order(redis_url: str, server: Any) -> None:
    publish(redis_url, range(130))
    with consuming(redis_url, "q", prefetch=120) as consumer:
        consumer.take(120)
        for message in consumer.messages[:10]:
            message.ack()
    assert server.keys() == [b"q"]
    with consuming(redis_url, "q") as consumer:
        consumer.take(120)
        assert consumer.numbers() == list(range(10, 130))
        assert [m.headers.get("redelivered", False) for m in consumer.messages] == [True] * 110 + [False] * 10


def test_live_rows_are_taken_before_history_whatever_the_priorities(redis_url: str, server: Any) -> None:
    for priority in (0, 9):
        publish(redis_url, range(10), BACKFILL_QUEUE, priority=priority)
    with consuming(redis_url, BACKFILL_QUEUE, QUEUE, prefetch=3) as consumer:
        consumer.take(3)
        publish(redis_url, range(100, 103), QUEUE, priority=9)
        consumer.take(6)
        assert consumer.numbers()[3:] == [100, 101, 102]
        consumer.acknowledge()  # both have room
        publish(redis_url, range(103, 106), QUEUE)
        consumer.take(9)
        assert [message.queue for message in consumer.messages[6:9]].count(QUEUE) >= 2
        consumer.acknowledge()


def test_a_sender_cannot_say_from_which_queue_a_message_is_taken(redis_url: str, server: Any) -> None:
    publish(redis_url, range(1), QUEUE)
    server.rename(QUEUE, BACKFILL_QUEUE)
    with consuming(redis_url, QUEUE, BACKFILL_QUEUE) as consumer:
        consumer.take(1)
        assert consumer.messages[0].queue == BACKFILL_QUEUE
        (record,) = map(json.loads, server.hvals("unacked"))
        assert record[1:] == ["", BACKFILL_QUEUE]
        consumer.acknowledge()


def test_held_bytes_of_history_keep_no_live_row_from_being_fetched(redis_url: str, server: Any) -> None:
    size = channel.FETCH_BYTES // 4
    publish_bodies(redis_url, 3 * RESERVED_BYTES // size, size, queue=BACKFILL_QUEUE)
    with consuming(redis_url, BACKFILL_QUEUE, QUEUE) as consumer:
        consumer.take(RESERVED_BYTES // size)
        for _ in range(3):
            consumer.run_once()
        held = len(consumer.messages)
        assert server.llen(BACKFILL_QUEUE)
        publish(redis_url, range(1), QUEUE)
        consumer.take(held + 1)
        assert [message.queue for message in consumer.messages[held:]] == [QUEUE]


@pytest.mark.parametrize("settle", ["ack", "reject"])
def test_no_more_bytes_are_held_than_may_be(redis_url: str, server: Any, settle: str) -> None:
    size = channel.FETCH_BYTES // 4
    held, fetched = RESERVED_BYTES // size, channel.FETCH_BYTES // size
    publish_bodies(redis_url, 3 * held, size)
    with consuming(redis_url, "q") as consumer:
        for times in (1, 2):
            consumer.take(times * held)
            for _ in range(3):
                consumer.run_once()
            assert times * held <= len(consumer.messages) <= times * (held + fetched)
            for message in consumer.messages:
                if not message.acknowledged:
                    getattr(message, settle)()
        consumer.take(3 * held)


@pytest.mark.parametrize("poll_s", [0.05, 2.0], ids="{:g}s".format)
def test_what_a_killed_worker_left_is_taken_over_by_kombus_and_ours(redis_url: str, server: Any, poll_s: float) -> None:
    publish(redis_url, range(5))
    with consuming(redis_url, "q") as ours:
        ours.take(5)
        ours.leave()
    kind: Any
    for kind in (kombu.Connection, Connection):
        # an hour passes
        assert server.zadd("unacked_index", dict.fromkeys(server.hkeys("unacked"), 0), xx=True, ch=True) == 5
        # without an event loop kombu looks for them when a poll has run out: before BRPOP's second
        wait = poll_s if kind is Connection else 0.2
        with consuming(redis_url, "q", kind=kind, unacked_restore_throttle=1, poll_s=wait) as other:
            other.take(5)
            assert sorted(other.numbers()) == list(range(5))
            if kind is Connection:
                other.acknowledge()
            other.leave()
    assert not server.exists("unacked", "q")


def test_a_key_prefix_is_kept(redis_url: str, server: Any) -> None:
    publish(redis_url, range(30), global_keyprefix="mine:")
    with consuming(redis_url, "q", prefetch=20, global_keyprefix="mine:") as consumer:
        consumer.take(20)
        assert sorted(server.keys()) == [b"mine:q", b"mine:unacked", b"mine:unacked_index"]
        for message in consumer.messages[:5]:
            message.ack()
        assert server.hlen("mine:unacked") == 15
    assert server.llen("mine:q") == 25


def test_queues_and_priorities_take_turns_as_with_kombu(redis_url: str, server: Any) -> None:
    with consuming(redis_url, "a", "b", prefetch=10) as consumer:
        for _ in range(3):
            consumer.run_once()  # nothing there: from now on it waits at one list
        publish(redis_url, range(1), "b", priority=9)
        consumer.take(1)
        consumer.acknowledge()
        consumer.messages.clear()
        publish(redis_url, range(30), "a")
        publish(redis_url, range(30), "b")
        seen: list[str] = []
        while len(seen) < 60:
            consumer.run_once()
            seen += [message.delivery_info["routing_key"] for message in consumer.messages]
            consumer.acknowledge()
            consumer.messages.clear()
    assert {"a", "b"} == set(seen[:21])
    assert server.keys() == []


def test_what_needs_no_acknowledgement_leaves_no_record(redis_url: str, server: Any) -> None:
    publish(redis_url, range(3))
    with consuming(redis_url, "q", no_ack=True) as consumer:
        consumer.take(3)
        assert not server.exists("unacked", "unacked_index")


NO_MESSAGES: list[bytes] = [
    b"",
    b"garbage \xff",
    b"[1]",
    b'"text"',
    b"null",
    b"{}",
    b'{"properties": 1}',
    b'{"properties": {"delivery_tag": 1, "delivery_info": {}}}',
    b'{"properties": {"delivery_tag": "t", "delivery_info": []}, "headers": {}}',
    b'{"properties": {"delivery_tag": "not JSON to Python", "delivery_info": {}}, "n": 0x10}',
]


def test_what_is_no_message_is_kept_aside(redis_url: str, server: Any, caplog: pytest.LogCaptureFixture) -> None:
    publish(redis_url, range(2))
    server.rpush("q", *NO_MESSAGES[::2])
    server.lpush("q", *NO_MESSAGES[1::2])
    with consuming(redis_url, "q") as consumer:
        consumer.take(2)
        consumer.wait_until(lambda: not server.exists("q"))
        assert consumer.numbers() == [0, 1]
        assert sorted(server.lrange("unacked_malformed", 0, -1)) == sorted(NO_MESSAGES)
        assert server.hlen("unacked") == server.zcard("unacked_index") == 2
    assert "kept in the list unacked_malformed" in caplog.text
    assert "garbage" not in caplog.text


def test_a_message_without_headers_is_given_back(redis_url: str, server: Any) -> None:
    properties = {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}
    server.lpush("q", json.dumps({"body": "x", "headers": None, "properties": properties}))
    with consuming(redis_url, "q") as consumer:
        consumer.take(1)
    assert server.llen("q") == 1


def restricted(server: Any, url: str, rule: str) -> str:
    server.execute_command("ACL", "SETUSER", "restricted", "reset", "on", ">secret", "~*", "&*", "+@all", rule)
    return url.replace("://", "://restricted:secret@")


@pytest.mark.parametrize(("rule", "command"), [("-eval", "EVAL"), ("-blmove", "BLMOVE")])
def test_a_server_that_refuses_a_command_is_served_with_one_warning(
    redis_url: str, server: Any, caplog: pytest.LogCaptureFixture, rule: str, command: str
) -> None:
    caplog.set_level(logging.WARNING)
    url = restricted(server, redis_url, rule)
    with consuming(url, "q", prefetch=10) as consumer:
        for _ in range(3):
            consumer.run_once()
        publish(redis_url, range(25))
        while len(consumer.messages) < 25:
            consumer.run_once()
            consumer.acknowledge()
            assert server.hlen("unacked") <= 10
        assert consumer.numbers() == list(range(25))
        assert consumer.channel.reserves == (command != "EVAL")
        publish(redis_url, range(5))
        consumer.take(30)
    assert server.llen("q") == 5
    assert [record.getMessage().partition(" (")[0] for record in caplog.records if command in record.getMessage()] == [
        f"Redis refuses {command}"
    ]
    assert "secret" not in caplog.text


def test_a_channel_of_a_full_server_goes_on(redis_url: str, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peeking, "_RETRY_S", 0.5)
    publish(redis_url, range(300))
    with consuming(redis_url, "q", prefetch=50, with_hub=True) as consumer:
        server.config_set("maxmemory", 1)
        seen = 0
        while seen < 300:
            consumer.run_once()
            consumer.acknowledge()
            seen += len(consumer.messages)
            consumer.messages.clear()
        consumer.wait_until(lambda: server.hlen("unacked") == 0)
        server.config_set("maxmemory", 0)
        publish(redis_url, range(1))
        consumer.take(1)


@on_redis
def test_a_worker_outlives_a_full_server(
    start_worker: StartWorker, send: Send, bars: list[Bar], stored: Callable[[], list[Bar]], redis_url: str, server: Any
) -> None:
    worker = start_worker()
    for number in range(200):
        send(bars[number : number + 1], ignore_result=True)
        if number == 100:
            server.config_set("maxmemory", 1)
            wait_until(lambda: stored() == bars[:101])  # what was sent before is worked off
            server.config_set("maxmemory", 0)
    wait_until(lambda: stored() == bars[:200])
    assert worker.logs().count("Connected to") == 1
    wait_until(lambda: not server.exists("unacked", QUEUE))


@on_redis
def test_a_worker_that_starts_takes_what_a_full_server_has(
    start_worker: StartWorker, send: Send, bars: list[Bar], stored: Callable[[], list[Bar]], server: Any
) -> None:
    for number in range(20):
        send(bars[number : number + 1], ignore_result=True)
    server.config_set("maxmemory", 1)
    worker = start_worker()
    wait_until(lambda: stored() == bars[:20])
    wait_until(lambda: not server.exists("unacked", QUEUE))
    assert "Traceback" not in worker.logs()


def test_a_full_server_lets_the_times_of_what_is_held_be_renewed(redis_url: str, server: Any) -> None:
    publish(redis_url, range(2))
    with consuming(redis_url, "q", prefetch=2) as consumer:
        consumer.take(2)
        tags = server.zrange("unacked_index", 0, -1)
        server.zadd("unacked_index", dict.fromkeys(tags, 1.0))
        server.config_set("maxmemory", 1)
        RedisMover(consumer.channel).renew()
        assert [abs(server.zscore("unacked_index", tag) - time.time()) < 60 for tag in tags] == [True, True]


@on_redis
def test_remote_control_and_purge_work_as_ever(
    start_worker: StartWorker, producer: Celery, queue: QueueInspector, send: Send, bars: list[Bar], server: Any
) -> None:
    worker = start_worker()
    assert list(producer.control.inspect(timeout=10, limit=1).active_queues() or {}) == [worker.hostname()]
    assert send(bars[:1]).get(timeout=20)["written"] == 1
    worker.stop()
    send(bars[:5])
    assert queue.depth() == 1
    assert producer.control.purge() == 0  # of an application whose queue is another
    with Connection(str(producer.conf.broker_url)) as connection:
        assert connection.default_channel.queue_purge(QUEUE) == 1
    assert queue.depth() == 0


def test_a_large_message_that_is_processed_does_not_keep_others_from_being_fetched(redis_url: str) -> None:
    publish_bodies(redis_url, 1, RESERVED_BYTES + 1)
    with consuming(redis_url, "q", priority_steps=[0]) as consumer:
        consumer.wait_until(lambda: len(consumer.messages) == 1)
        publish_bodies(redis_url, 1, 10)
        consumer.wait_until(lambda: len(consumer.messages) == 2)
