"""The columns that migrations added for unknown fields, as this process knows them: it looks every ten seconds."""

from __future__ import annotations

import time

from market_data_store.datasets import Dataset
from market_data_store.postgres.added_columns import Added, evolved
from market_data_store.worker.retrying import persistently, process_writer

#: Seconds between two looks. A worker that does not know a column yet keeps its field in `metadata`.
_INTERVAL_S = 10.0

_added: Added = {}
_due_at = float("-inf")


def look() -> None:
    """Ask Postgres, if that was not just done; raises `DatabaseUnavailable`."""
    global _added, _due_at  # one for the process
    if time.monotonic() >= _due_at:
        _added = persistently(lambda: process_writer().added_columns())
        _due_at = time.monotonic() + _INTERVAL_S


def known_of(dataset: Dataset) -> Dataset:
    """Return the dataset with its added columns, as far as this process knows them."""
    return evolved(dataset, _added) if _added else dataset
