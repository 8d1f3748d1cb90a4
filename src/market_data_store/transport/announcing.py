"""Tells Flower of each message that is sent, where the broker lets this user.

Celery keeps each event that cannot be sent, to send it later, but a producer never does: its memory would grow.
"""

from __future__ import annotations

import logging
from typing import Any

from amqp.exceptions import AccessRefused

logger = logging.getLogger(__name__)


class Announcer:
    """In place of Celery's dispatcher of `task-sent`; made of one that raises what the broker raises."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self._is_refused = False

    def publish(self, *event: Any, **options: Any) -> None:
        """Send an event; one that cannot be sent is dropped, and after a refusal no other is tried."""
        if self._is_refused:
            return
        try:
            self._dispatcher.publish(*event, **options)
        except Exception as error:  # noqa: BLE001  # the message is sent, which is what counts
            self._is_refused = _is_refusal(error)
            logger.debug("Flower does not hear of messages that are sent (%s)", type(error).__name__)


def _is_refusal(error: Exception) -> bool:
    # By its name: the driver of Redis may not be installed.
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    return isinstance(error, AccessRefused) or "redis.exceptions.NoPermissionError" in kinds
