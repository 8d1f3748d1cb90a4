"""Tables with partitions, as the setting asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from market_data_store.config import settings
from market_data_store.datasets import DATASETS


@contextmanager
def partitions(monkeypatch: pytest.MonkeyPatch, given: str = "bars=month") -> Iterator[None]:
    """Set MDS_PARTITIONS for this process during the block."""
    monkeypatch.setenv("MDS_PARTITIONS", given)
    forget()
    yield
    monkeypatch.delenv("MDS_PARTITIONS")
    forget()


def forget() -> None:
    """Read the settings again."""
    settings.cache_clear()
    DATASETS.forget()
