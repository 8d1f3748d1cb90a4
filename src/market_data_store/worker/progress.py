"""How long a worker has had messages at work without settling any: what `mds status` and health call stalled."""

from __future__ import annotations

import time


class Progress:
    """Counts the jobs of a worker. A job may take this long; a worker that settles nothing meanwhile is stalled."""

    def __init__(self) -> None:
        self._jobs = 0
        self._since = 0.0

    def began(self) -> None:
        """A job has begun."""
        if not self._jobs:
            self._since = time.monotonic()
        self._jobs += 1

    def ended(self, *, settled: bool) -> None:
        """A job has ended; `settled` says whether the rows or the letter of any of its messages were committed."""
        self._jobs -= 1
        if settled:
            self._since = time.monotonic()

    @property
    def stalled_s(self) -> float:
        """Seconds since the last commit, or since there is anything to commit; 0 without jobs."""
        return time.monotonic() - self._since if self._jobs else 0.0
