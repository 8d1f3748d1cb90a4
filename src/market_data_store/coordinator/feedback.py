"""Feedback: the event that says how full the queue is, and its distribution within a process.

`FeedbackEvent` extends Core's event. `backpressure_changed` is a Celery signal: to get events, connect a receiver
(`backpressure_changed.connect(receiver, weak=False)`). A receiver that fails stops no other. The signal has the events
of both lanes, by `coordinator_id`, the name of the queue; everything else has those of live rows alone, because
programs that listen there apply every event.
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

from market_data_store.protocol import BACKFILL_QUEUE

logger = logging.getLogger(__name__)

__all__ = [
    "BROKER_UNREACHABLE",
    "DATABASE_FULL",
    "DATASET_HELD",
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
#: The reason of an event while the messages that wait for datasets whose tables take no row fill their capacity.
DATASET_HELD = "dataset_held"
#: The reason of an event while the database is nearly at its quota, or its disk nearly full.
DATABASE_FULL = "database_full"

#: Sent when the level changes, and repeated for receivers that have joined since. Its argument is `event`, a
#: `FeedbackEvent`.
backpressure_changed = Signal(name="backpressure_changed", providing_args={"event"})


class FeedbackEvent(CoreFeedbackEvent):
    """Core's event, with the reason for a level that the depth does not explain."""

    #: Core's event bus knows the event by this id. Without it every reader would put it into its dead-letter stream.
    __schema_id__: ClassVar[str] = "telemetry.FeedbackEvent"

    #: `BROKER_UNREACHABLE`, `NO_WORKERS`, `DATABASE_FULL` or `DATASET_HELD`.
    reason: str | None = Field(default=None)

    @property
    def utilization(self) -> float:
        """Share of the capacity: 0 is empty, 1 is full, and it may be more than 1."""
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
        """Make an event with the current time."""
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
        """Handle an event. The bus calls its subscribers once per event, in the order of subscription."""
        ...


@dataclass(frozen=True, slots=True)
class _Subscription:
    callback: FeedbackSubscriber
    #: The loop in which an async callback runs: the one that it was subscribed in, if any.
    loop: asyncio.AbstractEventLoop | None


class FeedbackBus:
    """Distributes events of live rows within one process: the monitor publishes, and anyone may subscribe.

    The error of a subscriber is logged and stops no other. Subscribing is thread-safe.
    """

    def __init__(self) -> None:
        self._subscriptions: list[_Subscription] = []
        self._lock = threading.Lock()

    @property
    def subscriber_count(self) -> int:
        """Number of subscribers."""
        return len(self._subscriptions)

    def subscribe(self, callback: FeedbackSubscriber) -> None:
        """Call `callback` with each event from now on; subscribing it again changes nothing."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self._lock:
            if all(subscription.callback != callback for subscription in self._subscriptions):
                self._subscriptions = [*self._subscriptions, _Subscription(callback, loop)]

    def unsubscribe(self, callback: FeedbackSubscriber) -> None:
        """Stop calling `callback`; does nothing if it is not subscribed."""
        with self._lock:
            self._subscriptions = [s for s in self._subscriptions if s.callback != callback]

    async def publish(self, event: FeedbackEvent) -> None:
        """Call all subscribers with an event and wait for them, in a coroutine."""
        for subscription in self._subscriptions:
            try:
                result = subscription.callback(event)
                if inspect.isawaitable(result):
                    await result
            except Exception:  # a subscriber is somebody else's code
                logger.exception("A subscriber of the feedback bus failed")

    def send(self, event: FeedbackEvent) -> None:
        """Call all subscribers with an event, in a thread; async ones run in the loop that they were subscribed in."""
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
    """Return the bus of this process, which also gets the events of a monitor in this process, of live rows."""
    bus = FeedbackBus()

    def forward(event: FeedbackEvent, **_: Any) -> None:
        if event.coordinator_id != BACKFILL_QUEUE:
            bus.send(event)

    backpressure_changed.connect(forward, weak=False)
    return bus
