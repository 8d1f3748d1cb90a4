"""What a worker says of a broker that is away or takes no writes: one line when it begins, one when it is over.

Celery logs each try, several with a traceback, and takes a Redis that refuses writes for a connection that is lost, so
that it tries again at once and without end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from market_data_store.connections.names import refused_for_number
from market_data_store.coordinator.write_probe import refusal_in

logger = logging.getLogger(__name__)

#: Celery's logger that speaks of lost connections.
CELERY_LOGGER = "celery.worker.consumer.consumer"
#: Seconds between two tries: the first pause, and the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
#: A connection that is lost again within these seconds has not ended the outage.
SETTLED_S = 3.0
#: How a Redis that takes no writes is called.
_NAMES = {
    "READONLY": "Redis is read-only",
    "OOM": "Redis is full (maxmemory)",
    "MISCONF": "Redis cannot save, and takes no writes",
    "NOREPLICAS": "Redis has too few replicas to take writes",
}


class Outage:
    """Knows whether the broker is away, since when, and what has been said of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_at: float | None = None
        self._said: set[str] = set()
        self._pause_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether it has begun and is not over."""
        return self._began_at is not None

    def failed(self, error: BaseException) -> float:
        """Note a connection that is lost or could not be made; returns for how many seconds to wait."""
        if self._began_at is None:
            self._began_at = self._clock()
        reason = said_of(error)
        kind = reason.partition(":")[0]
        if kind not in self._said:
            self._said.add(kind)
            logger.warning("%s; waiting", reason)
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, 2 * self._pause_s or FIRST_PAUSE_S)
        return pause_s

    def critical(self, text: str, *values: object, **_: object) -> None:
        """Take what kombu says of a message that cannot be acknowledged, and say it once."""
        if "acknowledge" not in self._said:
            self._said.add("acknowledge")
            logger.warning("Messages cannot be acknowledged on a lost connection; they will be redelivered")
        logger.debug(text, *values)

    def over(self) -> None:
        """Note that the broker works."""
        if self._began_at is not None:
            logger.warning("The broker works again, after %.0f s", self._clock() - self._began_at)
        self._began_at, self._pause_s = None, 0.0
        self._said.clear()


def said_of(error: BaseException) -> str:
    """What is wrong with the broker, in one line, by the error that it caused."""
    full = refused_for_number(error)
    if full is not None:
        return full
    refusal = refusal_in(error)
    if refusal is not None:
        code = refusal.partition(" ")[0]
        return _NAMES.get(code, f"Redis refuses: {refusal}")
    text = str(error).partition("\n")[0]
    return f"The broker does not answer: {text.rstrip('.') or type(error).__name__}"


@contextmanager
def unsaid(*names: str) -> Iterator[None]:
    """Keep these loggers from saying anything in this block."""
    loggers = [logging.getLogger(name) for name in names]
    were = [each.disabled for each in loggers]
    for each in loggers:
        each.disabled = True
    try:
        yield
    finally:
        for each, was in zip(loggers, were, strict=True):
            each.disabled = was
