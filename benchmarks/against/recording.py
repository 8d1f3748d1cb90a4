"""The messages of a workload as a broker has them, taken once and put back as often as they are wanted.

So every version drains the same bytes, whoever's producer made them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import amqp
import kombu
import redis

from benchmarks import processes
from benchmarks.servers import REDIS
from benchmarks.workloads import Workload
from market_data_store.errors import MarketDataStoreError

QUEUE = "store.write"
#: Messages that go to Redis in one command: some MB.
_CHUNK = 100
_ARRIVE_S = 60.0


class Recording(Protocol):
    """Messages in the order of their queue."""

    def put(self, url: str) -> None:
        """Put them into the queue of this broker; they are there when it returns."""


def recorded(producer: Sequence[str], broker: tuple[str, str], workload: Workload) -> Recording:
    """Have a program (`benchmarks.produce`) send the workload to the broker, and take the messages from the queue.

    Nobody may consume meanwhile. `broker` is its name and URL.
    """
    name, url = broker
    numbers = (workload.rows, workload.per_message, workload.first, workload.live_symbols)
    processes.answer([*producer, workload.kind, *map(str, numbers)], processes.environment(BROKER_URL=url))
    recording = _taken_from_redis(url) if name == REDIS else _taken_from_rabbitmq(url)
    if (found := len(recording.messages)) != (expected := -(-workload.rows // workload.per_message)):
        raise MarketDataStoreError(f"{found} messages arrived in the queue on {name}, {expected} were sent")
    return recording


@dataclass(frozen=True, slots=True)
class RedisRecording:
    """Elements of kombu's list."""

    messages: list[bytes]

    def put(self, url: str) -> None:
        """In one go."""
        with redis.Redis.from_url(url) as client:
            for start in range(0, len(self.messages), _CHUNK):
                client.rpush(QUEUE, *self.messages[start : start + _CHUNK])


@dataclass(frozen=True, slots=True)
class RabbitMQRecording:
    """Bodies and properties."""

    messages: list[tuple[bytes, dict[str, Any]]]

    def put(self, url: str) -> None:
        """Not confirmed one by one, which takes longer than the drain; all are waited for at the end."""
        with kombu.Connection(url) as connection:
            channel = connection.channel()
            for body, properties in self.messages:
                channel.basic_publish(amqp.Message(body, **properties), routing_key=QUEUE)
            deadline = time.monotonic() + _ARRIVE_S
            while (ready := channel.queue_declare(QUEUE, passive=True).message_count) != len(self.messages):
                if time.monotonic() > deadline:
                    raise MarketDataStoreError(f"RabbitMQ has {ready} of {len(self.messages)} messages in its queue")
                time.sleep(0.02)


def _taken_from_redis(url: str) -> RedisRecording:
    with redis.Redis.from_url(url) as client:
        messages: Any = client.lrange(QUEUE, 0, -1)
        client.delete(QUEUE)
    return RedisRecording(messages)


def _taken_from_rabbitmq(url: str) -> RabbitMQRecording:
    messages = []
    with kombu.Connection(url) as connection:
        channel = connection.channel()
        while message := channel.basic_get(QUEUE, no_ack=True):
            messages.append((message.body, message.properties))
    return RabbitMQRecording(messages)
