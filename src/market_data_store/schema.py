"""Deprecated: use `market_data_store.reads.connect`. This module will be removed in version 0.6."""

from __future__ import annotations

import warnings

from market_data_store.reads import connect

__all__ = ["connect"]

warnings.warn(
    "market_data_store.schema is deprecated and will be removed in version 0.6; use market_data_store.reads.connect",
    DeprecationWarning,
    stacklevel=2,
)
