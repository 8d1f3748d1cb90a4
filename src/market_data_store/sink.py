"""Deprecated: `StoreSink` is `market_data_store.StoreSink` now. This module goes with version 0.6."""

from __future__ import annotations

import warnings

from market_data_store.producer.sink import StoreSink

__all__ = ["StoreSink"]

warnings.warn(
    "market_data_store.sink is deprecated and goes with version 0.6; use market_data_store.StoreSink",
    DeprecationWarning,
    stacklevel=2,
)
