"""What a worker says of a broker that is away or takes no writes: one line when it begins, one when it is over.

Celery logs each try, several with a traceback, and takes a Redis that refuses writes for a connection that is lost, so
that it tries again at once and without end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from market_data_store.causes import Cause
from market_data_store.connections.names import refused_for_number
from market_data_store.coordinator.write_probe import refusal_in
from market_data_store.logs.repeated import Repeated

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
        self._away = Repeated(logger, clock)
        self._unsettled = Repeated(logger, clock)
        self._pause_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether it has begun and is not over."""
        return self._away.is_on

    def failed(self, error: BaseException) -> float:
        """Note a connection that is lost or could not be made; returns for how many seconds to wait."""
        reason = said_of(error)
        cause = Cause.BROKER_DOWN if refusal_in(error) is None else Cause.BROKER_TAKES_NO_WRITE
        self._away.happened(f"{reason}; waiting", kind=reason.partition(":")[0], cause=cause)
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, 2 * self._pause_s or FIRST_PAUSE_S)
        return pause_s

    def critical(self, text: str, *values: object, **_: object) -> None:
        """Take what kombu says of a message that cannot be acknowledged, and say it once."""
        self._unsettled.happened("Messages cannot be acknowledged on a lost connection; they will be redelivered")
        logger.debug(text, *values)

    def over(self) -> None:
        """Note that the broker works."""
        self._away.over("The broker works again")
        self._unsettled.over("Messages are acknowledged again")
        self._pause_s = 0.0


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
