"""Messages that the broker took and whose results are pending: which are safe, and which to re-send.

Decides when to fetch results and what they mean. The `outbox` acts on it, and keeps the messages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from itertools import islice

from market_data_store.errors import Backpressure, BrokerUnavailable
from market_data_store.producer.messages import Message
from market_data_store.producer.results import Result, Results, verdict
from market_data_store.protocol import Counts

logger = logging.getLogger(__name__)

#: The deadline for a result doubles with each try, up to this many times the first.
_MAX_BACKOFF = 16
#: Seconds between two searches for messages whose deadline has passed.
_OVERDUE_INTERVAL_S = 1.0
#: Seconds between two fetches: the shortest while results arrive, growing to the longest while none does.
_FETCH_INTERVAL_S, _MAX_FETCH_INTERVAL_S = 0.01, 0.5
#: Seconds until the next fetch after one that failed.
_RETRY_INTERVAL_S = 1.0
#: Without a spool, `write` waits while more bytes of rows than this wait in memory for their results.
MOST_BYTES = 256 * 1024 * 1024
#: The most results fetched at once, those of the oldest messages.
_FETCHED_AT_ONCE = 200


class Confirming:
    """The messages that the broker took and whose results are pending, in the order of sending.

    Not thread-safe, except `fetch` and `room`. Times are of `time.monotonic` unless said otherwise. `room` answers how
    many messages may be re-sent now, as `Brake.room`.
    """

    def __init__(self, results: Results, timeout_s: float, room: Callable[[], int]) -> None:
        self.results = results
        self.room = room
        self._timeout_s = timeout_s
        #: When to fetch results again.
        self.fetch_at = 0.0
        self._interval_s = _FETCH_INTERVAL_S
        self._is_silent = False
        self._look_at = 0.0
        #: By task id, in the order of sending: the message and its deadline.
        self._due: dict[str, tuple[Message, float]] = {}
        #: By task id, in the order of the first sending: how many rows were sent before the message. Those that wait to
        #: be re-sent are here, too.
        self._unsafe: dict[str, int] = {}
        #: Rows that the broker took; a re-sent row counts once.
        self.sent = 0
        self.counts = Counts()
        #: Tasks that left dead letters, and how many rows were sent before each.
        self.rejecting: dict[str, int] = {}
        #: Of the messages whose results are pending.
        self.bytes = self.rows = 0

    def __len__(self) -> int:
        """How many messages' results are pending."""
        return len(self._due)

    @property
    def safe(self) -> int:
        """How many rows are safe of those that were sent first: all before the first message without a result."""
        return next(iter(self._unsafe.values()), self.sent)

    def backlog(self) -> Backpressure:
        """Make the error for a client whose rows without a result fill its memory."""
        return Backpressure(
            f"{self.rows:,} rows wait in memory for their results; wait until workers have written them, or keep rows "
            "in a file with StoreClient(spool=PATH)"
        )

    def add(self, message: Message, now: float) -> None:
        """Add a message that the broker took at its `sent_at`, which may be long ago."""
        if message.tries == 0:
            message.before = self.sent
            self.sent += message.rows
            self._unsafe[message.task_id] = message.before
        timeout_s = self._timeout_s * min(2**message.tries, _MAX_BACKOFF)
        message.tries += 1
        elapsed_s = max(0.0, time.time() - (message.sent_at or 0.0))
        self._due[message.task_id] = (message, now + timeout_s - elapsed_s)
        self.rows += message.rows
        self.bytes += message.size
        self._interval_s = _FETCH_INTERVAL_S
        self.fetch_at = min(self.fetch_at, now + _FETCH_INTERVAL_S)

    def wanted(self, now: float) -> list[str]:
        """The tasks whose results to fetch now, oldest first; none before `fetch_at`."""
        return list(islice(self._due, _FETCHED_AT_ONCE)) if now >= self.fetch_at else []

    def fetch(self, task_ids: list[str]) -> dict[str, Result]:
        """The results that are there; none when they cannot be read, in which case the deadlines stand."""
        try:
            results = self.results.fetch(task_ids)
        except BrokerUnavailable as error:
            if not self._is_silent:
                logger.warning("%s; trying again", error)
            self._is_silent = True
            return {}
        self._is_silent = False
        return results

    def settle(self, results: Mapping[str, Result], now: float) -> list[Message]:
        """Take in results; returns the messages that they make safe."""
        safe = []
        for task_id, result in results.items():
            message = self._due[task_id][0] if task_id in self._due else None
            counts = None if message is None else verdict(result, message.rows)
            if message is None or counts is None:  # another producer's, or not usable: the deadline stands
                continue
            if result.get("status") == "REVOKED":
                logger.warning("Task %s was revoked: its %d rows are not stored", task_id, message.rows)
            self._remove(message)
            self._unsafe.pop(task_id, None)
            self.counts = self.counts + counts
            if counts.rejected:
                self.rejecting[task_id] = message.before
            safe.append(message)
        self._interval_s = _FETCH_INTERVAL_S if safe else min(self._interval_s * 1.5, _MAX_FETCH_INTERVAL_S)
        self.fetch_at = now + (_RETRY_INTERVAL_S if self._is_silent else self._interval_s)
        return safe

    def is_overdue(self, now: float) -> bool:
        """Whether any deadline has passed; searched once a second."""
        if now < self._look_at:
            return False
        self._look_at = now + _OVERDUE_INTERVAL_S
        return any(deadline <= now for _, deadline in self._due.values())

    def take_overdue(self, now: float, most: int) -> list[Message]:
        """Remove and return at most `most` messages whose deadline has passed, to be re-sent."""
        overdue = list(islice((message for message, deadline in self._due.values() if deadline <= now), most))
        for message in overdue:
            self._remove(message)
        return overdue

    def _remove(self, message: Message) -> None:
        del self._due[message.task_id]
        self.rows -= message.rows
        self.bytes -= message.size
