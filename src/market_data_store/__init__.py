"""market-data-store: batched, idempotent, lossless writes of market data to Postgres, through Celery.

Public names are imported when they are first used, so that `import market_data_store` costs nothing.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from market_data_store.coordinator.feedback import FeedbackBus
    from market_data_store.errors import (
        ArchiveFailed,
        Backpressure,
        BrokerUnavailable,
        ConfigurationError,
        DatabaseUnavailable,
        DatasetUnavailable,
        InvalidJobRun,
        InvalidMessage,
        InvalidRead,
        InvalidRow,
        LettersUnavailable,
        MarketDataStoreError,
        MessagesSuspected,
        MigrationFailed,
        PartitionsMissing,
        ServerStartError,
        SpoolFull,
        SpoolInUse,
        SpoolUnavailable,
    )
    from market_data_store.producer.client import StoreClient
    from market_data_store.producer.sink import StoreSink
    from market_data_store.store_client import AsyncStoreClient

# The user of a library decides whether its log is shown.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "ArchiveFailed",
    "AsyncStoreClient",
    "Backpressure",
    "BrokerUnavailable",
    "ConfigurationError",
    "DatabaseUnavailable",
    "DatasetUnavailable",
    "FeedbackBus",
    "InvalidJobRun",
    "InvalidMessage",
    "InvalidRead",
    "InvalidRow",
    "LettersUnavailable",
    "MarketDataStoreError",
    "MessagesSuspected",
    "MigrationFailed",
    "PartitionsMissing",
    "ServerStartError",
    "SpoolFull",
    "SpoolInUse",
    "SpoolUnavailable",
    "StoreClient",
    "StoreSink",
]

_MODULES = {
    "AsyncStoreClient": "store_client",
    "FeedbackBus": "coordinator.feedback",
    "StoreClient": "producer.client",
    "StoreSink": "producer.sink",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
