"""Broadcasts over Redis, to which anybody can publish anything."""

from __future__ import annotations

import logging
from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import redis

logger = logging.getLogger(__name__)

#: At most one line in so many seconds says that broadcasts are malformed.
_SAID_EVERY_S = 60.0


class ListeningChannel(redis.Channel):
    """A channel that drops what it hears and cannot read."""

    _said_at = float("-inf")

    def _receive_one(self, c: Any) -> Any:
        """Receive a broadcast; one that is malformed is dropped."""
        try:
            return super()._receive_one(c)
        except Empty:
            raise
        except Exception as error:
            if self._in_listen is None:  # the connection is lost
                raise
            self._dropped(error)
            raise Empty from None

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        try:
            return bool(super()._deliver_fanout_message(message, exchange))
        except Exception as error:  # noqa: BLE001  # anybody can publish to the channel
            self._dropped(error)
            return False

    def _dropped(self, error: Exception) -> None:
        if monotonic() - self._said_at > _SAID_EVERY_S:
            self._said_at = monotonic()
            logger.warning("A broadcast is malformed (%s) and was dropped", type(error).__name__)
