"""What `from market_data_store import StoreClient` costs: a producer imports nothing that only servers need."""

from __future__ import annotations

import pytest
from support.processes import PYTHON, run

#: Imports the client, and checks a row as `write` does.
PROGRAM = """
from market_data_store import StoreClient
StoreClient
from market_data_store.datasets import DATASETS
from market_data_store.producer.encoding import check_rows, encode
row = {"provider": "p", "symbol": "S", "ts": "2024-01-02T14:30:00Z", "price": 1.5, "venue": "X"}
check_rows(DATASETS["ticks"], [row], encode([row], 0), {}, 0)
import sys
print(*sys.modules, sep="\\n")
"""
UNNEEDED = ["alembic", "celery.worker", "flask", "httpx", "pgpq", "prometheus_client", "psycopg", "pyarrow", "redis"]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    finished = run(PYTHON, "-c", PROGRAM, directory=tmp_path_factory.mktemp("import"))
    assert finished.returncode == 0, finished
    return set(finished.stdout.split())


@pytest.mark.parametrize("module", UNNEEDED)
def test_a_producer_does_not_import(module: str, imported: set[str]) -> None:
    assert "market_data_store.producer.client" in imported
    assert module not in imported
