"""Deprecated: `connect` is `market_data_store.reads.connect` now. This module goes with version 0.6."""

from __future__ import annotations

import warnings

from market_data_store.reads import connect

__all__ = ["connect"]

warnings.warn(
    "market_data_store.schema is deprecated and goes with version 0.6; use market_data_store.reads.connect",
    DeprecationWarning,
    stacklevel=2,
)
