"""Deprecated: use `market_data_store.StoreSink`. This module will be removed in version 0.6."""

from __future__ import annotations

import warnings

from market_data_store.producer.sink import StoreSink

__all__ = ["StoreSink"]

warnings.warn(
    "market_data_store.sink is deprecated and will be removed in version 0.6; use market_data_store.StoreSink",
    DeprecationWarning,
    stacklevel=2,
)
