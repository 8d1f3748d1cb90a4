"""Publishes messages as `store.write` tasks; when `publish` returns, the broker has confirmed the message.

RabbitMQ confirms when a quorum of the queue has the message on disk, and with `mandatory` it reports a missing queue.
Redis has the message in its list when it answers LPUSH; when that reaches the disk depends on its configuration
(`appendonly`).
"""

from __future__ import annotations

from typing import Any

import msgspec
from celery import Celery

from market_data_store.config import without_password
from market_data_store.errors import BrokerUnavailable
from market_data_store.producer.messages import Message
from market_data_store.protocol import ENQUEUED_AT_HEADER, QUEUE, SERIALIZER, TABLE_SERIALIZER, TASK

#: In seconds. RabbitMQ confirms within milliseconds, or not at all when it is out of memory or disk.
_CONFIRM_TIMEOUT_S = 15.0


class Publisher:
    """Publishes over its own connection. Not thread-safe."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._url = without_password(str(app.conf.broker_url))
        self._producer: Any = None

    def publish(self, message: Message, parts: list[bytes], reply_to: str | None) -> None:
        """Send the message. The worker stores a result if `reply_to` is given. Raises `BrokerUnavailable`."""
        try:
            self._app.send_task(
                TASK,
                args=[message.dataset, parts[0] if message.columnar else msgspec.Raw(b"[%s]" % b",".join(parts))],
                kwargs={"defaults": msgspec.Raw(message.defaults)} if message.defaults != b"{}" else {},
                task_id=message.task_id,
                queue=QUEUE,
                serializer=TABLE_SERIALIZER if message.columnar else SERIALIZER,
                headers={ENQUEUED_AT_HEADER: message.enqueued_at, "ignore_result": reply_to is None},
                # For Flower: no payload.
                argsrepr=f"({message.dataset!r}, <{message.rows} rows>)",
                kwargsrepr="{...}" if message.defaults != b"{}" else "{}",
                # For Celery in this process: it would subscribe to each result, at one round trip each.
                ignore_result=True,
                reply_to=reply_to,
                producer=self._connected(),
                mandatory=True,
                confirm_timeout=_CONFIRM_TIMEOUT_S,
            )
        except Exception as error:  # whatever the reason, the broker did not take it (py-amqp's MessageNacked is bare)
            # Send nothing more over this connection: amqp would take a late confirm, or one that follows the return of
            # a message without a queue, for the next message's. A new connection also declares the queue again.
            self.close()
            reason = " ".join(filter(None, [type(error).__name__, getattr(error, "reply_text", "")]))
            raise BrokerUnavailable(f"the broker at {self._url} took no message ({reason})") from error

    def close(self) -> None:
        """Drop the connection; the next message opens another."""
        if self._producer is not None:
            self._producer.connection.collect(socket_timeout=1.0)
            self._producer = None

    def _connected(self) -> Any:
        if self._producer is None:
            # Without confirms the application would not notice a lost message.
            rabbitmq = (
                {"confirm_publish": True} if str(self._app.conf.broker_url).startswith(("amqp", "pyamqp")) else {}
            )
            connection = self._app.connection_for_write(transport_options=rabbitmq)
            self._producer = self._app.amqp.Producer(connection, auto_declare=False)
        return self._producer
