"""What the broker knows of the queue: messages that wait, messages that workers hold, and who is there to take them.

Each question has a deadline of a second, and its own answer for "the broker does not say" (`BrokerUnavailable`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from amqp.exceptions import ChannelError
from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from market_data_store.config import without_password
from market_data_store.errors import BrokerUnavailable

#: Seconds for any one answer.
DEADLINE_S = 1.0
#: RabbitMQ gives the code as a number, the Redis transport as a string.
_NOT_FOUND = "404"


class QueueInspector:
    """Asks about one queue over a connection that it keeps, and opens again after it was lost. Not for two threads.

    `management_url` is RabbitMQ's HTTP API, where there is one (http://user:password@host:15672).
    """

    def __init__(self, app: Celery, queue: str, *, management_url: str = "") -> None:
        self._app = app
        self._queue = queue
        self._management_url = management_url
        self._connection: Any = None

    def depth(self) -> int:
        """Messages that wait; those that workers hold are not counted. Raises `BrokerUnavailable`."""
        with self._channel() as channel:
            try:
                return int(channel.queue_declare(queue=self._queue, passive=True).message_count)
            except ChannelError as error:
                if str(error.reply_code) == _NOT_FOUND:  # Redis drops a list with its last element
                    return 0
                raise

    def reserved(self) -> int | None:
        """Messages that workers hold unacknowledged: on Redis of all queues in the database. None: nobody can tell.

        Raises `BrokerUnavailable`.
        """
        if self._management_url:
            return self._reserved_by_management()
        with self._channel() as channel:
            unacked = getattr(channel, "unacked_key", None)
            return None if unacked is None else int(channel.client.hlen(unacked))

    def workers(self) -> list[str]:
        """Names of the workers that answer a ping, after the whole second. Raises `BrokerUnavailable`."""
        with self._reachable(), self._connect() as connection:
            replies = self._app.control.ping(timeout=DEADLINE_S, connection=connection) or []
        return sorted(name for reply in replies for name in reply)

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.collect()  # at once: a server that hangs would let a proper goodbye wait
            self._connection = None

    def _connect(self) -> Any:
        connection: Connection = self._app.connection_for_read()
        # Of these each transport takes what it knows.
        deadlines = {"read_timeout": DEADLINE_S, "write_timeout": DEADLINE_S}
        if connection.transport.driver_type == "redis":
            deadlines = {"socket_timeout": DEADLINE_S, "socket_connect_timeout": DEADLINE_S}
        connection.transport_options = {**connection.transport_options, **deadlines}
        connection.connect_timeout = DEADLINE_S
        connection.ensure_connection(max_retries=0)  # a single try; its first use would try for longer
        return connection

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        with self._reachable():
            if self._connection is None:
                self._connection = self._connect()
            channel = self._connection.default_channel
            try:
                yield channel
            except BaseException:
                self.close()
                raise

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        probe = self._app.connection_for_read()
        try:
            yield
        except (*probe.connection_errors, *probe.channel_errors, OperationalError, OSError) as error:
            self.close()
            reason = (str(error) or type(error).__name__).partition("\n")[0]
            url = without_password(str(self._app.conf.broker_url))
            raise BrokerUnavailable(f"cannot connect to {url}: {reason}") from error

    def _reserved_by_management(self) -> int:
        import httpx  # a producer has no need of it

        virtual_host = unquote(urlsplit(str(self._app.conf.broker_url)).path[1:]) or "/"
        path = f"/api/queues/{quote(virtual_host, safe='')}/{quote(self._queue, safe='')}"
        try:
            answer = httpx.get(self._management_url.rstrip("/") + path, timeout=DEADLINE_S)
            return int(answer.raise_for_status().json()["messages_unacknowledged"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise BrokerUnavailable(f"RabbitMQ's management API does not answer ({type(error).__name__})") from error
