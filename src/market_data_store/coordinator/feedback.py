"""Feedback: what is told of the queue, and how it gets to those who listen in this process.

`FeedbackEvent` is Core's, with what the store knows besides. The signals are Celery signals; whoever wants to
hear of something connects a receiver (`signal.connect(receiver, weak=False)`). An erring receiver stops no other.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol

from celery.utils.dispatch import Signal
from market_data_core.telemetry import BackpressureLevel
from market_data_core.telemetry import FeedbackEvent as CoreFeedbackEvent
from pydantic import Field

logger = logging.getLogger(__name__)

__all__ = [
    "BROKER_UNREACHABLE",
    "NO_WORKERS",
    "BackpressureLevel",
    "FeedbackBus",
    "FeedbackEvent",
    "FeedbackSubscriber",
    "feedback_bus",
]

#: Reasons of the level `hard`: the broker does not answer, ...
BROKER_UNREACHABLE = "broker_unreachable"
#: ... or messages wait and no worker consumes the queue.
NO_WORKERS = "no_workers"

#: The level changed, or is repeated for those who came later: `event` (FeedbackEvent).
backpressure_changed = Signal(name="backpressure_changed", providing_args={"event"})


class FeedbackEvent(CoreFeedbackEvent):
    """Core's event, with the reason of a level that the depth does not explain."""

    #: What Core's event bus knows it by; without it every reader would put the event into its dead-letter stream.
    __schema_id__: ClassVar[str] = "telemetry.FeedbackEvent"

    #: `BROKER_UNREACHABLE` or `NO_WORKERS`.
    reason: str | None = Field(default=None)

    @property
    def utilization(self) -> float:
        """Share of the capacity, 0 to 1 and more."""
        return float(self.queue_size / self.capacity)

    @classmethod
    def create(
        cls,
        coordinator_id: str,
        queue_size: int,
        capacity: int,
        level: BackpressureLevel | str,
        reason: str | None = None,
    ) -> FeedbackEvent:
        """An event of now."""
        return cls(
            coordinator_id=coordinator_id,
            queue_size=queue_size,
            capacity=capacity,
            level=BackpressureLevel(level),
            source="store",
            ts=time.time(),
            reason=reason,
        )


class FeedbackSubscriber(Protocol):
    """Takes an event; may be async."""

    def __call__(self, event: FeedbackEvent, /) -> Awaitable[None] | None:
        """Called once an event, in the order of subscription."""
        ...


@dataclass(frozen=True, slots=True)
class _Subscription:
    callback: FeedbackSubscriber
    #: Where an async callback runs: the loop that it was subscribed in, if any.
    loop: asyncio.AbstractEventLoop | None


class FeedbackBus:
    """Events within one process: the monitor publishes, anyone subscribes.

    An erring subscriber is logged and stops no other.
    """

    def __init__(self) -> None:
        self._subscriptions: list[_Subscription] = []
        self._lock = threading.Lock()

    @property
    def subscriber_count(self) -> int:
        """How many subscribe."""
        return len(self._subscriptions)

    def subscribe(self, callback: FeedbackSubscriber) -> None:
        """Have `callback` called with each event; a second subscription of the same changes nothing."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self._lock:
            if all(subscription.callback != callback for subscription in self._subscriptions):
                self._subscriptions = [*self._subscriptions, _Subscription(callback, loop)]

    def unsubscribe(self, callback: FeedbackSubscriber) -> None:
        """Undo `subscribe`; unknown ones are ignored."""
        with self._lock:
            self._subscriptions = [s for s in self._subscriptions if s.callback != callback]

    async def publish(self, event: FeedbackEvent) -> None:
        """Hand an event to all subscribers and wait for them, from a coroutine."""
        for subscription in self._subscriptions:
            try:
                result = subscription.callback(event)
                if inspect.isawaitable(result):
                    await result
            except Exception:  # a subscriber is somebody else's code
                logger.exception("A subscriber of the feedback bus failed")

    def send(self, event: FeedbackEvent) -> None:
        """Hand an event to all subscribers, from a thread: async ones run in the loop they were subscribed in."""
        for subscription in self._subscriptions:
            try:
                result = subscription.callback(event)
                if inspect.iscoroutine(result):
                    self._run(result, subscription.loop)
            except Exception:  # as above
                logger.exception("A subscriber of the feedback bus failed")

    def _run(self, coroutine: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        if loop is not None and loop.is_running():
            asyncio.run_coroutine_threadsafe(_logged(coroutine), loop)
        else:
            threading.Thread(target=asyncio.run, args=(_logged(coroutine),), daemon=True).start()


async def _logged(coroutine: Awaitable[None]) -> None:
    try:
        await coroutine
    except Exception:  # as above
        logger.exception("A subscriber of the feedback bus failed")


@cache
def feedback_bus() -> FeedbackBus:
    """The bus of this process; what the monitor finds out goes there too."""
    bus = FeedbackBus()

    def forward(event: FeedbackEvent, **_: Any) -> None:
        bus.send(event)

    backpressure_changed.connect(forward, weak=False)
    return bus
