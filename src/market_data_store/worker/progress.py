"""What a worker has to do and what it gets done: what `mds status` and health call stalled."""

from __future__ import annotations

import time

#: A message that went back to the broker mostly comes again within this many seconds.
_AGAIN_S = 10.0


class Progress:
    """Counts the messages and jobs of a worker. A job may take long; one that commits nothing meanwhile is stalled."""

    def __init__(self) -> None:
        #: Messages that have come, whatever became of them.
        self.received = 0
        #: When the worker's loop last turned, by the monotonic clock; None before its first turn.
        self.turned_at: float | None = None
        #: Jobs at work.
        self.jobs = 0
        self._since = 0.0
        self._changed_at = float("-inf")
        self._settled_at: float | None = None

    def turn(self) -> None:
        """The loop has turned."""
        self.turned_at = time.monotonic()

    def began(self) -> None:
        """A job has begun."""
        now = time.monotonic()
        if not self.jobs:
            if now - self._changed_at > _AGAIN_S or self._settled_at == self._changed_at:
                self._since = now
            self._changed_at = now
        self.jobs += 1

    def ended(self, *, settled: bool) -> None:
        """A job has ended; `settled` says whether any of its messages was written, kept as a letter or held."""
        now = time.monotonic()
        self.jobs -= 1
        self._changed_at = now
        if settled:
            self._since = self._settled_at = now

    @property
    def stalled_s(self) -> float:
        """Seconds since anything was settled, or since there is anything to settle; 0 without jobs."""
        return time.monotonic() - self._since if self.jobs else 0.0

    @property
    def stuck_s(self) -> float:
        """Seconds for which there are jobs and none has ended; in an outage of Postgres they end, and begin again."""
        return time.monotonic() - self._changed_at if self.jobs else 0.0

    @property
    def settled_s(self) -> float | None:
        """Seconds since anything was settled; None if nothing was."""
        return None if self._settled_at is None else time.monotonic() - self._settled_at
