"""Publishes messages as `store.write` tasks; when `publish` returns, the broker has confirmed the message.

RabbitMQ confirms when a quorum of the queue has the message on disk, and with `mandatory` it reports a missing queue.
So a user who may not declare a queue can send to it, and need not read it.
Redis has the message in its list when it answers LPUSH; when that reaches the disk depends on its configuration
(`appendonly`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from celery import Celery

from market_data_store.connections.urls import is_rabbitmq, without_password
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.reasons import reason_of
from market_data_store.errors import BrokerUnavailable
from market_data_store.producer.messages import Message
from market_data_store.producer.tracing import sent
from market_data_store.protocol import ENQUEUED_AT_HEADER, SERIALIZER, TABLE_SERIALIZER, TASK
from market_data_store.transport.declaring import declare_if_permitted

#: In seconds. RabbitMQ confirms within milliseconds, or not at all when it is out of memory or disk.
CONFIRM_TIMEOUT_S = 15.0


class Publisher:
    """Publishes: on RabbitMQ over the inspector's connection, on Redis over one that the process shares.

    It declares a message's queue once on each new connection if it shall and may. `on_sent` is called with the queue of
    each message that the broker took. Not thread-safe.
    """

    def __init__(
        self,
        app: Celery,
        inspector: QueueInspector,
        *,
        on_sent: Callable[[str], object] = lambda queue: None,
        declare: bool = True,
    ) -> None:
        self._app = app
        self._on_sent = on_sent
        self._declares = declare
        #: Those that exist, as far as this user may see to it, on the connection of the producer.
        self._declared: set[str] = set()
        self._inspector = inspector
        self._is_rabbitmq = is_rabbitmq(str(app.conf.broker_url))
        self._url = without_password(str(app.conf.broker_url))
        self._producer: Any = None

    def publish(self, message: Message, parts: list[bytes], reply_to: str | None) -> None:
        """Send the message. The worker stores a result if `reply_to` is given. Raises `BrokerUnavailable`."""
        try:
            with sent(message), self._connected() as producer:
                self._declare(message.queue, producer.connection)
                self._app.send_task(
                    TASK,
                    args=[message.dataset, parts[0] if message.columnar else msgspec.Raw(b"[%s]" % b",".join(parts))],
                    kwargs={"defaults": msgspec.Raw(message.defaults)} if message.defaults != b"{}" else {},
                    task_id=message.task_id,
                    queue=message.queue,
                    declare=[],  # see `_declare`
                    serializer=TABLE_SERIALIZER if message.columnar else SERIALIZER,
                    headers={ENQUEUED_AT_HEADER: message.enqueued_at, "ignore_result": reply_to is None},
                    # For Flower: no payload.
                    argsrepr=f"({message.dataset!r}, <{message.rows} rows>)",
                    kwargsrepr="{...}" if message.defaults != b"{}" else "{}",
                    # For Celery in this process: it would subscribe to each result, at one round trip each.
                    ignore_result=True,
                    reply_to=reply_to,
                    producer=producer,
                    mandatory=True,
                    confirm_timeout=CONFIRM_TIMEOUT_S,
                )
        except Exception as error:  # whatever the reason, the broker did not take it (py-amqp's MessageNacked is bare)
            # Send nothing more over this connection: amqp would take a late confirm, or one that follows the return of
            # a message without a queue, for the next message's. A new connection also declares the queue again.
            self.close()
            raise BrokerUnavailable(f"the broker at {self._url} took no message ({reason_of(error)})") from error
        self._on_sent(message.queue)

    def close(self) -> None:
        """Drop the connection; the next message opens another."""
        if self._producer is not None:
            if not self._is_rabbitmq:
                self._producer.connection.collect(socket_timeout=1.0)
            self._producer = None

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        if self._is_rabbitmq:
            with self._inspector.lent() as connection:
                if self._producer is None or self._producer.connection is not connection:
                    self._produce_over(connection)
                yield self._producer
        else:
            if self._producer is None:
                self._produce_over(self._app.connection_for_write())
            yield self._producer

    def _produce_over(self, connection: Any) -> None:
        self._producer = self._app.amqp.Producer(connection, auto_declare=False)
        self._declared.clear()

    def _declare(self, queue: str, connection: Any) -> None:
        if self._declares and queue not in self._declared:
            self._declares = declare_if_permitted(self._app, connection, queue)
            self._declared.add(queue)
