"""Backpressure: reads how full the queue is, computes a level from it, and publishes the level to receivers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from market_data_core.telemetry import BackpressureLevel

    from market_data_store.coordinator.feedback import FeedbackBus, FeedbackEvent, FeedbackSubscriber, feedback_bus
    from market_data_store.coordinator.http_broadcast import HttpFeedbackBroadcaster
    from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher

__all__ = [
    "BackpressureLevel",
    "FeedbackBus",
    "FeedbackEvent",
    "FeedbackSubscriber",
    "HttpFeedbackBroadcaster",
    "RedisFeedbackPublisher",
    "feedback_bus",
]

_MODULES = {"HttpFeedbackBroadcaster": "http_broadcast", "RedisFeedbackPublisher": "redis_publisher"}


def __getattr__(name: str) -> Any:
    # On demand: a user of the bus needs neither Redis nor HTTP.
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'feedback')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
