"""What a producer is told of the database, which it does not ask itself: whether it has no room left for long.

The monitor says so in the events of each lane, which are in a stream of Redis. Without one, without the right to read
it, and while no event is fresh, it is not known, and nothing waits for it.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Self

from market_data_store.config import settings
from market_data_store.coordinator.feedback import DATABASE_FULL

logger = logging.getLogger(__name__)

#: Seconds that Redis may take to answer, and after which it is asked again if it did not.
_TIMEOUT_S, _AGAIN_S = 0.5, 30.0
#: An event that is older than so many heartbeats says nothing of now.
_FRESH_HEARTBEATS = 3


class Told:
    """Reads the newest event of a queue's lane. For one thread at a time."""

    def __init__(self, url: str, queue: str, *, namespace: str = "mdp", heartbeat_s: float = 10.0) -> None:
        self._url, self._queue = url, queue
        self._namespace, self._heartbeat_s = namespace, heartbeat_s
        self._stream: Any = None
        self._ask_at = float("-inf") if url else float("inf")

    @classmethod
    def of(cls, queue: str) -> Self:
        """Make the one of the settings."""
        given = settings()
        url = given.feedback_url if given.pulse_enabled else ""
        return cls(url, queue, namespace=given.namespace, heartbeat_s=given.feedback_heartbeat_s)

    def is_database_full(self) -> bool:
        """Return whether the newest event says so; False if that is not known."""
        if time.monotonic() < self._ask_at:
            return False
        # Here, because a producer without a Redis has no use for its driver and for Core's codecs.
        from redis.exceptions import NoPermissionError, RedisError

        try:
            event = self._newest()
        except NoPermissionError as error:
            self._ask_at = float("inf")
            logger.debug("The events of %s cannot be read: %s", self._queue, error)
            return False
        except (RedisError, OSError) as error:
            self._ask_at = time.monotonic() + _AGAIN_S
            logger.debug("The events of %s cannot be read now: %s", self._queue, error)
            return False
        is_fresh = event is not None and abs(time.time() - event.ts) <= _FRESH_HEARTBEATS * self._heartbeat_s
        return is_fresh and event.reason == DATABASE_FULL

    def close(self) -> None:
        """Give the connection back; whoever asks afterwards is told of nothing."""
        self._ask_at = float("inf")
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _newest(self) -> Any:
        if self._stream is None:
            from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher

            self._stream = RedisFeedbackPublisher(
                self._url, namespace=self._namespace, timeout_s=_TIMEOUT_S, queue=self._queue
            )
        return self._stream.last()
