"""What `from market_data_store import StoreClient` costs: a producer imports nothing that only servers need."""

from __future__ import annotations

import pytest
from support.processes import PYTHON, run

PROGRAM = "from market_data_store import StoreClient; import sys; print(*sys.modules, sep='\\n')"
UNNEEDED = ["alembic", "celery.worker", "flask", "httpx", "prometheus_client", "psycopg", "pyarrow", "redis"]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    finished = run(PYTHON, "-c", PROGRAM, directory=tmp_path_factory.mktemp("import"))
    assert finished.returncode == 0, finished
    return set(finished.stdout.split())


@pytest.mark.parametrize("module", UNNEEDED)
def test_a_producer_does_not_import(module: str, imported: set[str]) -> None:
    assert "market_data_store.producer.client" in imported
    assert module not in imported
