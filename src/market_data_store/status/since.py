"""Since when each cause has been there, as far as is known."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from market_data_store.causes import Cause
from market_data_store.status.looks import FeedbackStatus, Looks

#: A cause that is back within these seconds was never gone: some looks are missed under load.
_BACK_S = 5.0


class Since:
    """Remembers when this process first saw each cause that is there. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: By cause: when it was first and last seen, in seconds since 1970.
        self._seen: dict[Cause, tuple[float, float]] = {}

    def note(self, causes: Iterable[Cause], now: float) -> None:
        """Note what is wrong at `now`."""
        with self._lock:
            for cause in causes:
                self._seen[cause] = (self._seen.get(cause, (now, now))[0], now)
            self._seen = {cause: seen for cause, seen in self._seen.items() if now - seen[1] <= _BACK_S}

    def of(self, cause: Cause | None, looks: Looks) -> float | None:
        """Return since when it has been there: what the feedback stream tells may be older than this process."""
        with self._lock:
            seen = self._seen.get(cause) if cause is not None else None
        if seen is None or cause is None:
            return None
        return min([seen[0], *_told(cause, looks)])


def _told(cause: Cause, looks: Looks) -> Iterable[float]:
    """When the first of the newest events was sent that give this cause as their reason, without another between."""
    events = looks.feedback.events if isinstance(looks.feedback, FeedbackStatus) else []
    for event in events:
        if event.reason != cause.value:
            return
        yield event.ts
