"""The datasets: which there are, and how one is declared."""

from market_data_store.datasets.declaration import (
    ENQUEUED_AT,
    MAX_KEY_LENGTH,
    MAX_TEXT_LENGTH,
    Dataset,
    Rule,
    metadata,
)
from market_data_store.datasets.registry import DATASETS, dataset_named

__all__ = [
    "DATASETS",
    "ENQUEUED_AT",
    "MAX_KEY_LENGTH",
    "MAX_TEXT_LENGTH",
    "Dataset",
    "Rule",
    "dataset_named",
    "metadata",
]
