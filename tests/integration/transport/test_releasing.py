"""`mds release-held` gives what is set aside back to the queue: all of it, in order, and also when it is killed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
from celery import Celery
from support.processes import MDS, mds, running
from support.sharing import OUR_QUEUES
from support.waiting import wait_until

from market_data_store.protocol import AGAIN_QUEUE, BACKFILL_QUEUE, QUEUE, again_queue, held_queue
from market_data_store.transport.releasing import releaser_of
from market_data_store.transport.selection import Connection, StoreAMQP

BARS, TICKS, LETTERS = held_queue("bars"), held_queue("ticks"), held_queue("dead_letters")
T = 1_700_000_000.0
MANY = 2_000
KILLS = 2


class Queues:
    """The queues of a broker, as a test fills and reads them."""

    def __init__(self, url: str) -> None:
        self.connection = Connection(url, transport_options={"confirm_publish": True})
        self.channel = self.connection.default_channel

    def put(self, queue: str, bodies: Mapping[Any, Mapping[str, Any]]) -> None:
        """Put messages, given the headers of each body."""
        self._queue(queue).declare()
        producer = self.connection.Producer(serializer="json")
        for body, headers in bodies.items():
            properties = {"priority": headers["priority"]} if "priority" in headers else {}
            producer.publish(body, exchange="", routing_key=queue, headers=dict(headers), **properties)

    def waiting(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).message_count)

    def all_of(self, queue: str) -> list[Any]:
        """Take all messages of a queue."""
        bound = self._queue(queue)
        bound.declare()
        return list(iter(lambda: bound.get(no_ack=True), None))

    def _queue(self, name: str) -> Any:
        return kombu.Queue(name, routing_key=name, queue_arguments={"x-queue-type": "quorum"})(self.channel)


@pytest.fixture
def queues(broker_url: str) -> Iterator[Queues]:
    queues = Queues(broker_url)
    yield queues
    for name in OUR_QUEUES:
        queues.channel.queue_delete(name)
    queues.connection.release()


def release(directory: Path, url: str, *arguments: str, status: int = 0) -> dict[str, Any]:
    done = mds(directory, "release-held", "--json", *arguments, BROKER_URL=url)
    assert done.returncode == status, done
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("broker_url", ["redis", "rabbitmq"], indirect=True)
def test_what_is_set_aside_goes_back_oldest_first_with_its_headers(
    queues: Queues, broker_url: str, tmp_path: Path
) -> None:
    others = {"turns": 2, "reached": 7, "replays": {"ids": [1]}}
    sent = {n: {"enqueued_at": T + n, "id": f"t{n}", **others} for n in range(300)}
    for queue, first in ((BARS, 0), (TICKS, 1), (AGAIN_QUEUE, 2)):
        queues.put(queue, {n: sent[n] for n in range(first, 300, 3)})
    counts = {BARS: 100, TICKS: 100, AGAIN_QUEUE: 100}
    counted = release(tmp_path, broker_url, "--dry-run")
    assert counted == {"released": {}, "left": counts, "taken": {}, "workers": 0, "dry_run": True}
    assert release(tmp_path, broker_url)["released"] == counts
    found = queues.all_of(QUEUE)
    assert [message.payload for message in found] == list(range(300))
    for message in found:
        assert sent[message.payload].items() <= message.headers.items()
    assert release(tmp_path, broker_url) == {"released": {}, "left": {}, "taken": {}, "workers": 0, "dry_run": False}


@pytest.mark.parametrize("broker_url", ["redis", "rabbitmq"], indirect=True)
def test_both_lanes_go_to_the_one_that_version_0_4_reads(queues: Queues, broker_url: str, tmp_path: Path) -> None:
    names = (BARS, AGAIN_QUEUE, held_queue("bars", BACKFILL_QUEUE), again_queue(BACKFILL_QUEUE), BACKFILL_QUEUE)
    for first, queue in enumerate(names):
        queues.put(queue, {n: {"enqueued_at": T + n} for n in range(first, 50, len(names))})
    assert release(tmp_path, broker_url)["released"] == dict.fromkeys(names, 10)
    found = queues.all_of(QUEUE)
    assert [message.payload for message in found] == list(range(50))
    assert {message.delivery_info["routing_key"] for message in found} == {QUEUE}


def test_messages_of_every_priority_go_back(redis_url: str, tmp_path: Path) -> None:
    queues = Queues(redis_url)  # kombu keeps those of each priority in a list of their own
    sent = {n: {"enqueued_at": T + n, "priority": n % 10} for n in range(300)}
    queues.put(BACKFILL_QUEUE, sent)
    assert release(tmp_path, redis_url)["released"] == {BACKFILL_QUEUE: 300}
    assert sorted(message.payload for message in queues.all_of(QUEUE)) == list(range(300))


def test_only_the_named_datasets_go_back(redis_url: str, tmp_path: Path) -> None:
    queues = Queues(redis_url)
    for n, queue in enumerate((BARS, TICKS, LETTERS, AGAIN_QUEUE)):
        queues.put(queue, {n: {"enqueued_at": T}})
    done = mds(tmp_path, "release-held", "bars", "dead_letters", BROKER_URL=redis_url)
    assert done.stdout.splitlines() == [f"given back: 1 of {BARS}", f"given back: 1 of {LETTERS}"]
    assert [message.payload for message in queues.all_of(QUEUE)] == [0, 2]
    assert [message.payload for message in queues.all_of(TICKS)] == [1]
    queues.connection.release()


@pytest.mark.slow
@pytest.mark.parametrize("broker_url", ["redis", "rabbitmq"], indirect=True)
def test_a_kill_in_the_middle_loses_nothing(queues: Queues, broker_url: str, tmp_path: Path) -> None:
    queues.put(BARS, {n: {"enqueued_at": T + n} for n in range(MANY)})
    queues.put(QUEUE, {MANY: {}})  # a list that is empty does not exist
    kills = 0
    for _ in range(KILLS):
        given = queues.waiting(QUEUE)
        with running(*MDS, "release-held", directory=tmp_path, environment={"BROKER_URL": broker_url}) as process:
            wait_until(
                lambda given=given, process=process: queues.waiting(QUEUE) > given or not process.is_running,  # type: ignore[misc]
                process.said,
            )
            kills += process.is_running
    assert kills > 0
    mds(tmp_path, "release-held", BROKER_URL=broker_url)
    # On RabbitMQ the messages of a connection that is lost come back a moment later.
    found: Counter[int] = Counter()
    wait_until(lambda: found.update(read(queues)) or found.keys() == set(range(MANY + 1)))
    if broker_url.startswith("redis"):  # in one of the two lists at any moment
        assert set(found.values()) == {1}


def read(queues: Queues) -> list[int]:
    return [message.payload for queue in (QUEUE, BARS) for message in queues.all_of(queue)]


def test_on_redis_what_a_killed_worker_had_is_counted(redis_url: str) -> None:
    server = redis.Redis.from_url(redis_url)
    for tag, queue in (("1", AGAIN_QUEUE), ("2", QUEUE), ("3", BARS), ("4", AGAIN_QUEUE)):
        server.hset("unacked", tag, json.dumps([{"properties": {}}, "", queue]))
    with Celery(broker=redis_url, amqp=StoreAMQP, set_as_current=False) as app, releaser_of(app) as releaser:
        assert releaser.taken([BARS, TICKS, AGAIN_QUEUE]) == {BARS: 1, AGAIN_QUEUE: 2}
    server.close()


def test_on_redis_what_a_worker_has_taken_meanwhile_is_not_given_back(redis_url: str) -> None:
    """Nor is it lost or doubled. A message that ran alone stays marked, and keeps the time when it was first taken."""
    queues = Queues(redis_url)
    queues.put(AGAIN_QUEUE, {n: {} for n in range(3)})
    server = redis.Redis.from_url(redis_url)
    texts: Any = server.lrange(AGAIN_QUEUE, 0, 0)
    server.lset(AGAIN_QUEUE, 0, texts[0].decode()[:-1] + ', "taken_at": 1700000000.25}')
    with Celery(broker=redis_url, amqp=StoreAMQP, set_as_current=False) as app, releaser_of(app) as releaser:
        messages = releaser.take(AGAIN_QUEUE, 10)
        assert [message.enqueued_at for message in messages] == [0.0, 0.0, T + 0.25]
        server.rpop(AGAIN_QUEUE)
        assert releaser.release(messages) == {AGAIN_QUEUE: 2}
        assert releaser.release(messages) == {}
    found = queues.all_of(QUEUE)
    assert [message.payload for message in found] == [1, 2]
    assert all(message.delivery_info["redelivered"] for message in found)
    assert [message.headers.get("enqueued_at") for message in found] == [None, T + 0.25]
    queues.connection.release()
    server.close()
