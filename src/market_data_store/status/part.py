"""One part of the store as the sampler sees it: the thread that looks at it repeatedly, and its newest look."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from market_data_store.causes import Cause
from market_data_store.logs.repeated import Repeated
from market_data_store.status.history import INTERVAL_S
from market_data_store.status.looks import Away, QueueStatus

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds after which a look counts as unanswered. A request waits at most this long.
DEADLINE_S = 1.6
#: What it means if a part does not answer.
_CAUSES = {
    "database": Cause.DATABASE_DOWN,
    "queue": Cause.BROKER_DOWN,
    "feedback": Cause.FEEDBACK_NOT_DELIVERED,
}


class Part(Generic[T]):
    """One part of the store: the thread that looks at it repeatedly, and its newest look."""

    def __init__(
        self,
        name: str,
        look: Callable[[], T | Away],
        *,
        interval_s: float = INTERVAL_S,
        deadline_s: float = DEADLINE_S,
        after: Callable[[], None] | None = None,
        log: bool,
    ) -> None:
        self._name = name
        self._look = look
        self._interval_s = interval_s
        self._after = after or (lambda: None)
        self._log = log
        self._trouble, self._refused, self._failed = Repeated(logger), Repeated(logger), Repeated(logger)
        self._found: tuple[float, T | Away] | None = None
        self._first = threading.Event()
        self.deadline_s = deadline_s
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"status-{name}", daemon=True)

    @property
    def has_looked(self) -> bool:
        """Whether the first look has ended."""
        return self._first.is_set()

    def wait_for_first(self, until: float) -> None:
        """Wait for the end of the first look, at most until `until` (monotonic seconds)."""
        self._first.wait(max(0.0, until - time.monotonic()))

    def value(self) -> T | Away:
        """Return the newest look's result; `Away` if the next look is overdue by more than the deadline."""
        found = self._found
        if found is None:
            return Away(f"no answer within {DEADLINE_S:g} s")
        if time.monotonic() - found[0] > self._interval_s + self.deadline_s:
            return Away(f"no answer within {self.deadline_s:g} s")
        return found[1]

    def age_s(self) -> float | None:
        """Return the seconds since the last look ended."""
        return None if self._found is None else time.monotonic() - self._found[0]

    def _run(self) -> None:
        while not self.stop.is_set():
            started = time.monotonic()
            try:
                value = self._look()
            except Exception as error:  # noqa: BLE001  # the edge of a thread: the other parts continue
                value = Away(f"the state of the {self._name} could not be read ({type(error).__name__})")
                self._failed.happened(f"Could not read the state of the {self._name}", error=error)
            else:
                self._failed.over(f"The state of the {self._name} can be read")
            self._found = time.monotonic(), value
            self._first.set()
            self._say(value)
            self._say_refusal(value)
            self._after()
            self.stop.wait(max(0.0, self._interval_s - (time.monotonic() - started)))

    def _say(self, value: T | Away) -> None:
        """Note whether the part answers, or why it does not."""
        if not isinstance(value, Away):
            self._trouble.over(f"The {self._name} answers again")
        elif self._log:
            text = f"{value.error}{value.reason and ': '}{value.reason}"
            self._trouble.happened(text, kind="away", cause=_CAUSES.get(self._name))

    def _say_refusal(self, value: T | Away) -> None:
        """Note whether the broker refuses writes."""
        if not self._log or not isinstance(value, QueueStatus):
            return
        if value.refusal:
            self._refused.happened(f"The broker takes no write: {value.refusal}", cause=Cause.BROKER_TAKES_NO_WRITE)
        else:
            self._refused.over("The broker takes writes again")
