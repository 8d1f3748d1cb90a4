"""The brokers as the transports' conformance suite sees them: what waits, what comes back, how a consumer is lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu
import redis

from support.consumers import Consumer, consuming
from support.waiting import wait_until

#: Queues of the suite. On RabbitMQ classic ones, which apply acknowledgements before a channel is closed; quorum queues
#: may forget some.
QUEUES = ("q", "others")
HEADERS = {"empty": [], "é": "\u2028"}


class Side(ABC):
    """A broker whose queues are empty."""

    #: Transport options of a consumer.
    options: dict[str, Any] = {}  # noqa: RUF012  # one for all

    def __init__(self, url: str) -> None:
        self.url = url

    def publish(self, *bodies: object, queue: str = "q") -> None:
        with kombu.Connection(self.url) as connection:
            declared = kombu.Queue(queue, routing_key=queue)(connection.default_channel)
            declared.declare()
            producer = connection.Producer(serializer="json")
            for body in bodies:
                producer.publish(body, routing_key=queue, headers=HEADERS)
            declared.declare()  # answered when they have reached the queue

    @contextmanager
    def consuming(self, *queues: str, **options: Any) -> Iterator[Consumer]:
        with consuming(self.url, *(queues or ("q",)), **self.options, **options) as consumer:
            yield consumer

    def left(self, queue: str = "q") -> list[Any]:
        """The messages of the queue, which are taken out of it, also those that lost consumers had."""
        self.let_time_pass()
        self.publish("last", queue=queue)
        with self.consuming(queue) as consumer:
            consumer.wait_until(lambda: "last" in consumer.numbers() and self.has_all(consumer, queue))
            consumer.acknowledge()
            return sorted(body for body in consumer.numbers() if body != "last")

    @abstractmethod
    def depth(self, queue: str = "q") -> int:
        """Messages that wait."""

    @abstractmethod
    def lose(self, consumer: Consumer) -> None:
        """As when it is killed: it gives nothing back."""

    def unsettled(self) -> int | None:
        """Messages that consumers have; None where the broker does not tell."""
        return None

    def has_all(self, consumer: Consumer, queue: str) -> bool:
        """Whether no message waits, nor is with any other consumer as far as the broker tells."""
        return self.depth(queue) == 0

    @abstractmethod
    def let_time_pass(self) -> None:
        """Until the broker gives what lost consumers had to others."""

    @abstractmethod
    def is_redelivered(self, message: Any) -> bool:
        """Whether it says that somebody had it before."""

    @abstractmethod
    def holds_nothing(self) -> bool:
        """Neither a message nor a record of one."""


class RedisSide(Side):
    """Where a worker's transport records what it takes off a list."""

    #: One list to wait at, and no wait for a look at what lost consumers had.
    options = {"priority_steps": [0], "unacked_restore_throttle": 1}  # noqa: RUF012

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.server = redis.Redis.from_url(url)

    def depth(self, queue: str = "q") -> int:
        return int(self.server.llen(queue))

    def lose(self, consumer: Consumer) -> None:
        consumer.leave()
        consumer.close()

    def has_all(self, consumer: Consumer, queue: str) -> bool:
        return super().has_all(consumer, queue) and self.unsettled() == len(consumer.messages)

    def unsettled(self) -> int | None:
        return int(self.server.hlen("unacked"))

    def let_time_pass(self) -> None:
        records: Any = self.server.hkeys("unacked")
        if records:
            assert self.server.zadd("unacked_index", dict.fromkeys(records, 0), xx=True, ch=True) == len(records)

    def is_redelivered(self, message: Any) -> bool:
        return bool(message.headers.get("redelivered", False))

    def holds_nothing(self) -> bool:
        return not self.server.keys()


class RabbitMQSide(Side):
    """Where the broker keeps what it has delivered until it is acknowledged."""

    def depth(self, queue: str = "q") -> int:
        return int(self._declared(queue).message_count)

    def _declared(self, queue: str) -> Any:
        with kombu.Connection(self.url) as connection:
            return connection.default_channel.queue_declare(queue, passive=True)

    def lose(self, consumer: Consumer) -> None:
        consumer.connection.collect()
        wait_until(lambda: not any(self._declared(queue).consumer_count for queue in consumer.queues))

    def let_time_pass(self) -> None:
        """It gives it at once."""

    def is_redelivered(self, message: Any) -> bool:
        return bool(message.delivery_info["redelivered"])

    def holds_nothing(self) -> bool:
        return [self.left(queue) for queue in QUEUES] == [[], []]

    def delete_queues(self) -> None:
        with kombu.Connection(self.url) as connection:
            for queue in QUEUES:
                connection.default_channel.queue_delete(queue)
