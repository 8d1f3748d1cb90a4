"""The writer and a table as its owner runs it: a row's fault is a letter, the table's fault holds the dataset."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from support.databases import Connection
from support.statements import counted
from support.writing import AT, bar, bars, closes, message, select, write

from market_data_store.errors import DatabaseUnavailable, DatasetUnavailable
from market_data_store.postgres import failures, memory
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

directly = pytest.mark.parametrize("writer_url", ["direct"], indirect=True)

#: Each refuses a row with close = 5000 or the symbol BAD, and no other.
ROWS = {
    "check": ("23514", "ALTER TABLE bars_ohlcv ADD CHECK (close < 1000)"),
    "trigger": (
        "P0001",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.close > 1000 THEN "
        "RAISE EXCEPTION 'close % is not plausible', NEW.close; END IF; RETURN NEW; END$$;"
        "CREATE TRIGGER t {} INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION f()",
    ),
    "trigger with a mistake": (
        "42703",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.close > 1000 THEN "
        "EXECUTE 'SELECT nothing_of_this_name'; END IF; RETURN NEW; END$$;"
        "CREATE TRIGGER t BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION f()",
    ),
    "foreign key": (
        "23503",
        "CREATE TABLE instruments (symbol text COLLATE \"C\" PRIMARY KEY); INSERT INTO instruments VALUES ('AAPL');"
        "ALTER TABLE bars_ohlcv ADD FOREIGN KEY (symbol) REFERENCES instruments {}",
    ),
    "not null": ("23502", "ALTER TABLE bars_ohlcv ALTER volume SET NOT NULL"),
    "unique index": ("23505", "CREATE UNIQUE INDEX ON bars_ohlcv (close) WHERE close > 1000"),
    "division by zero": ("22012", "CREATE INDEX ON bars_ohlcv ((1 / (close - 5000)))"),
}
ROWS |= {
    "trigger, after": (ROWS["trigger"][0], ROWS["trigger"][1].format("AFTER")),
    "trigger, deferred": (
        ROWS["trigger"][0],
        ROWS["trigger"][1]
        .replace("CREATE TRIGGER", "CREATE CONSTRAINT TRIGGER")
        .replace("ON bars_ohlcv", "ON bars_ohlcv DEFERRABLE INITIALLY DEFERRED")
        .format("AFTER"),
    ),
    "trigger": (ROWS["trigger"][0], ROWS["trigger"][1].format("BEFORE")),
    "foreign key, deferred": (ROWS["foreign key"][0], ROWS["foreign key"][1].format("DEFERRABLE INITIALLY DEFERRED")),
    "foreign key": (ROWS["foreign key"][0], ROWS["foreign key"][1].format("")),
}
BAD = {"close": 5_000.0, "symbol": "BAD", "volume": None}


def good(count: int) -> list[Any]:
    return bars(count, volume=1.0)


@pytest.mark.parametrize(("sqlstate", "rule"), ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("replayed", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["new", "replayed"])
def test_one_row_in_ten_thousand_is_a_letter_in_fewer_than_40_statements(
    writer: Writer,
    database: Connection,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    sqlstate: str,
    rule: str,
    replayed: bool,
) -> None:
    rows = good(10_000)
    if replayed:
        write(writer, message(rows))
    database.execute(rule)
    if sqlstate == "23505":
        write(writer, message([bar(interval="first", close=5_000.0, volume=1.0)]))
    rows[6_789] |= BAD
    with counted(monkeypatch) as sent:
        assert write(writer, message(rows, task_id="t")) == [
            Counts(rejected=1, unchanged=9_999) if replayed else Counts(written=9_999, rejected=1)
        ]
    assert len(sent) < 40
    assert select(database, "SELECT task_id, position, sqlstate FROM dead_letters") == [("t", 6_789, sqlstate)]
    assert select(database, "SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == [(0,)]
    named = [record for record in caplog.records if sqlstate in record.getMessage()]
    assert len(named) == 1


def test_a_row_under_a_policy_is_a_letter(database_url: str, database: Connection) -> None:
    with a_role(database_url, database) as url, closing(Writer(url)) as writer:
        database.execute("ALTER TABLE bars_ohlcv ENABLE ROW LEVEL SECURITY")
        database.execute("CREATE POLICY p ON bars_ohlcv USING (true) WITH CHECK (symbol <> 'BAD')")
        assert write(writer, message([*good(50), bar(symbol="BAD")])) == [Counts(written=50, rejected=1)]
        # Alone, too: a stored row goes in again.
        assert write(writer, message([bar(symbol="BAD", close=2.0)])) == [Counts(rejected=1)]
    assert select(database, "SELECT DISTINCT sqlstate FROM dead_letters") == [("42501",)]


@contextmanager
def a_role(database_url: str, database: Connection) -> Iterator[str]:
    """The URL for an ordinary role that may use all tables."""
    name = f"role_{uuid4().hex}"
    database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
    database.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}")
    parts = urlsplit(database_url)
    try:
        yield parts._replace(netloc=f"{name}:p@{parts.hostname}:{parts.port}").geturl()
    finally:
        database.execute(f"DROP OWNED BY {name}")
        database.execute(f"DROP ROLE {name}")


def test_many_refused_rows_cost_no_transaction_each(
    writer: Writer, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(ROWS["check"][1])
    rows = [{**row, "close": 5_000.0} if n % 3 == 0 else row for n, row in enumerate(good(3_000))]
    started = time.monotonic()
    with counted(monkeypatch) as sent:
        assert write(writer, message(rows)) == [Counts(written=2_000, rejected=1_000)]
    assert len([query for query in sent if "INSERT INTO dead_letters" not in query]) < 40
    assert time.monotonic() - started < 30
    assert select(database, "SELECT count(*), count(DISTINCT position) FROM dead_letters") == [(1_000, 1_000)]


RAISES = """
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'closed until Monday'; END$$;
    CREATE TRIGGER t {} INSERT ON bars_ohlcv FOR EACH {} EXECUTE FUNCTION f()
"""
PARTITIONED = """
    ALTER TABLE bars_ohlcv RENAME TO old;
    ALTER TABLE old RENAME CONSTRAINT bars_ohlcv_pkey TO old_pkey;
    CREATE TABLE bars_ohlcv (LIKE old INCLUDING DEFAULTS, PRIMARY KEY (provider, symbol, interval, ts))
        PARTITION BY RANGE (ts);
    CREATE TABLE p2023 PARTITION OF bars_ohlcv FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')
"""
#: Cause, SQLSTATE, remedy.
TABLES = {
    "column renamed": (
        "ALTER TABLE bars_ohlcv RENAME close TO last",
        "42703",
        "ALTER TABLE bars_ohlcv RENAME last TO close",
    ),
    "table gone": ("ALTER TABLE bars_ohlcv RENAME TO gone", "42P01", "ALTER TABLE gone RENAME TO bars_ohlcv"),
    "check": (
        "ALTER TABLE bars_ohlcv ADD CONSTRAINT none CHECK (close < 0) NOT VALID",
        "23514",
        "ALTER TABLE bars_ohlcv DROP CONSTRAINT none",
    ),
    "not null": (
        "ALTER TABLE bars_ohlcv ADD desk text NOT NULL DEFAULT ''; ALTER TABLE bars_ohlcv ALTER desk DROP DEFAULT",
        "23502",
        "ALTER TABLE bars_ohlcv ALTER desk DROP NOT NULL",
    ),
    "foreign key": (
        'CREATE TABLE instruments (symbol text COLLATE "C" PRIMARY KEY); ALTER TABLE bars_ohlcv'
        " ADD CONSTRAINT known FOREIGN KEY (symbol) REFERENCES instruments NOT VALID",
        "23503",
        "INSERT INTO instruments VALUES ('AAPL')",
    ),
    "trigger": (RAISES.format("BEFORE", "ROW"), "P0001", "DROP TRIGGER t ON bars_ohlcv"),
    "trigger, after": (RAISES.format("AFTER", "ROW"), "P0001", "DROP TRIGGER t ON bars_ohlcv"),
    "trigger of the statement": (RAISES.format("BEFORE", "STATEMENT"), "P0001", "DROP TRIGGER t ON bars_ohlcv"),
    "no partition": (
        PARTITIONED,
        "23514",
        "CREATE TABLE p2024 PARTITION OF bars_ohlcv FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    ),
    "view": (
        "ALTER TABLE bars_ohlcv RENAME TO old;"
        "CREATE VIEW bars_ohlcv AS SELECT * FROM old WHERE false WITH CHECK OPTION",
        "44000",
        "DROP VIEW bars_ohlcv; ALTER TABLE old RENAME TO bars_ohlcv",
    ),
    "grouped view": (
        "ALTER TABLE bars_ohlcv RENAME TO old; CREATE VIEW bars_ohlcv AS SELECT DISTINCT * FROM old",
        "42809",
        "DROP VIEW bars_ohlcv; ALTER TABLE old RENAME TO bars_ohlcv",
    ),
    "no key": (
        "ALTER TABLE bars_ohlcv DROP CONSTRAINT bars_ohlcv_pkey;ALTER TABLE bars_ohlcv ADD CHECK (high < 0) NOT VALID",
        "42P10",
        "ALTER TABLE bars_ohlcv DROP CONSTRAINT bars_ohlcv_high_check,"
        " ADD PRIMARY KEY (provider, symbol, interval, ts)",
    ),
}


@pytest.mark.parametrize(("trouble", "sqlstate", "remedy"), TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("stored", [True, False], ids=["rows are stored", "the table is empty"])
@pytest.mark.parametrize("size", [pytest.param(10, marks=pytest.mark.slow), 1_000])
def test_what_refuses_everything_is_the_datasets_fault(
    writer: Writer,
    database: Connection,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
    sqlstate: str,
    remedy: str,
    stored: bool,
    size: int,
) -> None:
    if stored:
        write(writer, message([bar(ts="2023-06-01")]))
    database.execute(trouble)
    if "p2023" in trouble and stored:
        database.execute("INSERT INTO bars_ohlcv SELECT * FROM old")
    sent = message([*good(size), 7])
    with counted(monkeypatch) as statements, caplog.at_level(logging.INFO):
        for _ in range(3):
            with pytest.raises(DatasetUnavailable) as caught:
                write(writer, sent)
            assert (caught.value.dataset, caught.value.sqlstate) == ("bars", sqlstate)
    assert len(statements) < 40
    assert len(caplog.records) == 1
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]
    # Another dataset is not affected.
    signal = {"provider": "p", "symbol": "S", "ts": AT.isoformat(), "name": "n", "value": 1.0}
    assert write(writer, message([signal], name="signals"), name="signals") == [Counts(written=1)]
    database.execute(remedy)
    assert write(writer, sent) == [Counts(written=size, rejected=1)]


def test_one_row_that_refuses_everything_would_refuse_is_not_at_fault(writer: Writer, database: Connection) -> None:
    write(writer, message([bar()]))
    for trouble, sqlstate, _ in (TABLES["check"], TABLES["trigger"]):
        database.execute(trouble)
        with pytest.raises(DatasetUnavailable, match=sqlstate):
            write(writer, message([bar(symbol="IBM")]))
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


def test_a_row_that_is_refused_alone_is_at_fault_where_a_stored_row_would_go_in(
    writer: Writer, database: Connection
) -> None:
    write(writer, message([bar(close=1.0)]))
    database.execute(ROWS["trigger"][1])
    assert write(writer, message([bar(symbol="IBM", close=5_000.0)])) == [Counts(rejected=1)]
    assert write(writer, message([bar(symbol=f"S{n}", close=5_000.0) for n in range(50)])) == [Counts(rejected=50)]
    assert closes(database) == [1.0]
    assert select(database, "SELECT min(ts) = max(ts) FROM bars_ohlcv") == [(True,)]


def test_a_revoked_right_is_the_datasets_fault(database_url: str, database: Connection) -> None:
    with a_role(database_url, database) as url, closing(Writer(url)) as writer:
        name = urlsplit(url).username
        assert write(writer, message([bar()])) == [Counts(written=1)]
        for right in ("INSERT", "UPDATE", "SELECT"):
            database.execute(f"REVOKE {right} ON bars_ohlcv FROM {name}")
            with pytest.raises(DatasetUnavailable, match="42501"):
                write(writer, message([bar(close=2.0)], at=1))
            database.execute(f"GRANT {right} ON bars_ohlcv TO {name}")
            write(writer, message([bar(close=2.0)], at=1))
        database.execute(f"REVOKE ALL ON dead_letters FROM {name}")
        with pytest.raises(DatabaseUnavailable, match="dead_letters"):
            write(writer, message([bar(symbol="IBM"), 7]))
        assert len(closes(database)) == 2
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


@pytest.mark.parametrize("mode", ["ACCESS EXCLUSIVE", pytest.param("SHARE ROW EXCLUSIVE", marks=pytest.mark.slow)])
def test_a_lock_is_waited_for_with_a_limit(writer: Writer, database: Connection, database_url: str, mode: str) -> None:
    write(writer, message([bar()]))
    with psycopg.connect(database_url) as other:
        other.execute(f"LOCK TABLE bars_ohlcv IN {mode} MODE")
        for least_s, most_s in ((4, 9), (0, 3)):  # the second try knows that the table is locked
            started = time.monotonic()
            with pytest.raises(DatasetUnavailable, match="55P03"):
                write(writer, message(good(30)))
            assert least_s < time.monotonic() - started < most_s
        assert select(database, WAITING) == []
    assert write(writer, message(good(30))) == [Counts(written=30)]


WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.slow
def test_a_letter_waits_for_a_lock_with_a_limit(writer: Writer, database: Connection, database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailable, match="dead_letters"):
            write(writer, message([bar(), 7]))
        assert closes(database) == [1.5]
    assert write(writer, message([bar(), 7])) == [Counts(unchanged=1, rejected=1)]


SLOW = """
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep({}); RETURN NEW; END$$;
    CREATE TRIGGER slow BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION slow()
"""


@pytest.mark.parametrize(("pause", "cured"), [("0.01", True), ("1", False)])
def test_a_time_limit_of_the_role_is_cured_by_fewer_rows_or_is_the_datasets_fault(
    database_url: str, database: Connection, pause: str, cured: bool
) -> None:
    with a_role(database_url, database) as url:
        database.execute(f"ALTER ROLE {urlsplit(url).username} SET statement_timeout = '200ms'")
        database.execute(SLOW.format(pause))
        with closing(Writer(url)) as writer:
            if cured:
                assert write(writer, message([*good(60), 7])) == [Counts(written=60, rejected=1)]
            else:
                with pytest.raises(DatasetUnavailable, match="57014"):
                    write(writer, message([*good(60), 7]))
                assert closes(database) == []
    assert select(database, "SELECT count(*) FROM dead_letters") == [(int(cured),)]


def test_a_redelivery_to_another_process_does_not_find_out_again(
    writer: Writer, database: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(ROWS["check"][1])
    rows = [{**row, "close": 5_000.0} if n % 100 == 50 else row for n, row in enumerate(good(1_000))]
    sent = message(rows, task_id="t")
    assert write(writer, sent) == [Counts(written=990, rejected=10)]
    before = select(database, "SELECT ctid::text, xmin::text FROM dead_letters")
    with closing(Writer(database_url)) as other, counted(monkeypatch) as statements:
        assert write(other, sent) == [Counts(unchanged=990, rejected=10)]
    assert select(database, "SELECT ctid::text, xmin::text FROM dead_letters") == before
    assert len([query for query in statements if "dead_letters" not in query]) < 25


def test_another_message_with_the_id_of_a_refused_one_is_written(writer: Writer, database: Connection) -> None:
    database.execute(ROWS["check"][1])
    write(writer, message([bar(close=5_000.0), bar(symbol="IBM")], task_id="t"))
    other = message([bar(close=500.0), bar(symbol="C", close=6_000.0), bar(symbol="D")], task_id="t")
    assert write(writer, other) == [Counts(written=2, rejected=1)]


ENDS_ITS_SESSION = """
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    IF NEW.symbol = 'BAD' THEN {}; END IF; RETURN NEW; END$$;
    CREATE TRIGGER t BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION f()
"""
TERMINATES = "PERFORM pg_terminate_backend(pg_backend_pid(), 1000)"
LIKE_OUTAGES = {
    "ends its session": (TERMINATES, "57P01"),
    "internal error": ("RAISE SQLSTATE 'XX000'", "XX000"),
    "shutdown": ("RAISE SQLSTATE '57P03'", "57P03"),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MANY_TRIES_S", 0.0)


def until_written(writer: Writer, sent: Any) -> tuple[list[Counts], int]:
    """Try as `worker.retrying` does; returns the outcome and the number of tries."""
    for tries in range(1, 40):
        try:
            return write(writer, sent), tries
        except DatasetUnavailable:
            raise
        except DatabaseUnavailable:
            continue
    raise AssertionError("never written")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("act", "sqlstate"), LIKE_OUTAGES.values(), ids=LIKE_OUTAGES)
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 300])
def test_a_row_that_looks_like_an_outage_is_a_letter_after_some_tries(
    writer: Writer, database: Connection, act: str, sqlstate: str, size: int
) -> None:
    write(writer, message([bar(symbol="STORED")]))
    database.execute(ENDS_ITS_SESSION.format(act))
    rows = good(size)
    rows[size // 3] |= {"symbol": "BAD"}
    counts, tries = until_written(writer, message([*rows, 7], task_id="t"))
    assert counts == [Counts(unchanged=size - 1, rejected=2)] or counts == [Counts(written=size - 1, rejected=2)]
    assert failures.MANY_TRIES < tries < 12
    assert select(database, "SELECT position, sqlstate FROM dead_letters WHERE sqlstate IS NOT NULL") == [
        (size // 3, sqlstate)
    ]
    assert len(closes(database)) == size


@pytest.mark.usefixtures("impatient")
def test_a_row_that_looks_like_an_outage_is_found_among_rows_that_do_not_fit_their_column(
    writer: Writer, database: Connection
) -> None:
    database.execute("ALTER TABLE bars_ohlcv ALTER volume TYPE bigint")
    write(writer, message([bar(symbol="STORED")]))
    database.execute(ENDS_ITS_SESSION.format(TERMINATES))
    rows = good(50)
    rows[10] |= {"symbol": "BAD"}
    rows[20] |= {"volume": 0.5}
    counts, _ = until_written(writer, message(rows, task_id="t"))
    assert counts == [Counts(unchanged=48, rejected=2)]
    found = select(database, "SELECT position, sqlstate FROM dead_letters ORDER BY position")
    assert found == [(10, "57P01"), (20, "22003")]


@pytest.mark.usefixtures("impatient")
def test_without_anything_to_compare_it_with_it_is_an_outage(writer: Writer, database: Connection) -> None:
    database.execute(ENDS_ITS_SESSION.format(TERMINATES))
    for _ in range(3 * failures.MANY_TRIES):
        with pytest.raises(DatabaseUnavailable):
            write(writer, message([bar(symbol="BAD")], task_id="t"))
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]
    write(writer, message([bar()]))
    counts, _ = until_written(writer, message([bar(symbol="BAD")], task_id="t"))
    assert counts == [Counts(rejected=1)]


@directly
@pytest.mark.usefixtures("impatient")
def test_an_outage_makes_no_letter_however_long_it_lasts(
    writer: Writer, database: Connection, database_url: str
) -> None:
    name = urlsplit(database_url).path[1:]
    write(writer, message([bar()]))
    sent = message([bar(symbol="IBM"), bar(symbol="C")])
    database.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    writer.close()
    for _ in range(3 * failures.MANY_TRIES):
        with pytest.raises(DatabaseUnavailable, match="25006"):
            write(writer, sent)
    database.execute("SET default_transaction_read_only = off")
    database.execute(f'ALTER DATABASE "{name}" RESET ALL')
    writer.close()
    database.execute(RAISES.replace("RAISE EXCEPTION 'closed until Monday'", TERMINATES).format("BEFORE", "ROW"))
    for _ in range(3 * failures.MANY_TRIES):
        with pytest.raises(DatabaseUnavailable):
            write(writer, sent)
    database.execute("DROP TRIGGER t ON bars_ohlcv")
    assert write(writer, sent)[0].rejected == 0
    assert len(closes(database)) == 3
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


def test_a_table_that_only_helps_stops_nothing(
    writer: Writer, database: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    database.execute("ALTER TABLE first_takes RENAME TO gone")
    for _ in range(2):
        writer.remember_takes({"t": 1.0}, ())
    assert len([record for record in caplog.records if "first_takes" in record.getMessage()]) == 1
    database.execute("ALTER TABLE gone RENAME TO first_takes")
    writer.remember_takes({"t": 1.0}, ())
    assert select(database, "SELECT count(*) FROM first_takes") == [(1,)]
