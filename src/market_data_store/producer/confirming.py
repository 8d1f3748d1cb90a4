"""Messages that the broker took and whose results are due: which are safe, and which are to be sent again.

When to ask for results, and what they mean, is decided here; the `outbox` does it, and keeps the messages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from itertools import islice

from market_data_store.errors import BrokerUnavailable
from market_data_store.producer.messages import Message
from market_data_store.producer.results import Result, Results, verdict
from market_data_store.protocol import Counts

logger = logging.getLogger(__name__)

#: The deadline for a result doubles with each try, up to so many times the first.
_MAX_BACKOFF = 16
#: It is looked for such messages this often.
_OVERDUE_INTERVAL_S = 1.0
#: Results are asked for this often while they come in, and ever less often while none does.
_FETCH_INTERVAL_S, _MAX_FETCH_INTERVAL_S = 0.01, 0.5
#: When they could not be read, after this.
_RETRY_INTERVAL_S = 1.0
#: So many of the oldest messages are asked for in one go.
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
        #: When to ask for results again.
        self.fetch_at = 0.0
        self._interval_s = _FETCH_INTERVAL_S
        self._is_silent = False
        self._look_at = 0.0
        #: By task id: the message and its deadline; in the order of sending.
        self._due: dict[str, tuple[Message, float]] = {}
        #: Rows that the broker took; sent again, they do not count again.
        self.sent = 0
        self.counts = Counts()
        #: Tasks that left dead letters, and the rows that were sent before each.
        self.rejecting: dict[str, int] = {}
        #: Of the messages that are due.
        self.bytes = self.rows = 0

    def __len__(self) -> int:
        """Messages whose results are due."""
        return len(self._due)

    def add(self, message: Message, now: float) -> None:
        """The broker took it, at its `sent_at`, which may be long ago."""
        if message.tries == 0:
            message.before = self.sent
            self.sent += message.rows
        timeout_s = self._timeout_s * min(2**message.tries, _MAX_BACKOFF)
        message.tries += 1
        elapsed_s = max(0.0, time.time() - (message.sent_at or 0.0))
        self._due[message.task_id] = (message, now + timeout_s - elapsed_s)
        self.rows += message.rows
        self.bytes += message.size
        self._interval_s = _FETCH_INTERVAL_S
        self.fetch_at = min(self.fetch_at, now + _FETCH_INTERVAL_S)

    def wanted(self, now: float) -> list[str]:
        """The tasks to ask for, of the oldest messages; none while it is not yet time."""
        return list(islice(self._due, _FETCHED_AT_ONCE)) if now >= self.fetch_at else []

    def fetch(self, task_ids: list[str]) -> dict[str, Result]:
        """The results that are there. None when they cannot be read: the deadlines stand."""
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
        """The messages that are safe by these results."""
        safe = []
        for task_id, result in results.items():
            message = self._due[task_id][0] if task_id in self._due else None
            counts = None if message is None else verdict(result, message.rows)
            if message is None or counts is None:  # of another producer, say; or of no use: the deadline stands
                continue
            if result.get("status") == "REVOKED":
                logger.warning("Task %s was revoked: its %d rows are not stored", task_id, message.rows)
            self._remove(message)
            self.counts = self.counts + counts
            if counts.rejected:
                self.rejecting[task_id] = message.before
            safe.append(message)
        self._interval_s = _FETCH_INTERVAL_S if safe else min(self._interval_s * 1.5, _MAX_FETCH_INTERVAL_S)
        self.fetch_at = now + (_RETRY_INTERVAL_S if self._is_silent else self._interval_s)
        return safe

    def is_overdue(self, now: float) -> bool:
        """Whether a deadline is over; looked for once a second."""
        if now < self._look_at:
            return False
        self._look_at = now + _OVERDUE_INTERVAL_S
        return any(deadline <= now for _, deadline in self._due.values())

    def take_overdue(self, now: float, most: int) -> list[Message]:
        """The messages whose deadline is over, at most so many, to be sent again; they are no longer due."""
        overdue = list(islice((message for message, deadline in self._due.values() if deadline <= now), most))
        for message in overdue:
            self._remove(message)
        return overdue

    def _remove(self, message: Message) -> None:
        del self._due[message.task_id]
        self.rows -= message.rows
        self.bytes -= message.size
