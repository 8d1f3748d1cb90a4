"""What tests of Postgres's wing share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from market_data_store.postgres.writer import Writer


@pytest.fixture
def writer(database_url: str) -> Iterator[Writer]:
    writer = Writer(database_url)
    yield writer
    writer.close()
