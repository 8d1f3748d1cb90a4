"""Says that `write` waits: once at WARNING with the reason, and once when it goes on, with how long it took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

#: A shorter wait is what slows a producer down, and not worth a line.
_SHORTEST_S = 1.0
#: While waits follow one another, only the first of this many seconds is told.
_QUIET_S = 60.0


class Waits:
    """The waits of one client. A lost update between two threads costs no more than a line."""

    def __init__(self) -> None:
        self._said_at = float("-inf")

    @contextmanager
    def wait(self) -> Iterator[_Wait]:
        """Yield what is called while the caller waits, as often as it likes; the block ends with the wait."""
        wait = _Wait(self._said_at)
        try:
            yield wait
        finally:
            if wait.is_said:
                self._said_at = time.monotonic()
                logger.warning("write() no longer waits, after %.0f s", self._said_at - wait.began)


class _Wait:
    def __init__(self, said_at: float) -> None:
        self.began = time.monotonic()
        self.is_said = False
        self._is_quiet = self.began - said_at < _QUIET_S

    def __call__(self, why: Callable[[], str], *, at_once: bool = False) -> None:
        waited = at_once or time.monotonic() - self.began >= _SHORTEST_S
        if waited and not self.is_said and not self._is_quiet:
            self.is_said = True
            logger.warning("write() waits: %s", why())
