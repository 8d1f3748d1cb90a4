"""The table is broken or mended while a batch is being resolved: no row is at fault for that."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from support.databases import Connection
from support.waiting import wait_until
from support.writing import TIMEOUT_S, bars, message, select, write

from market_data_store.errors import DatabaseUnavailable, DatasetUnavailable
from market_data_store.postgres import resolving, writing
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

BREAK, MEND = "ALTER TABLE bars_ohlcv RENAME TO away", "ALTER TABLE away RENAME TO bars_ohlcv"
#: More rows than this go in together at no time.
LIMIT = 30
LIMITED = f"""
    CREATE FUNCTION too_much() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF (SELECT count(*) FROM inserted) > {LIMIT} THEN RAISE SQLSTATE ''53400''; END IF; RETURN NULL; END';
    CREATE TRIGGER too_much AFTER INSERT ON bars_ohlcv REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION too_much()
"""

Meanwhile = Callable[[int, str], None]


@pytest.fixture
def before_try(database: Connection, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Have somebody execute this before the writer tries for the nth time to write rows of the batch."""
    statements: dict[int, str] = {}
    tries: list[Any] = []

    def write_rows(*args: Any, **options: Any) -> None:
        tries.append(args)
        if statement := statements.get(len(tries)):
            database.execute(statement)
        writing.write_rows(*args, **options)

    monkeypatch.setattr(resolving, "write_rows", write_rows)
    return statements.__setitem__


def letters(database: Connection) -> int:
    return int(select(database, "SELECT count(*) FROM dead_letters")[0][0])


@pytest.mark.parametrize("number", [3, 4])
def test_rows_that_were_refused_before_the_table_was_mended_are_written(
    writer: Writer, database: Connection, before_try: Meanwhile, number: int
) -> None:
    database.execute(BREAK)
    # The whole batch, its first row, its last row, the others.
    before_try(number, MEND)
    if number == 4:
        with pytest.raises(DatasetUnavailable, match="does not exist"):
            write(writer, message(bars(20)))
        database.execute(MEND)
    assert write(writer, message(bars(20))) == [Counts(written=20)]
    assert letters(database) == 0


def test_rows_that_are_refused_after_the_table_was_broken_are_not_at_fault(
    writer: Writer, database: Connection, before_try: Meanwhile
) -> None:
    database.execute(LIMITED)
    before_try(6, BREAK)
    with pytest.raises(DatasetUnavailable, match="does not exist"):
        write(writer, message(bars(100)))
    assert letters(database) == 0
    database.execute(MEND)
    stored = select(database, "SELECT count(*) FROM bars_ohlcv")[0][0]
    assert 0 < stored < 100
    assert write(writer, message(bars(100))) == [Counts(written=100 - stored, unchanged=stored)]


def test_rows_that_met_an_outage_before_others_were_written_are_not_at_fault_for_a_broken_table(
    writer: Writer, database: Connection, database_url: str
) -> None:
    met = message(bars(20))
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE bars_ohlcv")
        attempt = pool.submit(write, writer, met)
        wait_until(lambda: select(database, waiting))
        database.execute("SELECT pg_terminate_backend(%s, 5000)", select(database, waiting)[0])
        assert isinstance(attempt.exception(TIMEOUT_S), DatabaseUnavailable)
    assert write(writer, message(bars(30)[20:])) == [Counts(written=10)]
    database.execute(BREAK)
    with pytest.raises(DatasetUnavailable, match="does not exist"):
        write(writer, met)
    assert letters(database) == 0
