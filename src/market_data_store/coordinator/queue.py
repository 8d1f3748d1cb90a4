"""Reads from the broker the messages waiting in the queue, those that workers hold, and the workers that consume it.

Each answer has a deadline of one second, after which the method raises `BrokerUnavailable`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

from amqp.exceptions import ChannelError
from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from market_data_store.config import without_password
from market_data_store.coordinator.answers import WorkerAnswer, answer_in
from market_data_store.coordinator.write_probe import WriteProbe, overflow_of, refusal_of_redis
from market_data_store.datasets import DATASETS
from market_data_store.errors import LETTERS, BrokerUnavailable
from market_data_store.protocol import AGAIN_QUEUE, QUEUE, held_queue

T = TypeVar("T")

#: What messages may wait for: each dataset, and the table of dead letters.
HOLDABLE = (*DATASETS, LETTERS)
#: Seconds for any one answer.
DEADLINE_S = 1.0
#: RabbitMQ gives the code as a number, the Redis transport as a string.
_NOT_FOUND = "404"
#: RabbitMQ logs each question for a queue that is not there; it is asked again after this many seconds.
_ABSENT_S = 10.0


class Reading(NamedTuple):
    """What was read from the queue at one moment; None for what is unknown."""

    #: Messages waiting; None when the broker does not answer.
    depth: int | None
    #: Messages that workers hold unacknowledged.
    reserved: int | None
    #: Live workers that consume the queue.
    workers: int | None
    #: Messages that wait for each of `HOLDABLE` whose table takes no row.
    held: Mapping[str, int] | None = None
    #: Why the broker takes no write; None if it takes writes, or if that is unknown.
    refusal: str | None = None
    #: How many workers are in trouble, by what is wrong with them (`answers.TROUBLES`).
    troubles: Mapping[str, int] | None = None


class QueueInspector:
    """Asks about one queue, over one connection that it reopens after a loss.

    `workers` uses its own connection, so one thread may call it while another calls the other methods. Apart from that,
    an inspector is not thread-safe. `management_url` is the URL of RabbitMQ's HTTP API, if there is one
    (http://user:password@host:15672).
    """

    #: What the workers said of themselves when they were last asked, and some answered.
    answers: Sequence[WorkerAnswer] = ()

    def __init__(self, app: Celery, queue: str, *, management_url: str = "") -> None:
        self._app = app
        self._queue = queue
        self._management_url = management_url
        self._connection: Any = None
        #: RabbitMQ's: for questions about queues that may not be there, and when to ask again for one that was not.
        self._own_channel: Any = None
        self._absent_until: dict[str, float] = {}
        self._probe = WriteProbe(self._connect, deadline_s=DEADLINE_S)
        #: What the management API's last answer says of the queue's limits.
        self._overflow: str | None = None

    def depth(self) -> int:
        """Count the messages waiting, without those that workers hold; raises `BrokerUnavailable`.

        Includes those that wait to be processed one at a time (`protocol.AGAIN_QUEUE`).
        """
        waiting = self.waiting()
        if self._queue != QUEUE:
            return waiting
        with self._channel() as channel:
            return waiting + self._beside(channel, AGAIN_QUEUE)

    def waiting(self) -> int:
        """Count the messages waiting in this queue only; raises `BrokerUnavailable`."""
        with self._channel() as channel:
            try:
                return int(channel.queue_declare(queue=self._queue, passive=True).message_count)
            except ChannelError as error:
                if str(error.reply_code) != _NOT_FOUND:  # Redis drops a list with its last element
                    raise
                return 0

    def held(self) -> dict[str, int]:
        """Count the messages that wait for each of `HOLDABLE` whose table takes no row; raises `BrokerUnavailable`."""
        with self._channel() as channel:
            if hasattr(channel, "unacked_key"):
                pipeline = channel.client.pipeline(transaction=False)
                for name in HOLDABLE:
                    pipeline.llen(held_queue(name))
                counts = dict(zip(HOLDABLE, map(int, pipeline.execute()), strict=True))
            else:
                counts = {name: self._beside(channel, held_queue(name)) for name in HOLDABLE}
        return {name: count for name, count in counts.items() if count}

    def _beside(self, channel: Any, queue: str) -> int:
        """Count the messages waiting in a queue that only workers make; 0 if there is none."""
        if hasattr(channel, "unacked_key"):
            return int(channel.client.llen(queue))
        if time.monotonic() < self._absent_until.get(queue, 0.0):
            return 0
        if self._own_channel is None:  # RabbitMQ closes the channel that asks for what is not there
            self._own_channel = self._connection.channel()
        try:
            return int(self._own_channel.queue_declare(queue=queue, passive=True).message_count)
        except ChannelError as error:
            self._own_channel = None
            if str(error.reply_code) != _NOT_FOUND:
                raise
            self._absent_until[queue] = time.monotonic() + _ABSENT_S
            return 0

    def reserved(self) -> int | None:
        """Count the messages that workers hold unacknowledged; None if that cannot be known.

        On Redis the count covers all queues of the database. Raises `BrokerUnavailable`.
        """
        if self._management_url:
            return self._reserved_by_management()
        with self._channel() as channel:
            unacked = getattr(channel, "unacked_key", None)
            return None if unacked is None else int(channel.client.hlen(unacked))

    def refusal(self) -> str | None:
        """Return why the broker takes no write (it is full, or read-only), in one line; None if it takes writes.

        Knows of a queue's own limits what the last call of `reserved` has found. Raises `BrokerUnavailable`.
        """
        with self._channel() as channel:
            return self._probe.look(channel) or self._overflow

    def delivers(self) -> bool:
        """Whether the broker lets messages be taken: a full one does, a read-only Redis does not.

        Raises `BrokerUnavailable`.
        """
        with self._channel() as channel:
            return not hasattr(channel, "unacked_key") or refusal_of_redis(channel, "RPOP") is None

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
        consuming = {name: queues for name, queues in answers if self._queue in _names(queues)}
        if consuming:
            self.answers = [found for queues in consuming.values() if (found := answer_in(queues)) is not None]
        return sorted(consuming)

    def time(self) -> float:
        """Ask a Redis for its time, in epoch seconds; raises `BrokerUnavailable`, also when it refuses to tell."""
        with self._channel() as channel:
            seconds, microseconds = channel.client.time()
            return float(seconds) + float(microseconds) / 1e6

    def close(self) -> None:
        """Close the connections."""
        self._probe.close()
        if self._connection is not None:
            self._connection.collect()  # not `close`, which would wait for a server that hangs
            self._connection = self._own_channel = None

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
            found = answer.raise_for_status().json()
            self._overflow = overflow_of(found)
            return int(found["messages_unacknowledged"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise BrokerUnavailable(f"RabbitMQ's management API does not answer ({type(error).__name__})") from error


def if_answered(question: Callable[[], T]) -> T | None:
    """Return the answer; None if the broker gives none."""
    try:
        return question()
    except BrokerUnavailable:
        return None


def _names(queues: Any) -> list[Any]:
    """Return the names of the queues that a worker lists; empty for a worker that answers with an error."""
    return [queue.get("name") for queue in queues if isinstance(queue, dict)] if isinstance(queues, list) else []
