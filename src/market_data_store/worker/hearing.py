"""Whether a worker hears: messages wait in its queues, it has room for them, and none comes. Pure: no clock, no server.

After lost connections, workers have been left that live, answer questions and get no message any more (celery #8030,
#8091, #10205).
"""

from __future__ import annotations

from typing import NamedTuple

#: Looks that are further apart say nothing of the time between: the process was stopped, or the machine slept.
_APART_S = 20.0


class Look(NamedTuple):
    """What a worker saw at one moment."""

    #: In seconds, by the monotonic clock.
    at: float
    #: Messages that wait in the queues that it consumes; 0 as well if the broker does not answer, or does not let them
    #: be taken.
    waiting: int
    #: Whether the worker is to consume a queue, and has neither a message nor a job.
    is_free: bool
    #: Messages that it has received since its start.
    received: int


class Hearing:
    """Follows a worker by its looks."""

    def __init__(self) -> None:
        self._last: Look | None = None
        self._since: float | None = None

    @property
    def deaf_s(self) -> float:
        """For how many seconds before the last look messages waited for a worker that was free, and none came."""
        return 0.0 if self._since is None or self._last is None else self._last.at - self._since

    def note(self, look: Look) -> None:
        """Follow the next look."""
        last, self._last = self._last, look
        if not (look.waiting and look.is_free):
            self._since = None
        elif last is None or last.received != look.received or look.at - last.at > _APART_S or self._since is None:
            self._since = look.at
