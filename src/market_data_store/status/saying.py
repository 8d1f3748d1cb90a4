"""Says in the log what is wrong with the store, and when it is over, as far as no look says so itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from market_data_store.causes import Cause
from market_data_store.logs.repeated import Repeated
from market_data_store.status.headline import Found

logger = logging.getLogger(__name__)

#: What the looks at the parts say, with the words of the driver.
_SAID_BY_LOOKS = {Cause.BROKER_DOWN, Cause.BROKER_TAKES_NO_WRITE, Cause.DATABASE_DOWN}
#: These are said when they have lasted so many seconds: while processes start, each misses the others.
_MISSED = {Cause.NO_WORKERS, Cause.NO_MONITOR, Cause.FEEDBACK_NOT_DELIVERED, Cause.WORKERS_IN_TROUBLE}
_LASTS_S = 8.0


class Saying:
    """Says each cause when it begins, less and less often while it lasts, and once when it is over. Not thread-safe."""

    def __init__(self) -> None:
        self._said: dict[Cause, Repeated] = {}
        #: When each cause that is there was first noted, by the clock of the caller.
        self._began: dict[Cause, float] = {}

    def note(self, found: Iterable[Found], now: float) -> None:
        """Note all that is wrong at `now`, in seconds."""
        found = [*found]
        there = {each.cause: each for each in reversed(found) if each.cause not in _SAID_BY_LOOKS}
        self._began = {cause: self._began.get(cause, now) for cause in there}
        is_critical = any(each.severity == "critical" for each in found)  # then warnings mostly follow from it
        for cause, each in there.items():
            is_sure = cause not in _MISSED or now - self._began[cause] >= _LASTS_S
            if each.severity == "critical" or (is_sure and not is_critical):
                said = self._said.setdefault(cause, Repeated(logger))
                said.happened(each.text, kind=cause, cause=cause)
        for cause in self._said.keys() - there.keys():
            self._said[cause].over(f"Over: {cause.value.replace('_', ' ')}")
