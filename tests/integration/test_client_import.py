"""What `from market_data_store import StoreClient` costs: a producer imports nothing that only servers need."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = "from market_data_store import StoreClient; import sys; print(*sys.modules, sep='\\n')"
UNNEEDED = ["alembic", "celery.worker", "flask", "httpx", "prometheus_client", "psycopg", "pyarrow", "redis"]


@pytest.fixture(scope="module")
def imported() -> set[str]:
    finished = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return set(finished.stdout.split())


@pytest.mark.parametrize("module", UNNEEDED)
def test_a_producer_does_not_import(module: str, imported: set[str]) -> None:
    assert "market_data_store.producer.client" in imported
    assert module not in imported
