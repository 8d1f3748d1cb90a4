"""The writer on a table that its owner has altered: it writes what was sent, or names what is the matter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from support.databases import Connection
from support.waiting import wait_until
from support.writing import AT, Row, bar, bars, message, select, write

from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres.upsert import FEW_ROWS
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

SIZES = [FEW_ROWS, FEW_ROWS + 20]
sizes = pytest.mark.parametrize("size", SIZES)
TICK: Row = {"provider": "p", "symbol": "s", "ts": AT.isoformat(), "seq": 1, "price": 1.5}


@sizes
@pytest.mark.parametrize(
    ("column", "type_", "fits", "does_not", "sqlstate"),
    [
        ("volume", "bigint", [1000.0, -5.0, 2.0**62, None], [1000.5, 2.0**63], "22003"),
        ("volume", "integer", [2.0**31 - 1, None], [2.0**31, 0.5], "22003"),
        ("volume", "smallint", [-32768.0], [32768.0], "22003"),
        ("volume", "real", [1.5, 0.0, 2.0**62], [0.1, 1e-300], "22003"),
        ("volume", "numeric", [0.1 + 0.2, 5e-324, 2.0**63], [], ""),
        ("volume", "numeric(18,8)", [1.75, 0.00000001, 9999999999.0], [0.000000001, 1e10], "22003"),
        ("volume", "numeric(10,2)", [1.01, 99999999.99], [1.005, 1e8, 99999999.999], "22003"),
        ("volume", "numeric(2,-3)", [99000.0], [1.0, 100_000.0, 99_999.0], "22003"),
        ("trade_count", "integer", [2**31 - 1, -(2**31)], [2**31], "22003"),
        ("trade_count", "double precision", [2**53, -(2**63), 2**62], [2**53 + 1, 2**63 - 1], "22003"),
        ("trade_count", "real", [2**24, 2**62], [2**24 + 1, 2**63 - 1], "22003"),
        ("trade_count", "numeric(5,0)", [99999], [100_000], "22003"),
    ],
)
def test_a_value_is_stored_in_a_column_of_another_type_if_it_is_the_same_there(
    writer: Writer,
    database: Connection,
    size: int,
    column: str,
    type_: str,
    fits: list[Any],
    does_not: list[Any],
    sqlstate: str,
) -> None:
    write(writer, message([bar()]))  # the connection is open, and the next batch would be copied
    database.execute(f"DELETE FROM bars_ohlcv; ALTER TABLE bars_ohlcv ALTER {column} TYPE {type_}")
    values = [*does_not, *fits]
    sent = [row | {column: values[n % len(values)]} for n, row in enumerate(bars(size))]
    good = [row[column] for row in sent if row[column] not in does_not]
    for at, unchanged in ((0, 0), (1, len(good))):
        assert write(writer, message(sent, at=at, task_id="t")) == [
            Counts(written=len(good) - unchanged, unchanged=unchanged, rejected=size - len(good))
        ]
        exactly = f"{column}::float8" if type_ == "real" else column
        stored = select(database, f"SELECT {exactly} FROM bars_ohlcv ORDER BY ts")
        assert [float(v) if isinstance(v, Decimal) and column == "volume" else v for (v,) in stored] == good
    kept = select(database, "SELECT DISTINCT reason, sqlstate, pattern FROM dead_letters")
    assert sorted(kept) == sorted(
        (
            f"{column}: {value!r} cannot be stored as {type_} without a change; "
            "it would need another type in bars_ohlcv",
            sqlstate,
            f"{column}: … cannot be stored as {type_} without a change; it would need another type in bars_ohlcv",
        )
        for value in does_not
    )


@sizes
def test_of_equal_keys_the_newest_row_that_fits_is_written(writer: Writer, database: Connection, size: int) -> None:
    database.execute("ALTER TABLE bars_ohlcv ALTER volume TYPE bigint")
    older, newer = bars(size, volume=7), bars(size, volume=8.5)
    assert write(writer, message(older), message(newer, at=1)) == [Counts(written=size), Counts(rejected=size)]
    assert select(database, "SELECT DISTINCT volume FROM bars_ohlcv") == [(7,)]


def test_a_double_is_exact_in_a_numeric_whatever_the_servers_setting(database_url: str, database: Connection) -> None:
    ((name,),) = select(database, "SELECT current_database()")
    database.execute(f'ALTER DATABASE "{name}" SET extra_float_digits = -3')
    database.execute("ALTER TABLE bars_ohlcv ALTER close TYPE numeric")
    with closing(Writer(database_url)) as writer:
        assert write(writer, message(bars(5, close=0.1 + 0.2))) == [Counts(written=5)]
    assert select(database, "SELECT DISTINCT close FROM bars_ohlcv") == [(Decimal("0.30000000000000004"),)]


@sizes
def test_texts_whose_type_knows_no_case_are_compared_by_case(writer: Writer, database: Connection, size: int) -> None:
    database.execute("CREATE EXTENSION citext; ALTER TABLE tick_data ALTER side TYPE citext")
    for at, side in enumerate(("buy", "BUY", "Buy")):
        rows = [{**TICK, "seq": n, "side": side} for n in range(size)]
        assert write(writer, message(rows, name="ticks", at=at), name="ticks") == [Counts(written=size)]
    assert select(database, "SELECT DISTINCT side::text FROM tick_data") == [("Buy",)]


HELD = {
    "a missing column": (
        "ALTER TABLE {} DROP volume",
        "bars_ohlcv.volume is missing; the store needs double precision",
    ),
    "a renamed column": (
        "ALTER TABLE {} RENAME close TO last",
        "bars_ohlcv.close is missing; the store needs double precision",
    ),
    "a type without a cast": (
        "ALTER TABLE {} ALTER volume TYPE boolean USING true",
        "bars_ohlcv.volume is boolean; the store needs double precision",
    ),
    "times without a zone": (
        "ALTER TABLE {} ALTER ts TYPE timestamp",
        "bars_ohlcv.ts is timestamp without time zone; the store needs timestamp with time zone",
    ),
    "names without a case": (
        "CREATE EXTENSION citext; ALTER TABLE {} ALTER symbol TYPE citext",
        "bars_ohlcv.symbol is citext and does not tell all names apart; the store needs text that does",
    ),
    "two columns": (
        "ALTER TABLE {} ALTER volume TYPE text, DROP vwap",
        "bars_ohlcv.volume is text; the store needs double precision, "
        "bars_ohlcv.vwap is missing; the store needs double precision",
    ),
    "a moment without its microseconds": (
        "ALTER TABLE {} ALTER enqueued_at TYPE timestamptz(0)",
        "bars_ohlcv.enqueued_at is timestamp(0) with time zone; the store needs timestamp with time zone",
    ),
    "a generated column": (
        "ALTER TABLE {} DROP vwap, ADD vwap float8 GENERATED ALWAYS AS ((high + low) / 2) STORED",
        "bars_ohlcv.vwap is double precision and made by the table itself; "
        "the store needs double precision that it can write",
    ),
    "no key": (
        "ALTER TABLE {} DROP CONSTRAINT bars_ohlcv_pkey",
        "bars_ohlcv has no unique index on (provider, symbol, interval, ts), by which the store finds its rows",
    ),
    "a longer key": (
        "ALTER TABLE {0} DROP CONSTRAINT bars_ohlcv_pkey; "
        "ALTER TABLE {0} ADD PRIMARY KEY (provider, symbol, interval, ts, enqueued_at)",
        "bars_ohlcv has no unique index on (provider, symbol, interval, ts), by which the store finds its rows",
    ),
    "a key that is looked at later": (
        "ALTER TABLE {0} DROP CONSTRAINT bars_ohlcv_pkey; "
        "ALTER TABLE {0} ADD PRIMARY KEY (provider, symbol, interval, ts) DEFERRABLE",
        "bars_ohlcv has no unique index on (provider, symbol, interval, ts), by which the store finds its rows",
    ),
    "a materialized view": (
        "ALTER TABLE {0} RENAME TO kept; CREATE MATERIALIZED VIEW {0} AS SELECT * FROM kept",
        "bars_ohlcv is not a table: ",
    ),
    "a foreign table": (
        "DROP TABLE {0}; CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing; "
        "CREATE FOREIGN TABLE {0} (close float8) SERVER nowhere",
        "bars_ohlcv is not a table: ",
    ),
    "a view of two tables": (
        "ALTER TABLE {0} RENAME TO kept; CREATE VIEW {0} AS SELECT * FROM kept UNION ALL SELECT * FROM kept",
        "bars_ohlcv is a view that takes no rows; the store needs a table",
    ),
    "a view that computes": (
        "ALTER TABLE {0} RENAME TO kept; ALTER TABLE kept RENAME close TO cents; "
        "CREATE VIEW {0} AS SELECT *, cents / 100 AS close FROM kept",
        "bars_ohlcv.close is double precision and made by the table itself; "
        "the store needs double precision that it can write",
    ),
}


@pytest.mark.parametrize(("change", "reason"), HELD.values(), ids=HELD)
def test_a_table_that_cannot_take_what_is_sent_holds_its_dataset_with_one_line(
    writer: Writer, database: Connection, change: str, reason: str
) -> None:
    write(writer, message([bar(symbol="BEFORE")]))
    database.execute(change.format("bars_ohlcv"))
    for at in (0, 1):
        with pytest.raises(DatasetUnavailable, match=r"^bars: bars_ohlcv.* \(SQLSTATE 4.*\)$") as held:
            write(writer, message([*bars(30), 7], at=at))
        assert held.value.dataset == "bars"
        assert held.value.reason.startswith(reason)
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert write(writer, message([TICK], name="ticks"), name="ticks") == [Counts(written=1)]


@sizes
def test_a_dataset_goes_on_once_its_table_is_mended(writer: Writer, database: Connection, size: int) -> None:
    write(writer, message([bar()]))
    database.execute("ALTER TABLE bars_ohlcv ALTER volume TYPE text")
    with pytest.raises(DatasetUnavailable):
        write(writer, message(bars(size, volume=1.5), at=1))
    database.execute("ALTER TABLE bars_ohlcv ALTER volume TYPE float8 USING volume::float8")
    assert write(writer, message(bars(size, volume=1.5), at=1)) == [Counts(written=size)]
    assert select(database, "SELECT DISTINCT volume FROM bars_ohlcv") == [(1.5,)]


@sizes
@pytest.mark.parametrize("committed", [True, False])
def test_a_change_that_is_under_way_is_waited_for(
    writer: Writer, database_url: str, database: Connection, size: int, committed: bool
) -> None:
    write(writer, message([bar(symbol="BEFORE", volume=5)]))
    with psycopg.connect(database_url) as owner, ThreadPoolExecutor(1) as pool:
        owner.execute("ALTER TABLE bars_ohlcv ALTER volume TYPE bigint")
        attempt = pool.submit(write, writer, message(bars(size, volume=1000.0)))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: select(database, waiting), "the writer waits for the owner")
        owner.commit() if committed else owner.rollback()
        assert attempt.result(timeout=20) == [Counts(written=size)]
    assert select(database, "SELECT volume::float8, count(*) FROM bars_ohlcv GROUP BY 1 ORDER BY 1") == [
        (5.0, 1),
        (1000.0, size),
    ]


OTHER_FORMS = {
    "a view": "ALTER TABLE {0} RENAME TO kept; CREATE VIEW {0} AS SELECT * FROM kept",
    "a view of a view": (
        "ALTER TABLE {0} RENAME TO kept; CREATE VIEW middle AS SELECT * FROM kept; "
        "CREATE VIEW {0} AS SELECT * FROM middle WHERE close < 1000"
    ),
    "a partitioned table": (
        "ALTER TABLE {0} RENAME TO kept; CREATE TABLE {0} (LIKE kept INCLUDING ALL) PARTITION BY RANGE (ts); "
        "CREATE TABLE before PARTITION OF {0} FOR VALUES FROM (MINVALUE) TO ('2024-01-02 14:40Z'); "
        "CREATE TABLE after PARTITION OF {0} FOR VALUES FROM ('2024-01-02 14:40Z') TO (MAXVALUE)"
    ),
    "a table of a type": (
        "DROP TABLE {0} CASCADE; CREATE TYPE bar AS (provider text, symbol text, interval text, ts timestamptz, "
        "open float8, high float8, low float8, close float8, volume float8, vwap float8, trade_count bigint, "
        "enqueued_at timestamptz, final boolean, metadata jsonb); "
        "CREATE TABLE {0} OF bar (PRIMARY KEY (provider, symbol, interval, ts))"
    ),
    "an unlogged table": "ALTER TABLE {0} SET UNLOGGED",
    "columns in another order": (
        "ALTER TABLE {0} DROP volume, DROP close; ALTER TABLE {0} ADD close float8, ADD volume float8"
    ),
    "another unique index": (
        "CREATE UNIQUE INDEX ON {0} (ts, interval, symbol, provider) INCLUDE (close); "
        "ALTER TABLE {0} DROP CONSTRAINT bars_ohlcv_pkey"
    ),
    "domains": "CREATE DOMAIN price AS float8; CREATE DOMAIN cost AS price; ALTER TABLE {0} ALTER close TYPE cost",
    "columns with our names": (
        "ALTER TABLE {0} ADD n int DEFAULT 1, ADD differs int, ADD late int, ADD place int, ADD staged int, "
        "ADD stored int, ADD excluded int, ADD found int, ADD checked int"
    ),
    "defaults": (
        "ALTER TABLE {0} ALTER volume SET DEFAULT 7, ALTER vwap SET DEFAULT 7, ADD loaded timestamptz NOT NULL "
        "DEFAULT now(), ADD id bigint GENERATED ALWAYS AS IDENTITY, ADD serial bigserial, "
        "ADD mid float8 NOT NULL GENERATED ALWAYS AS ((high + low) / 2) STORED"
    ),
    "a trigger that fills a column": (
        "DELETE FROM {0}; ALTER TABLE {0} ADD loader text NOT NULL; "
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.loader := ''x''; RETURN NEW; END'; "
        "CREATE TRIGGER fill BEFORE INSERT ON {0} FOR EACH ROW EXECUTE FUNCTION fill()"
    ),
}


@sizes
@pytest.mark.parametrize("change", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_a_table_of_another_form_is_written_as_ever(
    writer: Writer, database: Connection, size: int, change: str
) -> None:
    write(writer, message([bar(symbol="BEFORE")]))
    database.execute(change.format("bars_ohlcv"))
    assert write(writer, message(bars(size))) == [Counts(written=size)]
    assert write(writer, message(bars(size), at=1)) == [Counts(unchanged=size)]
    assert write(writer, message(bars(size, close=2.5), at=2)) == [Counts(written=size)]
    assert write(writer, message(bars(size, close=3.5), at=1)) == [Counts(stale=size)]
    assert select(
        database, "SELECT close, volume, vwap, count(*) FROM bars_ohlcv WHERE symbol = 'AAPL' GROUP BY 1, 2, 3"
    ) == [(2.5, None, None, size)]


@sizes
def test_a_role_under_row_security_writes_what_its_policy_allows(
    database_url: str, database: Connection, size: int
) -> None:
    database.execute("DROP ROLE IF EXISTS secured")
    database.execute("CREATE ROLE secured LOGIN")
    try:
        database.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO secured")
        with closing(Writer(database_url.replace("postgres@", "secured@"))) as writer:
            write(writer, message([bar(symbol="BEFORE")]))
            database.execute("ALTER TABLE bars_ohlcv ENABLE ROW LEVEL SECURITY")
            database.execute("CREATE POLICY theirs ON bars_ohlcv USING (provider = 'ibkr')")
            assert write(writer, message(bars(size))) == [Counts(written=size)]
            assert write(writer, message(bars(size), at=1)) == [Counts(unchanged=size)]
            assert write(writer, message(bars(size, close=2.5), at=2)) == [Counts(written=size)]
    finally:
        database.execute("DROP OWNED BY secured; DROP ROLE secured")
