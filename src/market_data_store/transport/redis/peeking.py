"""Whether a server may be asked to wait for a message (BLMOVE), and what is said when it refuses."""

from __future__ import annotations

import logging
from time import monotonic

from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from market_data_store.causes import Cause, fields_of

logger = logging.getLogger(__name__)

#: Lists are polled after this many seconds where the server does not wait for them.
LOOK_S = 0.1
#: A server that refused BLMOVE (by its rules, or because it is full) is asked again after this many seconds.
_RETRY_S = 10.0


class Peeking:
    """What is known of one server."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self._has_said = False

    @property
    def may_peek(self) -> bool:
        """Whether to ask the server to wait."""
        return monotonic() >= self._not_before

    def accepted(self) -> None:
        """Note that it has waited."""
        self._has_said = False

    def refused(self, error: ResponseError) -> None:
        """Note that it refused; says once why it is polled."""
        if isinstance(error, ReadOnlyError) or str(error).startswith("UNBLOCKED "):  # its code; redis-py has no class
            return  # it has become a replica: it refuses the script, too, and the connection ends
        self._not_before = monotonic() + _RETRY_S
        if self._has_said:
            return
        self._has_said = True
        if isinstance(error, OutOfMemoryError):
            text = "Redis is full (maxmemory): it takes no message; those that it has are written"
            logger.warning(text, extra=fields_of(Cause.BROKER_TAKES_NO_WRITE))
        else:
            logger.warning("Redis refuses BLMOVE (%s): polling every %g s instead", error, LOOK_S)
