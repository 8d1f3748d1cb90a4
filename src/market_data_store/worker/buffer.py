"""The requests of one lane that wait for a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from market_data_store.worker.jobs import CoalescedTask
from market_data_store.worker.pace import Pace


class Buffer:
    """The requests of one lane, over one connection to the broker.

    Nothing waits for company while no batch of the lane is at work. Beside one, a batch goes when it has enough rows,
    or when its oldest request has waited long enough; with a `pace`, for history, it goes whenever a process is free.
    Whatever waits here is to go, or has a timer that calls `on_due`: nothing waits for the next message to arrive.
    """

    def __init__(
        self,
        task: CoalescedTask,
        call_after: Callable[[float, Callable[[], None]], object],
        on_due: Callable[[], None],
        *,
        pace: Pace | None = None,
    ) -> None:
        #: How many of its batches are at work.
        self.jobs = 0
        self.pace = pace
        self._task = task
        self._call_after = call_after
        self._when_due = on_due
        # Read once: the task takes them from the settings, and they are needed at each message.
        self._batch_rows, self._batch_messages = task.batch_rows, task.batch_messages
        self._alone: deque[Any] = deque()
        self._requests: list[tuple[Any, int]] = []
        self._rows = 0
        self._due = False
        self._timed = False

    def add(self, request: Any) -> None:
        """Let a request wait here."""
        if request.runs_alone:
            # Its last turn ended badly. In case this message was the cause, it must not affect others again.
            self._alone.append(request)
        else:
            self._requests.append((request, request.rows))
            self._rows += request.rows

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._alone or self._requests)

    @property
    def is_to_go(self) -> bool:
        """Whether what waits is a batch, if a process is free."""
        if self._alone or not self._requests:
            return bool(self._alone)
        is_full = self._rows >= self._batch_rows or len(self._requests) >= self._batch_messages
        return is_full or self._due or not self.jobs or self.pace is not None

    def take(self) -> list[Any]:
        """Take the requests of the next batch."""
        if self._alone:
            return [self._alone.popleft()]
        limit = self._batch_rows if self.pace is None else min(self.pace.rows, self._batch_rows)
        rows = end = 0
        most = min(len(self._requests), self._batch_messages)
        while end < most and rows < limit:
            following = self._requests[end][1]
            # A large message takes long, and the ones before it must not wait for it. History ends where it is nearest
            # to its limit: batches that are much shorter write fewer rows a second.
            if end and (following >= limit or (self.pace is not None and rows + following / 2 > limit)):
                break
            rows += following
            end += 1
        taken = [request for request, _ in self._requests[:end]]
        del self._requests[:end]
        self._rows -= rows
        return taken

    def rest(self) -> None:
        """See to what no process has taken; called after each change."""
        if not self._requests:
            self._due = False
        elif not self.is_to_go and not self._timed:  # new ones, and what a full batch left
            self._timed = True
            self._call_after(self._task.flush_interval_s, self._on_due)

    def _on_due(self) -> None:
        self._timed = False
        self._due = True
        self._when_due()
