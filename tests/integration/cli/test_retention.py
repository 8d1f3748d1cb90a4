"""`mds retention`: it shows, asks, and deletes what it has shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from support.databases import Connection

from market_data_store.cli.main import cli
from market_data_store.config import settings

TICKS = """
    INSERT INTO tick_data (provider, symbol, ts, seq, price, enqueued_at)
    SELECT 'p', 'S', now() - i * interval '1 day', i, 1, now() FROM generate_series(1, 40) AS i
"""
COUNT = "SELECT count(*) FROM tick_data"


@pytest.fixture
def retention(
    database: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Result]]:
    database.execute(TICKS)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("MDS_RETENTION_DAYS", "ticks=30,job_runs=7")
    settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(cli, ["retention", *arguments], prog_name="mds")
    settings.cache_clear()


def test_it_counts_asks_and_deletes(database: Connection, retention: Callable[..., Result]) -> None:
    counted = retention("--dry-run")
    assert counted.exit_code == 0
    assert [line.split()[0::3] for line in counted.output.splitlines()[1:]] == [["ticks", "11"], ["job_runs", "0"]]
    refused = retention()
    assert refused.exit_code == 2
    assert "this deletes 11 rows of ticks for good; give --yes to do that without being asked" in refused.output
    assert database.execute(COUNT).fetchall() == [(40,)]
    done = retention("--yes", "--json")
    assert [(each["dataset"], each["rows"]) for each in json.loads(done.output)] == [("ticks", 11)]
    assert database.execute(COUNT).fetchall() == [(29,)]
    assert "would be deleted" in retention("--yes").output


def test_what_is_not_to_be_kept_for_a_time_is_refused(retention: Callable[..., Result]) -> None:
    refused = retention("--dataset", "bars")
    assert (refused.exit_code, "--dataset bars: is not in MDS_RETENTION_DAYS" in refused.output) == (2, True)
    assert retention("--dataset", "job_runs", "--dry-run").exit_code == 0
