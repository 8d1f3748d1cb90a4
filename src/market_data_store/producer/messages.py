"""The life of a message before it is sent: rows are added to it (`Gathering`), then it waits in line (`Waiting`).

A message is closed at a row limit, at a byte limit, or when its first row has lingered long enough. Pure apart from
reading the clock: no thread, no broker, no file.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kombu.utils.uuid import uuid

from market_data_store.protocol import QUEUE
from market_data_store.tracing import switch

#: Seconds between two rows' times at least, so that the later row is newer also after rounding to microseconds, and
#: when the clock stands still.
_STEP_S = 2e-6
#: Unless a client was told how long rows linger: the least seconds between two messages that are not full. So the first
#: row after a pause, which others may not follow, goes at once.
_PAUSE_S = 0.03

#: A number of rows, and these rows encoded.
Part = tuple[int, bytes]


@dataclass(slots=True, eq=False)
class Message:
    """Rows of one dataset that travel together under one task id.

    Its parts are JSON objects, joined by commas when it is sent. A `columnar` message has one part, which is its body.
    """

    dataset: str
    #: Fills fields that the rows leave out; a JSON object.
    defaults: bytes
    #: When it is closed at the latest, by `time.monotonic`.
    due: float = 0.0
    #: Empty when the rows are only in the spool.
    parts: list[bytes] = field(default_factory=list)
    rows: int = 0
    size: int = 0
    task_id: str = field(default_factory=uuid)
    #: When the last of its rows was taken, in epoch seconds by the broker's clock; the same at every try.
    enqueued_at: float = 0.0
    #: Its key in the spool.
    number: int | None = None
    #: When the broker last took it, in epoch seconds, and how often it has.
    sent_at: float | None = None
    tries: int = 0
    #: How many rows the broker had taken before this message.
    before: int = 0
    columnar: bool = False
    #: The queue of its lane.
    queue: str = QUEUE
    #: If traces are on: the spans of the writes that its rows come from.
    origins: list[Any] | None = None


class Placement(NamedTuple):
    """Some rows, and the message that they are added to."""

    message: Message
    rows: int
    part: bytes
    #: When they were taken, in epoch seconds by the broker's clock.
    written_at: float


class Gathering:
    """The messages for one queue that are not full. Not thread-safe.

    `linger_s` is how long a message's first row waits for others. With None it waits until `_PAUSE_S` after the message
    before, and goes at once if that is over. `clock` gives the time at which rows are taken.
    """

    def __init__(
        self,
        max_rows: int,
        max_bytes: int,
        linger_s: float | None,
        *,
        queue: str = QUEUE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_rows, self._max_bytes, self._linger_s = max_rows, max_bytes, linger_s
        self._queue, self._clock = queue, clock
        self._open: dict[tuple[str, bytes], Message] = {}
        self._written_at = 0.0
        self._closed_at = -math.inf

    def room(self, dataset: str, defaults: bytes) -> int:
        """How many rows still fit into the message that the next rows are added to."""
        message = self._open.get((dataset, defaults))
        return self._max_rows - (message.rows if message else 0)

    def place(self, dataset: str, defaults: bytes, parts: Iterable[Part]) -> list[Placement]:
        """Assign each part to a message; nothing changes before `add`."""
        placements = []
        message = self._open.get((dataset, defaults))
        rows, size = (message.rows, message.size) if message else (0, 0)
        for count, part in parts:
            if message is None or (rows and (rows + count > self._max_rows or size + len(part) > self._max_bytes)):
                message = Message(dataset, defaults, due=self._due(time.monotonic()), queue=self._queue)
                rows = size = 0
            placements.append(Placement(message, count, part, self._now()))
            rows += count
            size += len(part) + 1
        return placements

    def place_tables(self, dataset: str, defaults: bytes, parts: Iterable[Part]) -> list[Placement]:
        """As `place`, for parts that are whole messages."""
        return [
            Placement(Message(dataset, defaults, columnar=True, queue=self._queue), count, part, self._now())
            for count, part in parts
        ]

    def _due(self, now: float) -> float:
        """When a message that begins now is closed at the latest."""
        return max(now, self._closed_at + _PAUSE_S) if self._linger_s is None else now + self._linger_s

    def _now(self) -> float:
        self._written_at = max(self._clock(), self._written_at + _STEP_S)
        return self._written_at

    def add(self, placements: Sequence[Placement]) -> list[Message]:
        """Add the parts to their messages; returns the messages that this filled, in order."""
        spans = switch.spans()
        if spans is not None:
            for message in {placement.message for placement in placements}:
                message.origins = spans.joined(message.origins)
        full = []
        for message, count, part, written_at in placements:
            message.parts.append(part)
            message.rows += count
            message.size += len(part) + 1
            message.enqueued_at = written_at
            if message.columnar:
                # Its rows are newer than those gathered so far, so close their messages: no newer row may join them.
                full += [self._open.pop(key) for key in list(self._open) if key[0] == message.dataset]
                full.append(message)
                continue
            key = (message.dataset, message.defaults)
            before = self._open.get(key)
            if before is not None and before is not message:
                full.append(before)
            self._open[key] = message
            if message.rows >= self._max_rows or message.size >= self._max_bytes:
                full.append(self._open.pop(key))
        if full:
            self._closed_at = time.monotonic()
        return full

    def due(self, now: float) -> list[Message]:
        """Close and return the messages whose first row has lingered long enough. `now` is of `time.monotonic`."""
        full = [message for message in self._open.values() if message.due <= now]
        for message in full:
            del self._open[message.dataset, message.defaults]
        if full:
            self._closed_at = time.monotonic()  # `now` may be infinite
        return full

    @property
    def next_due(self) -> float:
        """When the next message is due; infinity when there is none."""
        return min((message.due for message in self._open.values()), default=float("inf"))

    @property
    def rows(self) -> int:
        """Rows in messages that are not full."""
        return sum(message.rows for message in self._open.values())

    def continue_after(self, written_at: float) -> None:
        """Make the rows that follow newer than this (epoch seconds)."""
        self._written_at = max(self._written_at, written_at)


class Waiting:
    """Messages that wait to be sent, in order. Not thread-safe.

    It holds their rows up to `memory_bytes`. Beyond that it drops rows from memory: a spool has them.
    """

    def __init__(self, memory_bytes: float) -> None:
        self._line: deque[Message] = deque()
        self._memory_bytes = memory_bytes
        self._bytes = 0
        #: Running totals: messages added, messages taken, and the highest number cleared for sending.
        self.put = self.taken = 0
        self.released: float = math.inf

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._line)

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return sum(message.rows for message in self._line)

    def add(self, messages: Iterable[Message]) -> None:
        """Add messages at the end."""
        for message in messages:
            if self._bytes + message.size > self._memory_bytes:
                message.parts = []
            elif message.parts:
                self._bytes += message.size
            self._line.append(message)
            self.put += 1

    def next(self) -> Message | None:
        """The first message, if it is cleared for sending."""
        return self._line[0] if self._line and self.taken < self.released else None

    def take(self) -> Message:
        """Remove and return the first message."""
        message = self._line.popleft()
        self.taken += 1
        if message.parts:
            self._bytes -= message.size
        return message
