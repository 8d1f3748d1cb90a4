"""Leases and entries of the feedback stream that somebody else has written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from support.waiting import wait_until

from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.coordinator.leadership import LEASE_S, Leadership
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher


@pytest.fixture
def server(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def publisher(redis_url: str) -> Iterator[RedisFeedbackPublisher]:
    with closing(RedisFeedbackPublisher(redis_url)) as publisher:
        yield publisher


def event(size: int) -> FeedbackEvent:
    return FeedbackEvent.create("q", size, 100, "ok")


@pytest.mark.parametrize("seconds", [None, 1_000_000])
def test_a_lease_of_nobody_ends(seconds: int | None, redis_url: str, server: Any) -> None:
    server.set("lease", "somebody", ex=seconds)
    leader = Leadership(redis_url, "lease")
    assert not leader.held()
    wait_until(leader.held, timeout_s=LEASE_S + 5)
    leader.release()


def test_a_lease_of_another_leader_is_not_shortened(redis_url: str, server: Any) -> None:
    leader, other = Leadership(redis_url, "lease"), Leadership(redis_url, "lease")
    assert leader.held()
    assert not other.held()
    server.pexpire("lease", 1_000)
    assert not other.held()
    assert server.pttl("lease") <= 1_000
    leader.release()
    other.release()


@pytest.mark.parametrize("is_deleted", [False, True])
def test_an_entry_of_the_highest_id_does_not_end_the_feedback(
    is_deleted: bool, publisher: RedisFeedbackPublisher, server: Any
) -> None:
    publisher.send(event(1))
    highest = f"{2**64 - 1}-{2**64 - 1}"
    server.xadd(publisher.stream, {"data": b"x"}, id=highest)
    if is_deleted:
        server.xdel(publisher.stream, highest)
    publisher.send(event(2))
    assert [one.queue_size for one in publisher.recent()] == [2]


def test_a_key_of_another_type_does_not_end_the_feedback(publisher: RedisFeedbackPublisher, server: Any) -> None:
    server.set(publisher.stream, "x")
    publisher.send(event(2))
    assert [one.queue_size for one in publisher.recent()] == [2]


def test_a_server_that_refuses_for_another_reason_keeps_its_stream(
    publisher: RedisFeedbackPublisher, server: Any
) -> None:
    publisher.send(event(1))
    server.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.ResponseError):
            publisher.send(event(2))
    finally:
        server.config_set("maxmemory", 0)
    assert [one.queue_size for one in publisher.recent()] == [1]


def test_entries_that_no_monitor_writes_are_not_read(publisher: RedisFeedbackPublisher, server: Any) -> None:
    publisher.send(event(1))
    good = json.loads(server.xrevrange(publisher.stream, count=1)[0][1][b"data"])
    for changed in ({"reason": "x" * 100_000}, {"ts": time.time() + 3_600}, {"ts": 1e308}, {"queue_size": "x"}):
        server.xadd(publisher.stream, {"data": json.dumps({**good, "payload": {**good["payload"], **changed}})})
    for data in (b"\xff", b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b"[]"):
        server.xadd(publisher.stream, {"data": data})
    server.xadd(publisher.stream, {"other": "x"})
    assert [one.queue_size for one in publisher.recent()] == [1]
