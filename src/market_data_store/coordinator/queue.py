"""Reads from the broker the messages waiting in the queue, those that workers hold, and the workers that consume it.

Each answer has a deadline of one second, after which the method raises `BrokerUnavailable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
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


class Reading(NamedTuple):
    """What was read from the queue at one moment; None for what is unknown."""

    #: Messages waiting; None when the broker does not answer.
    depth: int | None
    #: Messages that workers hold unacknowledged.
    reserved: int | None
    #: Live workers that consume the queue.
    workers: int | None


class QueueInspector:
    """Asks about one queue, over one connection that it reopens after a loss.

    `workers` uses its own connection, so one thread may call it while another calls the other methods. Apart from that,
    an inspector is not thread-safe. `management_url` is the URL of RabbitMQ's HTTP API, if there is one
    (http://user:password@host:15672).
    """

    def __init__(self, app: Celery, queue: str, *, management_url: str = "") -> None:
        self._app = app
        self._queue = queue
        self._management_url = management_url
        self._connection: Any = None

    def depth(self) -> int:
        """Count the messages waiting, without those that workers hold; raises `BrokerUnavailable`."""
        with self._channel() as channel:
            try:
                return int(channel.queue_declare(queue=self._queue, passive=True).message_count)
            except ChannelError as error:
                if str(error.reply_code) == _NOT_FOUND:  # Redis drops a list with its last element
                    return 0
                raise

    def reserved(self) -> int | None:
        """Count the messages that workers hold unacknowledged; None if that cannot be known.

        On Redis the count covers all queues of the database. Raises `BrokerUnavailable`.
        """
        if self._management_url:
            return self._reserved_by_management()
        with self._channel() as channel:
            unacked = getattr(channel, "unacked_key", None)
            return None if unacked is None else int(channel.client.hlen(unacked))

    def workers(self) -> list[str]:
        """Return the names of the live workers that consume this queue; raises `BrokerUnavailable`.

        Takes the full second that workers have to answer. Leaves out a worker that has been ordered to stop consuming
        the queue (`celery control cancel_consumer`), and one of another application on the same broker.
        """
        with self._reachable(), self._connect() as connection:
            replies = self._app.control.broadcast(
                "active_queues", reply=True, timeout=DEADLINE_S, connection=connection
            )
        answers = [answer for reply in replies or [] for answer in reply.items()]
        return sorted(name for name, queues in answers if self._queue in _names(queues))

    def time(self) -> float:
        """Ask a Redis for its time, in epoch seconds; raises `BrokerUnavailable`, also when it refuses to tell."""
        with self._channel() as channel:
            seconds, microseconds = channel.client.time()
            return float(seconds) + float(microseconds) / 1e6

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.collect()  # not `close`, which would wait for a server that hangs
            self._connection = None

    def _connect(self) -> Any:
        connection: Connection = self._app.connection_for_read()
        # A transport ignores the options that it does not know.
        deadlines = {"read_timeout": DEADLINE_S, "write_timeout": DEADLINE_S}
        if connection.transport.driver_type == "redis":
            deadlines = {"socket_timeout": DEADLINE_S, "socket_connect_timeout": DEADLINE_S}
        connection.transport_options = {**connection.transport_options, **deadlines}
        connection.connect_timeout = DEADLINE_S
        connection.ensure_connection(max_retries=0)  # one try only; without this, the first use would try for longer
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
            reason = (str(error) or type(error).__name__).partition("\n")[0]
            url = without_password(str(self._app.conf.broker_url))
            raise BrokerUnavailable(f"cannot connect to {url}: {reason}") from error

    def _reserved_by_management(self) -> int:
        import httpx  # here, because a producer does not need it

        virtual_host = unquote(urlsplit(str(self._app.conf.broker_url)).path[1:]) or "/"
        path = f"/api/queues/{quote(virtual_host, safe='')}/{quote(self._queue, safe='')}"
        try:
            answer = httpx.get(self._management_url.rstrip("/") + path, timeout=DEADLINE_S)
            return int(answer.raise_for_status().json()["messages_unacknowledged"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise BrokerUnavailable(f"RabbitMQ's management API does not answer ({type(error).__name__})") from error


def _names(queues: Any) -> list[Any]:
    """Return the names of the queues that a worker lists; empty for a worker that answers with an error."""
    return [queue.get("name") for queue in queues if isinstance(queue, dict)] if isinstance(queues, list) else []
