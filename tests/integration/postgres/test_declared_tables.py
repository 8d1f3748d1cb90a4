"""The tables of declared datasets: created, changed where that loses nothing, and refused otherwise."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from support.databases import Connection
from support.own_datasets import FUNDING, FUNDING_2, funding
from support.writing import select

from market_data_store.datasets import Dataset
from market_data_store.errors import MigrationFailed
from market_data_store.postgres.declared_tables import due, upgrade_tables

#: What an owner made before there was a declaration.
OWN = """
    CREATE TABLE funding_rates (
        provider varchar(20), symbol text, ts timestamptz, level numeric(10,2), rate numeric(20,10) NOT NULL,
        trades bigint NOT NULL, note text,
        UNIQUE (symbol, provider, level, ts)
    );
    INSERT INTO funding_rates VALUES ('p', 's', '2024-01-02Z', 1.5, 0.1, 3, 'mine')
"""
COLUMNS = """
    SELECT attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
    WHERE attrelid = 'funding_rates'::regclass AND attnum > 0 ORDER BY attnum
"""

Upgrade = Callable[[Dataset], list[str]]


@pytest.fixture
def upgrade(database_url: str) -> Upgrade:
    """Make the table of a dataset what it declares; returns the steps."""

    def done(dataset: Dataset) -> list[str]:
        lines: list[str] = []
        upgrade_tables(database_url, [dataset], lines.append)
        return lines

    return done


def types(database: Connection) -> dict[str, str]:
    return {name: type_ for name, type_, _ in select(database, COLUMNS)}


def test_a_missing_table_is_created_once(upgrade: Upgrade, database: Connection) -> None:
    dataset = funding()
    created = ["funding: create the table funding_rates"]
    assert list(due(database, [dataset])) == created
    assert upgrade(dataset) == created
    assert list(due(database, [dataset])) == []
    assert upgrade(dataset) == []
    found = select(database, COLUMNS)
    assert {name for name, _, required in found if required} == {*dataset.key, "rate", "enqueued_at"}
    assert types(database) | {"level": "numeric(20,4)", "bids": "double precision[]", "raw": "jsonb"} == types(database)


def test_a_newer_version_adds_columns_and_widens_numbers(upgrade: Upgrade, database: Connection) -> None:
    upgrade(funding(FUNDING))
    database.execute(
        "INSERT INTO funding_rates (provider, symbol, ts, level, rate, enqueued_at) "
        "VALUES ('p', 's', now(), 1.5, 2, now())"
    )
    assert upgrade(funding(FUNDING_2)) == [
        "funding: widen level from numeric(20,4) to numeric(22,6) in the table funding_rates",
        "funding: add index_price (numeric(20,10)) in the table funding_rates",
        'funding: add venue (text COLLATE "C") in the table funding_rates',
    ]
    assert str(select(database, "SELECT level FROM funding_rates")[0][0]) == "1.500000"
    # The older version has nothing to say against it.
    assert upgrade(funding(FUNDING)) == []


def test_a_table_that_is_there_is_adopted(upgrade: Upgrade, database: Connection) -> None:
    database.execute(OWN)
    steps = upgrade(funding())
    assert "funding: widen level from numeric(10,2) to numeric(20,4) in the table funding_rates" in steps
    assert "funding: widen rate from numeric(20,10) to numeric(38,18) in the table funding_rates" in steps
    assert "funding: allow null in trades in the table funding_rates" in steps
    assert "funding: add enqueued_at in the table funding_rates" in steps
    assert select(database, "SELECT note, rate::text, extract(year FROM enqueued_at)::int FROM funding_rates") == [
        ("mine", "0.100000000000000000", 1970)
    ]
    assert upgrade(funding()) == []
    database.execute("INSERT INTO funding_rates (provider, symbol, ts, level, rate) VALUES ('p', 's', now(), 1, 1)")


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        (
            OWN.replace("UNIQUE", "CHECK (rate < 1), UNIQUE").replace(" level, ", " "),
            "funding: funding_rates has no unique index on (provider, symbol, ts, level), by which the store finds its "
            "rows; create it: CREATE UNIQUE INDEX ON funding_rates (provider, symbol, ts, level)",
        ),
        (
            OWN.replace("note text", "note text NOT NULL"),
            "funding: the table has note, which must not be null and is not declared; declare it, or allow null: "
            "ALTER TABLE funding_rates ALTER COLUMN note DROP NOT NULL",
        ),
        (
            OWN.replace("rate numeric(20,10)", "rate double precision"),
            "funding: funding_rates.rate is double precision; the store needs numeric; alter the table, or declare "
            "another one with `table`",
        ),
        (
            OWN.replace("rate numeric(20,10) NOT NULL", "price numeric(20,10)"),
            "funding: rate is required, and the rows of funding_rates have no such column; declare it as one that is "
            "not required and outside of the key, or add it to the table with a value for each row",
        ),
        (
            "CREATE VIEW funding_rates AS SELECT 1 AS rate",
            "funding: funding_rates is a view that takes no rows; the store needs a table; alter the table, or declare "
            "another one with `table`",
        ),
    ],
)
def test_what_could_lose_something_is_refused_and_changes_nothing(
    upgrade: Upgrade, database: Connection, statement: str, line: str
) -> None:
    database.execute(statement)
    before = select(database, COLUMNS)
    with pytest.raises(MigrationFailed) as caught:
        upgrade(funding())
    assert str(caught.value) == line
    assert select(database, COLUMNS) == before


def test_several_processes_may_do_it_at_once(upgrade: Upgrade, database: Connection) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(upgrade, [funding()] * 8))
    assert sorted(map(len, found)) == [0] * 7 + [1]


def test_a_table_that_is_locked_for_a_moment_is_waited_for(
    upgrade: Upgrade, database: Connection, database_url: str
) -> None:
    upgrade(funding())
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as thread:
        other.execute("LOCK TABLE funding_rates IN ACCESS SHARE MODE")
        steps = thread.submit(upgrade, funding(FUNDING_2))
        while not select(database, "SELECT FROM pg_locks WHERE NOT granted AND relation = 'funding_rates'::regclass"):
            assert not steps.done()
        other.rollback()
        assert len(steps.result()) == 3
