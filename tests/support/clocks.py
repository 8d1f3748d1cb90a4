"""A clock for tests, in place of the module `time` of the code under test."""

from __future__ import annotations


class StandingClock:
    """Stands still until a test moves it."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now
