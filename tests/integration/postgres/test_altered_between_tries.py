"""The table is broken or mended while a batch is being resolved: no row is at fault for that."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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


#: Refuses rows with a negative volume, and all rows while it is `broken`; at volume 5 it waits for the lock.
WATCHED = """
    CREATE TABLE state (broken boolean);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.volume = 5 THEN PERFORM pg_advisory_xact_lock_shared(1); END IF;
        IF NEW.volume < 0 OR (SELECT broken FROM state) THEN RAISE 'refused'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER watch BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION watch();
"""


def written_while_it_changes(
    writer: Writer, database: Connection, database_url: str, *, broken_first: bool
) -> Future[list[Counts]]:
    """Write 20 rows, of which the first is refused, while the table is broken or mended at the sixth."""
    database.execute(WATCHED)
    database.execute("INSERT INTO state VALUES (%s)", [broken_first])
    sent = [bar | {"volume": float(n) if n else -1.0} for n, bar in enumerate(bars(20))]
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT pg_advisory_xact_lock(1)")
        attempt = pool.submit(write, writer, message(sent))
        wait_until(lambda: select(database, waiting))
        database.execute("UPDATE state SET broken = NOT broken")
        other.rollback()
    return attempt


def test_rows_that_are_refused_until_the_table_is_mended_in_an_experiment_are_written(
    writer: Writer, database: Connection, database_url: str
) -> None:
    attempt = written_while_it_changes(writer, database, database_url, broken_first=True)
    assert attempt.result() == [Counts(written=19, rejected=1)]
    assert select(database, "SELECT row->>'volume' FROM dead_letters") == [("-1.0",)]


def test_rows_that_are_refused_after_the_table_is_broken_in_an_experiment_are_not_at_fault(
    writer: Writer, database: Connection, database_url: str
) -> None:
    attempt = written_while_it_changes(writer, database, database_url, broken_first=False)
    assert isinstance(attempt.exception(), DatasetUnavailable)
    assert letters(database) == 0
