"""`mds partitions`: it lists what is there and what is wanted, and converts a table after asking."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from support.databases import Connection
from support.partitions import partitions

from market_data_store.cli.main import cli
from market_data_store.postgres import partitions_wanted
from market_data_store.postgres.partitions import now

TICKS = """
    INSERT INTO tick_data (provider, symbol, ts, seq, price, enqueued_at)
    SELECT 'p', 'S', timestamptz '2024-01-01' + i * interval '1 day', i, 1, now() FROM generate_series(0, 39) AS i
"""


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    with partitions(monkeypatch, "ticks=month"):
        yield lambda *arguments: CliRunner().invoke(cli, ["partitions", *arguments], prog_name="mds")


def test_it_converts_after_asking_and_lists(database: Connection, command: Callable[..., Result]) -> None:
    database.execute(TICKS)
    assert "no partitions" in command().output
    refused = command("convert", "ticks")
    assert refused.exit_code == 2
    assert "rows of ticks wait meanwhile; give --yes to do that without being asked" in refused.output
    done = command("convert", "ticks", "--yes")
    assert done.exit_code == 0, done.output
    assert "ticks: 40 rows are in partitions by month" in done.output
    database.execute("ANALYZE tick_data_p2024_01")
    partitions_wanted.ask(database, "ticks", [now(database).replace(year=2016, month=3, day=1, hour=0, minute=0)])
    found = json.loads(command("ticks", "--json").output)
    assert {**found[0], "bytes": 0} == {
        "dataset": "ticks",
        "partition": "tick_data_p2024_01",
        "from": "2024-01-01T00:00:00+00:00",
        "to": "2024-02-01T00:00:00+00:00",
        "rows": 31,
        "bytes": 0,
        "state": "attached",
        "trouble": None,
    }
    assert (len(found), found[-1]["state"]) == (7, "wanted")
    assert command().output.splitlines()[1].split()[:2] == ["ticks", "tick_data_p2024_01"]
    assert "is partitioned already" in command("convert", "ticks", "--yes").output


def test_what_is_detached_and_not_yet_dropped_is_shown(database: Connection, command: Callable[..., Result]) -> None:
    database.execute(TICKS)
    assert command("convert", "ticks", "--yes").exit_code == 0
    database.execute("""
        INSERT INTO partitions_leaving
        VALUES ('tick_data_p2024_01', 'ticks', '2024-01-01 00:00Z', '2024-02-01 00:00Z', now())
    """)
    database.execute("ALTER TABLE tick_data DETACH PARTITION tick_data_p2024_01 CONCURRENTLY")
    found = {each["partition"]: each["state"] for each in json.loads(command("ticks", "--json").output)}
    assert (found["tick_data_p2024_01"], found["tick_data_p2024_02"]) == ("detached", "attached")


def test_what_is_not_to_have_partitions_is_not_converted(command: Callable[..., Result]) -> None:
    refused = command("convert", "bars")
    assert (refused.exit_code, "set MDS_PARTITIONS=bars=month" in refused.output) == (2, True)
