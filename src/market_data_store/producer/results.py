"""Reads the results of a producer's tasks.

They are where the application's workers put them: in a store that is asked by task id (Redis), or, with `rpc://`, in a
reply queue of this producer. The reply queue expires an hour after its process has ended at the latest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

import msgspec
from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend
from celery.backends.rpc import RPCBackend
from kombu import Queue
from kombu.exceptions import ContentDisallowed, DecodeError, OperationalError
from kombu.utils.uuid import uuid

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.reasons import reason_of
from market_data_store.errors import BrokerUnavailable, ConfigurationError, InvalidMessage
from market_data_store.protocol import Counts

logger = logging.getLogger(__name__)

#: The broker deletes a reply queue that has not been used for this many seconds.
_REPLY_QUEUE_EXPIRES_S = 3_600
#: The most results taken from it at once.
_REPLIES_AT_ONCE = 500

#: Celery's record of a task: status, result, ...
Result = dict[str, Any]


class Results(Protocol):
    """A source of results. Not thread-safe."""

    reply_to: str

    def prepare(self) -> None:
        """Get ready for results; called before a message is sent. Raises `BrokerUnavailable`."""

    def fetch(self, task_ids: Iterable[str]) -> dict[str, Result]:
        """The results of these tasks that are there, and perhaps those of others. Raises `BrokerUnavailable`."""

    def close(self) -> None:
        """Give the connection back."""


def results_of(app: Celery, inspector: QueueInspector) -> Results:
    """The source of this application's results; raises `ConfigurationError` if it keeps none."""
    if isinstance(app.backend, BaseKeyValueStoreBackend):
        return _Stored(app)
    if isinstance(app.backend, RPCBackend):
        return _Replied(inspector)
    raise ConfigurationError("confirm=True needs results: set result_backend to redis://... or rpc://")


def verdict(result: Result, rows: int) -> Counts | None:
    """The outcome of a message with `rows` rows; None if its result does not say that they are safe."""
    status, value = result.get("status"), result.get("result")
    if status == "SUCCESS":
        try:
            return msgspec.convert(value, Counts)
        except msgspec.ValidationError:  # not from our worker
            return None
    # After another failure, such as a time limit, the message went back to the broker.
    kept_as_letter = (
        status == "FAILURE" and isinstance(value, dict) and value.get("exc_type") == InvalidMessage.__name__
    )
    if kept_as_letter or status == "REVOKED":  # by an operator
        return Counts(rejected=rows)
    return None


class _Stored:
    """Results in a key-value store."""

    def __init__(self, app: Celery) -> None:
        from redis.exceptions import RedisError  # not at the top: a tenth of a client's import, and only used here

        self._errors = (OperationalError, OSError, RedisError)
        self._backend = app.backend
        self.reply_to = app.thread_oid

    def prepare(self) -> None:
        pass

    def fetch(self, task_ids: Iterable[str]) -> dict[str, Result]:
        ids = list(task_ids)
        try:
            values = self._backend.mget([self._backend.get_key_for_task(task_id) for task_id in ids])
        except self._errors as error:
            raise BrokerUnavailable(f"results cannot be read ({reason_of(error)})") from error
        results = {}
        for task_id, value in zip(ids, values, strict=True):
            if value is not None and (result := self._decoded(value)) is not None:
                results[task_id] = result
        return results

    def _decoded(self, value: Any) -> Result | None:
        """A result; None for what is not from a worker: the others count all the same."""
        try:
            result = self._backend.decode(value)
        except (ContentDisallowed, DecodeError, ValueError, RecursionError, TypeError):
            return None
        return result if isinstance(result, dict) else None

    def close(self) -> None:
        pass


class _Replied:
    """Results in this producer's reply queue, over the inspector's connection."""

    def __init__(self, inspector: QueueInspector) -> None:
        self._inspector = inspector
        self._connection: Any = None
        self._queue: Any = None
        self._declared_at = 0.0
        self.reply_to = f"store.results.{uuid()}"

    def prepare(self) -> None:
        # Declared again after a pause, in which the broker may have deleted it as unused.
        if self._queue is None or time.monotonic() - self._declared_at > _REPLY_QUEUE_EXPIRES_S / 2:
            with self._reachable():
                self._declared_at = time.monotonic()

    def fetch(self, task_ids: Iterable[str]) -> dict[str, Result]:
        self.prepare()
        results = {}
        with self._reachable() as queue:
            for message in islice(iter(lambda: queue.get(no_ack=True, accept=["json"]), None), _REPLIES_AT_ONCE):
                try:
                    results[message.payload["task_id"]] = message.payload
                except (ContentDisallowed, DecodeError, LookupError, TypeError, ValueError, RecursionError):
                    continue  # not from a worker
        return results

    def close(self) -> None:
        if self._queue is not None:
            try:
                with self._reachable() as queue:
                    queue.delete()
            except BrokerUnavailable as error:  # it expires by itself
                logger.debug("The queue of results was not deleted (%s)", error)
        self._queue = self._connection = None

    @contextmanager
    def _reachable(self) -> Iterator[Any]:
        """The queue, declared over this connection."""
        try:
            with self._inspector.lent() as connection:
                if self._queue is None or connection is not self._connection:
                    # Durable, so that the queue survives a restart of the broker; its messages do not.
                    queue = Queue(self.reply_to, routing_key=self.reply_to, expires=_REPLY_QUEUE_EXPIRES_S)
                    self._queue = queue(connection.default_channel)
                    self._queue.declare()
                    self._connection = connection
                yield self._queue
        except BrokerUnavailable as error:
            self._queue = self._connection = None
            raise BrokerUnavailable(f"results cannot be read ({error})") from error
        except Exception as error:  # amqp's, kombu's or the socket's: each calls for a new connection
            self._queue = self._connection = None
            raise BrokerUnavailable(f"results cannot be read ({reason_of(error)})") from error
