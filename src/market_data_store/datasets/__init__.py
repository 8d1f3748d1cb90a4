"""The datasets: which there are, and how one is declared."""

from market_data_store.datasets.catalogue import DATASETS, dataset_named
from market_data_store.datasets.declaration import (
    ENQUEUED_AT,
    MAX_KEY_LENGTH,
    MAX_TEXT_LENGTH,
    Dataset,
    Rule,
    metadata,
)

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
