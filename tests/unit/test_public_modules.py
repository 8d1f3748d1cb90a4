"""The modules whose paths are promised to users can be imported, and hold what is promised."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

import market_data_store
from market_data_store import errors

_PROMISED = {
    "market_data_store": ("StoreClient", "AsyncStoreClient", "FeedbackBus", "StoreSink", "Backpressure", "InvalidRow"),
    "market_data_store.app": ("app",),
    "market_data_store.store_client": ("AsyncStoreClient",),
    "market_data_store.coordinator": (
        "BackpressureLevel",
        "FeedbackBus",
        "FeedbackEvent",
        "FeedbackSubscriber",
        "HttpFeedbackBroadcaster",
        "RedisFeedbackPublisher",
        "feedback_bus",
    ),
    "market_data_store.coordinator.feedback": ("FeedbackBus", "FeedbackEvent", "backpressure_changed", "feedback_bus"),
    "market_data_store.coordinator.queue": ("QueueInspector",),
    "market_data_store.coordinator.http_broadcast": ("HttpFeedbackBroadcaster",),
    "market_data_store.coordinator.redis_publisher": ("RedisFeedbackPublisher",),
    "market_data_store.job_tracking": ("JobRunTracker", "ENDS", "STATUSES"),
    "market_data_store.reads": ("bars", "connect", "latest_prices", "ticks"),
    "market_data_store.service.app": ("create_app",),
}


@pytest.mark.parametrize(("module", "names"), _PROMISED.items())
def test_a_promised_module_holds_what_is_promised(module: str, names: tuple[str, ...]) -> None:
    found = import_module(module)
    assert [name for name in names if not hasattr(found, name)] == []


def test_gunicorn_finds_its_configuration() -> None:
    # Not imported: it makes the metrics of its process shared.
    assert find_spec("market_data_store.service.gunicorn_conf") is not None


@pytest.mark.parametrize(("module", "name"), [("schema", "connect"), ("sink", "StoreSink")])
def test_what_has_moved_warns_and_works(module: str, name: str) -> None:
    sys.modules.pop(f"market_data_store.{module}", None)
    with pytest.warns(DeprecationWarning, match="will be removed in version 0.6"):
        moved = import_module(f"market_data_store.{module}")
    assert hasattr(moved, name)


def test_the_public_names_are_listed_and_found() -> None:
    assert set(market_data_store.__all__) <= set(dir(market_data_store))
    assert [name for name in market_data_store.__all__ if not hasattr(market_data_store, name)] == []
    raised = {name for name, error in vars(errors).items() if isinstance(error, type) and issubclass(error, Exception)}
    assert raised <= set(market_data_store.__all__)
