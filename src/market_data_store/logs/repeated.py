"""Says a trouble that lasts: when it begins, then at growing distances with a count, and once when it is over.

Whoever tries something again and again calls `happened` at each failure and `over` at each success, and need not know
what has been said. What is not said is logged at DEBUG.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from market_data_store.causes import Cause, fields_of

#: Seconds between two lines of a trouble: the first distance, which doubles, and the longest.
FIRST_S, LONGEST_S = 30.0, 600.0
#: A trouble that is back within these seconds is the same one: what comes and goes must not be said each time.
BACK_S = 10.0
#: How many different texts of one trouble are said when they first appear.
MOST_TEXTS = 8


class Repeated:
    """One kind of trouble. Thread-safe. `first_s` is its first distance."""

    def __init__(
        self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic, *, first_s: float = FIRST_S
    ) -> None:
        self._first_s = first_s
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._began_at: float | None = None
        self._over_at = float("-inf")
        self._is_said = False
        self._texts: set[str] = set()
        self._distance_s = first_s
        self._said_at = 0.0
        self._unsaid = 0
        self._times = 0
        self._cause: Cause | None = None

    @property
    def is_on(self) -> bool:
        """Whether it has begun and is not over."""
        return self._began_at is not None

    def happened(
        self,
        text: str,
        *,
        kind: str = "",
        level: int = logging.WARNING,
        event: str = "trouble",
        cause: Cause | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Note that it happened, and say so if it is time; `kind` is what of the text makes it another text.

        `cause` names what is wrong, and where its remedy is described. `error` is a bug: its traceback is logged with
        the first line.
        """
        with self._lock:
            self._cause = cause
            now = self._clock()
            if self._began_at is None:
                self._began_at, self._times = now, 0
                if now - self._over_at >= BACK_S:
                    self._texts.clear()
                    self._distance_s, self._unsaid = self._first_s, 0
            self._times += 1
            is_new = (kind or text) not in self._texts and len(self._texts) < MOST_TEXTS
            if is_new:
                self._texts.add(kind or text)
                fields: dict[str, object] = {"event": event}
                if len(self._texts) == 1:
                    self._said_at = now
            elif now - self._said_at >= self._distance_s:
                passed_s = now - self._said_at
                times = self._unsaid + 1
                text = f"{text} (again {times} {'times' if times > 1 else 'time'} in {passed_s:.0f} s)"
                fields = {"event": f"{event}_lasts", "times": times, "lasts_s": round(now - self._began_at, 1)}
                self._said_at, self._unsaid = now, 0
                self._distance_s = min(2 * self._distance_s, LONGEST_S)
            else:
                self._unsaid += 1
                level, fields = logging.DEBUG, {}
            if cause is not None and fields:
                fields |= fields_of(cause)
            self._is_said = self._is_said or level > logging.DEBUG
        self._logger.log(level, "%s", text, extra=fields, exc_info=error if is_new else None)

    def over(self, text: str, *, level: int = logging.WARNING) -> None:
        """Note that it works, and say so with the length of the trouble, if that was said."""
        with self._lock:
            if self._began_at is None:
                return
            now = self._clock()
            lasted_s, self._began_at, self._over_at = now - self._began_at, None, now
            is_said, self._is_said = self._is_said, False
            if not is_said:
                return
            fields: dict[str, object] = {"event": "trouble_over", "times": self._times, "lasted_s": round(lasted_s, 1)}
            if self._cause is not None:
                fields["cause"] = self._cause.value
        self._logger.log(level, "%s, after %.0f s", text, lasted_s, extra=fields)
