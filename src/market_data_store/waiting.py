"""Full messages that the broker did not take yet, numbered in the order of writing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from market_data_store.gathering import Message


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
