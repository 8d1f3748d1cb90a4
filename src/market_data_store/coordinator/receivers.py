"""The configured receivers of feedback, each behind its own `Delivery`.

The mailbox of a `Delivery` has place for one event. So no receiver is of two lanes: the event of one would replace that
of the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from redis.exceptions import RedisError

from market_data_store.config import Settings
from market_data_store.coordinator.delivery import Delivery
from market_data_store.coordinator.feedback import FeedbackEvent, backpressure_changed, feedback_bus
from market_data_store.coordinator.http_broadcast import HttpFeedbackBroadcaster
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.protocol import BACKFILL_QUEUE

logger = logging.getLogger(__name__)


#: Sends events to one place outside of this process.
Receiver = RedisFeedbackPublisher | HttpFeedbackBroadcaster


def receivers_of(settings: Settings) -> dict[str, Receiver]:
    """Return the configured receivers of live rows' events by name; the caller must close them."""
    receivers: dict[str, Receiver] = {}
    if settings.feedback_url and settings.pulse_enabled:
        receivers["redis"] = RedisFeedbackPublisher(
            settings.feedback_url, namespace=settings.namespace, track=settings.schema_track
        )
    if settings.http_broadcast and settings.http_endpoint:
        receivers["http"] = HttpFeedbackBroadcaster(
            settings.http_endpoint,
            timeout_s=settings.http_timeout_s,
            max_retries=settings.http_max_retries,
            backoff_s=settings.http_backoff_s,
        )
    return receivers


def backfill_receivers_of(settings: Settings) -> dict[str, Receiver]:
    """Return the configured receivers of the events of the backfill lane; the caller must close them."""
    if not (settings.feedback_url and settings.pulse_enabled):
        return {}
    stream = RedisFeedbackPublisher(
        settings.feedback_url, namespace=settings.namespace, track=settings.schema_track, queue=BACKFILL_QUEUE
    )
    return {"redis-backfill": stream}


@contextmanager
def connected(settings: Settings, on_outcome: Callable[[str, bool], None] | None = None) -> Iterator[list[str]]:
    """Connect the receivers to `backpressure_changed`; yields their names. `on_outcome` is `Delivery`'s."""
    live, backfill = receivers_of(settings), backfill_receivers_of(settings)
    receivers = live | backfill

    def tell(receiver: str, delivered: bool) -> None:
        if on_outcome is not None:
            on_outcome(receiver, delivered)
        if isinstance(redis, RedisFeedbackPublisher):
            with suppress(RedisError):
                redis.report(receiver, "delivered" if delivered else "failed")

    redis = receivers.get("redis")
    if isinstance(redis, RedisFeedbackPublisher):
        with suppress(RedisError):
            redis.forget_reported()
    feedback_bus()  # creating the bus connects it
    with ExitStack() as stack:
        _connect(_log, stack)
        for name, receiver in receivers.items():
            stack.callback(receiver.close)
            delivery = Delivery(name, receiver.send, tell)
            stack.callback(delivery.stop)
            _connect(_of_lane(delivery.put, is_backfill=name in backfill), stack)
        yield ["log", *receivers]


def _of_lane(take: Callable[[FeedbackEvent], None], *, is_backfill: bool) -> Callable[[FeedbackEvent], None]:
    """Let only the events of the backfill lane through, or only the others."""

    def take_own(event: FeedbackEvent) -> None:
        if (event.coordinator_id == BACKFILL_QUEUE) == is_backfill:
            take(event)

    return take_own


def _connect(take: Callable[[FeedbackEvent], None], stack: ExitStack) -> None:
    def receiver(event: FeedbackEvent, **_: Any) -> None:
        take(event)

    backpressure_changed.connect(receiver, weak=False)
    stack.callback(backpressure_changed.disconnect, receiver)


_logged: dict[str, Any] = {}


def _log(event: FeedbackEvent) -> None:
    """Log a line for each change, and none for a heartbeat."""
    state = (event.level, event.reason)
    if _logged.get(event.coordinator_id) != state:
        _logged[event.coordinator_id] = state
        logger.info(
            "%s: level %s%s, %d of %d messages (%.0f %%)",
            event.coordinator_id,
            event.level.value,
            f" ({event.reason})" if event.reason else "",
            event.queue_size,
            event.capacity,
            event.utilization * 100,
        )
