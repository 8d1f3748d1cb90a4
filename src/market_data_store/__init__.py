"""market-data-store: batched, idempotent, lossless writes of market data to Postgres, by way of Celery."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from market_data_store.coordinator.feedback import FeedbackBus
    from market_data_store.producer.client import StoreClient
    from market_data_store.store_client import AsyncStoreClient

# What a library logs is for its user to show, or not.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = ["AsyncStoreClient", "FeedbackBus", "StoreClient"]

_MODULES = {"AsyncStoreClient": "store_client", "FeedbackBus": "coordinator.feedback", "StoreClient": "producer.client"}


def __getattr__(name: str) -> Any:
    # Imported on demand: the client needs a configuration, `mds --help` and the floors below it do not.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
