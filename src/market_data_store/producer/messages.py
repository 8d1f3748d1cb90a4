"""Rows on their way into messages: a message is full at so many rows or bytes, or when its first row waited enough.

Pure: no thread, no clock of its own, no broker.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kombu.utils.uuid import uuid

#: Between two messages of one producer, so that what was handed over later is newer also after rounding to
#: microseconds, and when the clock stands still.
_STEP_S = 2e-6


@dataclass(slots=True, eq=False)
class Message:
    """Rows of one dataset that travel together under one task id.

    JSON objects, joined by commas when it is sent; or, `columnar`, one part that is the body.
    """

    dataset: str
    #: What the rows leave out, as a JSON object.
    defaults: bytes
    #: Of `time.monotonic`: when it goes at the latest.
    due: float = 0.0
    #: Empty when they are in the spool alone.
    parts: list[bytes] = field(default_factory=list)
    rows: int = 0
    size: int = 0
    task_id: str = field(default_factory=uuid)
    #: Epoch seconds: when the last of its rows was handed over; the same at every try.
    enqueued_at: float = 0.0
    #: Its key in the spool.
    number: int | None = None
    #: Epoch seconds: when the broker took it last, and how often it did.
    sent_at: float | None = None
    tries: int = 0
    #: Rows that the broker had taken before it.
    before: int = 0
    columnar: bool = False


class Placement(NamedTuple):
    """Some rows, and the message that they go into."""

    message: Message
    rows: int
    part: bytes
    #: Epoch seconds: when they were handed over.
    written_at: float


class Gathering:
    """The messages that are not full. Not for two threads at once."""

    def __init__(self, max_rows: int, max_bytes: int, linger_s: float) -> None:
        self._max_rows, self._max_bytes, self._linger_s = max_rows, max_bytes, linger_s
        self._open: dict[tuple[str, bytes], Message] = {}
        self._written_at = 0.0

    def room(self, dataset: str, defaults: bytes) -> int:
        """Rows that still fit in the message that the next ones go into."""
        message = self._open.get((dataset, defaults))
        return self._max_rows - (message.rows if message else 0)

    def place(self, dataset: str, defaults: bytes, parts: Iterable[tuple[int, bytes]]) -> list[Placement]:
        """Which message each part would go into; nothing is done before `add`."""
        placements = []
        message = self._open.get((dataset, defaults))
        rows, size = (message.rows, message.size) if message else (0, 0)
        for count, part in parts:
            if message is None or (rows and (rows + count > self._max_rows or size + len(part) > self._max_bytes)):
                message = Message(dataset, defaults, due=time.monotonic() + self._linger_s)
                rows = size = 0
            placements.append(Placement(message, count, part, self._now()))
            rows += count
            size += len(part) + 1
        return placements

    def place_tables(self, dataset: str, defaults: bytes, parts: Iterable[tuple[int, bytes]]) -> list[Placement]:
        """As `place`, for parts that are messages by themselves."""
        return [Placement(Message(dataset, defaults, columnar=True), count, part, self._now()) for count, part in parts]

    def _now(self) -> float:
        self._written_at = max(time.time(), self._written_at + _STEP_S)
        return self._written_at

    def add(self, placements: Iterable[Placement]) -> list[Message]:
        """Put the parts where `place` said; the messages that are full by that, in order."""
        full = []
        for message, count, part, written_at in placements:
            message.parts.append(part)
            message.rows += count
            message.size += len(part) + 1
            message.enqueued_at = written_at
            if message.columnar:
                # Its rows are newer than those that are gathered, whose messages get no more rows, nor their time.
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
        return full

    def due(self, now: float) -> list[Message]:
        """The messages whose first row waited enough; they are full by that. `now` is of `time.monotonic`."""
        full = [message for message in self._open.values() if message.due <= now]
        for message in full:
            del self._open[message.dataset, message.defaults]
        return full

    @property
    def next_due(self) -> float:
        """When the next one is due; infinity when nothing is gathered."""
        return min((message.due for message in self._open.values()), default=float("inf"))

    @property
    def rows(self) -> int:
        """Rows that are gathered and in no full message."""
        return sum(message.rows for message in self._open.values())

    def continue_after(self, written_at: float) -> None:
        """What is handed over from now on is newer than this (epoch seconds)."""
        self._written_at = max(self._written_at, written_at)


class Waiting:
    """A line of messages. Not for two threads at once.

    What is also in a spool stands here with its rows up to `memory_bytes`; of what comes then, the rows are dropped.
    """

    def __init__(self, memory_bytes: float) -> None:
        self._line: deque[Message] = deque()
        self._memory_bytes = memory_bytes
        self._bytes = 0
        #: Messages that ever waited, those of them that were taken, and those that may go so far.
        self.put = self.taken = 0
        self.released: float = math.inf

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._line)

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return sum(message.rows for message in self._line)

    def add(self, messages: Iterable[Message]) -> None:
        """To the end of the line."""
        for message in messages:
            if self._bytes + message.size > self._memory_bytes:
                message.parts = []
            elif message.parts:
                self._bytes += message.size
            self._line.append(message)
            self.put += 1

    def next(self) -> Message | None:
        """The one whose turn it is, if it may go."""
        return self._line[0] if self._line and self.taken < self.released else None

    def take(self) -> Message:
        """The first one out of the line."""
        message = self._line.popleft()
        self.taken += 1
        if message.parts:
            self._bytes -= message.size
        return message
