"""Reads from the broker the messages waiting in a queue, those that workers hold, and the workers that consume it.

Each answer has a deadline of one second, after which the method raises `BrokerUnavailable`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.utils.uuid import uuid

from market_data_store.connections.urls import is_redis, without_password
from market_data_store.coordinator.answers import (
    MOST_ANSWERS,
    FoundWorker,
    WorkerAnswer,
    answer_in,
    answers_in,
    names_of,
)
from market_data_store.coordinator.counting import Counting
from market_data_store.coordinator.management import facts_of
from market_data_store.coordinator.reasons import reason_of
from market_data_store.coordinator.write_probe import WriteProbe, refusal_in, refusal_of_redis
from market_data_store.datasets import DATASETS
from market_data_store.errors import LETTERS, BrokerUnavailable
from market_data_store.protocol import LANES, MALFORMED, again_queue, held_queue

T = TypeVar("T")

#: Seconds for any one answer.
DEADLINE_S = 1.0
#: Seconds that a question waits for those of other threads.
_TURN_S = 2 * DEADLINE_S


def holdable() -> tuple[str, ...]:
    """Return what messages may wait for: each dataset, and the table of dead letters."""
    return (*DATASETS, LETTERS)


class Reading(NamedTuple):
    """What was read from the queue at one moment; None for what is unknown."""

    #: Messages waiting; None when the broker does not answer.
    depth: int | None
    #: Messages that workers hold unacknowledged.
    reserved: int | None
    #: Live workers that consume the queue.
    workers: int | None
    #: Messages that wait for each of `holdable()` whose table takes no row.
    held: Mapping[str, int] | None = None
    #: Why the broker takes no write; None if it takes writes, or if that is unknown.
    refusal: str | None = None
    #: How many workers are in trouble, by what is wrong with them (`answers.TROUBLES`).
    troubles: Mapping[str, int] | None = None
    #: What workers have set aside that is not a message, see `QueueInspector.malformed`.
    malformed: int | None = None
    #: Whether the database has no room left for long; False if that is unknown.
    is_database_full: bool = False


class QueueInspector:
    """Asks about one queue, or others that a question names, over one connection that it reopens after a loss.

    Thread-safe: one thread at a time asks. `management_url` is the URL of RabbitMQ's HTTP API, if there is one
    (http://user:password@host:15672).
    """

    #: What the workers said of themselves when they were last asked, and some answered.
    answers: Sequence[WorkerAnswer] = ()
    #: The workers that answered then.
    found: Sequence[FoundWorker] = ()
    #: How many workers have each name that more than one has, when they were last asked.
    namesakes: Mapping[str, int] = MappingProxyType({})
    #: By how many seconds at least the workers' clocks are ahead of this machine's, by name, as they then said.
    clocks: Mapping[str, float] = MappingProxyType({})

    def __init__(
        self, app: Celery, queue: str, *, management_url: str = "", write_timeout_s: float = DEADLINE_S
    ) -> None:
        self._app = app
        #: RabbitMQ's, for those to whom the connection is lent.
        self._write_timeout_s = write_timeout_s
        #: The queue that a question is about which names no other.
        self.queue = queue
        #: RabbitMQ does not tell its time.
        self.tells_time = is_redis(str(app.conf.broker_url))
        self._management_url = management_url
        self._connection: Any = None
        self._counting = Counting()
        self._probe = WriteProbe(deadline_s=DEADLINE_S)
        self._asking = threading.RLock()
        #: What the management API's last answer says of each queue's limits.
        self._overflow: dict[str, str | None] = {}

    def depth(self, queue: str | None = None) -> int:
        """Count the messages waiting, without those that workers hold; raises `BrokerUnavailable`.

        Includes those of a lane that wait to be processed one at a time (`protocol.again_queue`).
        """
        queue = queue or self.queue
        waiting = self.waiting(queue)
        if queue not in LANES.values():
            return waiting
        with self.lent() as connection:
            return waiting + self._counting.beside(connection, again_queue(queue))

    def waiting(self, queue: str | None = None) -> int:
        """Count the messages waiting in this queue only; raises `BrokerUnavailable`."""
        with self.lent() as connection:
            if queue is None or queue == self.queue:
                return self._counting.waiting(connection, self.queue)
            return self._counting.seldom(connection, queue)  # of a lane that may have no worker yet

    def held(self, queue: str | None = None) -> dict[str, int]:
        """Count the messages that wait for each of `holdable()` that takes no row; raises `BrokerUnavailable`."""
        with self.lent() as connection:
            names = {held_queue(name, queue or self.queue): name for name in holdable()}
            counts = self._counting.each_beside(connection, names)
        return {names[each]: count for each, count in counts.items() if count}

    def set_aside(self, queue: str | None = None) -> dict[str, int]:
        """Count the messages in each queue that workers move them to, if any; raises `BrokerUnavailable`."""
        queue = queue or self.queue
        found = {held_queue(name, queue): count for name, count in self.held(queue).items()}
        with self.lent() as connection:
            again = self._counting.beside(connection, again_queue(queue))
        return found | ({again_queue(queue): again} if again else {})

    def reserved(self, queue: str | None = None) -> int | None:
        """Count the messages that workers hold unacknowledged; None if that cannot be known.

        On Redis the count covers all queues of the database, and is returned for the inspector's own queue only.
        Raises `BrokerUnavailable`.
        """
        queue = queue or self.queue
        if self._management_url:
            found = facts_of(queue, str(self._app.conf.broker_url), self._management_url, DEADLINE_S)
            self._overflow[queue] = found.overflow
            return found.unacknowledged
        with self._channel() as channel:
            unacked = getattr(channel, "unacked_key", None)
            return None if unacked is None or queue != self.queue else int(channel.client.hlen(unacked))

    def malformed(self) -> int:
        """Count what workers found in lists of a Redis and is not a message; raises `BrokerUnavailable`."""
        with self._channel() as channel:
            unacked = getattr(channel, "unacked_key", None)
            return 0 if unacked is None else int(channel.client.llen(f"{unacked}{MALFORMED}"))

    def refusal(self, queue: str | None = None) -> str | None:
        """Return why the broker takes no write (it is full, or read-only), in one line; None if it takes writes.

        Knows of a queue's own limits what the last call of `reserved` has found. Raises `BrokerUnavailable`.
        """
        with self._channel():
            return self._probed() or self._overflow.get(queue or self.queue)

    def delivers(self) -> bool:
        """Whether the broker lets messages be taken: a full one does, a read-only Redis does not.

        Raises `BrokerUnavailable`.
        """
        with self._channel() as channel:
            return not hasattr(channel, "unacked_key") or refusal_of_redis(channel, "RPOP") is None

    def workers(self) -> list[str]:
        """Return the names of the live workers that consume this queue; see `consumers`."""
        return self.consumers()[self.queue]

    def consumers(self, *others: str) -> dict[str, list[str]]:
        """Return the names of the live workers that consume this queue, and each other; raises `BrokerUnavailable`.

        Takes the full second that workers have to answer, for all queues together. Leaves out a worker that has been
        ordered to stop consuming the queue (`celery control cancel_consumer`), and one of another application on the
        same broker. A name that several workers have comes several times; RabbitMQ allows only one (`worker.consumer`).
        """
        ticket, asked_at = uuid(), time.time()
        with self._channel() as channel:
            # What is sent over a blocked connection stops it, and no worker could answer.
            blocked = None if hasattr(channel, "unacked_key") else self._probed()
            mailbox = self._app.control.mailbox(self._connection)
            mailbox.producer_pool = None  # else kombu takes another connection
            if blocked is None:
                mailbox._publish("active_queues", {}, reply_ticket=ticket, channel=channel, timeout=DEADLINE_S)
        if blocked is not None:
            raise BrokerUnavailable(blocked)
        time.sleep(DEADLINE_S)  # others may ask meanwhile
        with self._channel() as channel:
            replies = mailbox.reply_queue(channel)
            messages = list(islice(iter(lambda: replies.get(no_ack=True, accept=mailbox.accept), None), MOST_ANSWERS))
            replies.delete()
        read_at = time.time()
        asked = (self.queue, *others)
        answers = [answer for message in messages for answer in answers_in(message, ticket)]
        consuming = [(name, queues) for name, queues in answers if any(each in names_of(queues) for each in asked)]
        counts = Counter(name for name, _ in consuming)
        self.namesakes = {name: count for name, count in counts.items() if count > 1}
        if consuming:
            self.found = [
                FoundWorker(name, tuple(map(str, names_of(queues))), answer_in(queues)) for name, queues in consuming
            ]
            self.answers = [each.answer for each in self.found if each.answer is not None]
            self.clocks = {
                each.name: each.answer.ahead_s(asked_at, read_at) for each in self.found if each.answer is not None
            }
        return {each: sorted(name for name, queues in consuming if each in names_of(queues)) for each in asked}

    def time(self) -> float:
        """Ask a Redis for its time, in epoch seconds; raises `BrokerUnavailable`, also when it refuses to tell."""
        with self._channel() as channel:
            seconds, microseconds = channel.client.time()
            return float(seconds) + float(microseconds) / 1e6

    def close(self) -> None:
        """Close the connections."""
        is_mine = self._asking.acquire(timeout=_TURN_S)  # else the server hangs, and whoever asks will see it
        self._probe.close()
        if self._connection is not None:
            self._connection.collect()  # not `close`, which would wait for a server that hangs
            self._connection = None
            self._counting.forget()
        if is_mine:
            self._asking.release()

    def _probed(self) -> str | None:
        refusal = self._probe.look(self._connection)
        if self._probe.keeps(self._connection):
            self._connection = None
            self._counting.forget()
        return refusal

    def _connect(self) -> Any:
        connection: Connection = self._app.connection_for_read()
        # A transport ignores the options that it does not know.
        deadlines = {"read_timeout": DEADLINE_S, "write_timeout": self._write_timeout_s, "confirm_publish": True}
        if connection.transport.driver_type == "redis":
            deadlines = {"socket_timeout": DEADLINE_S, "socket_connect_timeout": DEADLINE_S}
        connection.transport_options = {**connection.transport_options, **deadlines}
        connection.connect_timeout = DEADLINE_S
        # One try of each host only; without this, the first use would try for longer. With Sentinel each try asks all.
        others = 0 if is_redis(str(self._app.conf.broker_url)) else max(0, len(connection.alt) - 1)
        connection.ensure_connection(max_retries=others)
        return connection

    @contextmanager
    def lent(self) -> Iterator[Any]:
        """Lend the connection to this thread; close it after an error. Raises `BrokerUnavailable`."""
        with self._channel():
            yield self._connection

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        if not self._asking.acquire(timeout=_TURN_S):
            raise BrokerUnavailable("the broker has not answered another question yet")
        try:
            with self._reachable():
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection.default_channel
        except BaseException as error:
            if refusal_in(error) is None:  # a Redis that refuses a write answers other questions
                self.close()
            raise
        finally:
            self._asking.release()

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            probe = self._app.connection_for_read()  # its classes of errors depend on the broker
            if not isinstance(error, (*probe.connection_errors, *probe.channel_errors, OperationalError, OSError)):
                raise
            url = without_password(str(self._app.conf.broker_url))
            raise BrokerUnavailable(f"cannot connect to {url}: {reason_of(error)}") from error


def if_answered(question: Callable[[], T]) -> T | None:
    """Return the answer; None if the broker gives none."""
    try:
        return question()
    except BrokerUnavailable:
        return None
