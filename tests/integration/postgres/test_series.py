"""What is stored is found by the key's index, on plain, partitioned and altered tables, and never by a whole scan."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import sql
from support.databases import Connection

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.postgres import newest_times as newest
from market_data_store.postgres import series
from market_data_store.postgres.key_index import BY_INDEX
from market_data_store.postgres.newest_times import newest_of, newest_times, rows_by_minute
from market_data_store.postgres.series import Series, newest_rows, series_of

BARS, OPTIONS, NEWS = DATASETS["bars"], DATASETS["options"], DATASETS["news"]
START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
#: That of `START`, since 1970.
MINUTES = int(START.timestamp()) // 60

#: 60 series of 400 bars each.
FILL = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at)
    SELECT (ARRAY['ibkr', 'cme', 'Z'])[i % 3 + 1], 'S' || (i / 3) % 10, (ARRAY['1m', '5m'])[i / 30 % 2 + 1],
        timestamptz '2024-01-01Z' + (i / 60) * interval '1 minute', i, i, i, i, now()
    FROM generate_series(0, 23999) AS i
"""
PARTITIONED = """
    ALTER TABLE bars_ohlcv RENAME TO plain;
    CREATE TABLE bars_ohlcv (LIKE plain INCLUDING DEFAULTS, PRIMARY KEY (provider, symbol, interval, ts))
        PARTITION BY RANGE (ts);
    CREATE TABLE early PARTITION OF bars_ohlcv FOR VALUES FROM (MINVALUE) TO ('2024-01-01 03:00Z');
    CREATE TABLE late PARTITION OF bars_ohlcv FOR VALUES FROM ('2024-01-01 03:00Z') TO (MAXVALUE)
"""
#: As a hypertable is: the table is empty, chunks inherit from it; and there is an index on the time, which misleads.
INHERITED = """
    CREATE INDEX ON bars_ohlcv (ts DESC);
    CREATE TABLE chunk (LIKE bars_ohlcv INCLUDING ALL) INHERITS (bars_ohlcv);
    CREATE FUNCTION to_chunk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO chunk SELECT NEW.*; RETURN NULL; END $$;
    CREATE TRIGGER to_chunk BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION to_chunk()
"""
ALTERED = """
    CREATE TYPE altered AS ENUM ('1m', '5m');
    ALTER TABLE bars_ohlcv ALTER interval TYPE altered USING interval::altered, ALTER symbol TYPE varchar(20),
        ALTER ts TYPE timestamptz(3), ADD own text
"""
CHANGES = {"plain": "", "partitioned": PARTITIONED, "inherited": INHERITED, "altered": ALTERED}
tables = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def fill(database: Connection, change: str = "", *, analyze: bool = True) -> None:
    for statement in (FILL, change) if change == ALTERED else (change, FILL):
        database.execute(statement)
    if analyze:
        database.execute("ANALYZE bars_ohlcv")


def counted(database: Connection) -> list[Series]:
    rows = database.execute(
        "SELECT provider, symbol, interval::text, min(ts), max(ts), count(*) FROM bars_ohlcv GROUP BY 1, 2, 3"
    ).fetchall()
    return [
        Series(provider, symbol, interval, first.astimezone(UTC), last.astimezone(UTC), rows, exact=True)
        for provider, symbol, interval, first, last, rows in sorted(rows)
    ]


def times(connection: Connection, dataset: Dataset, most: int = 1_000) -> dict[tuple[str, ...], datetime]:
    """The newest time of each key without its time, found in portions."""
    found: dict[tuple[str, ...], datetime] = {}
    after: tuple[str, ...] = ()
    while portion := newest_times(connection, dataset, most, after):
        assert len(portion) <= most
        found |= {each.names: datetime.fromtimestamp(each.ts, UTC) for each in portion}
        after = portion[-1].names
    return found


def plan_of(connection: Connection, query: str, **numbers: Any) -> str:
    composed = series.composed(query, BARS, {}, **numbers)
    with connection.transaction():
        connection.execute(BY_INDEX)
        ((plan,),) = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) {}").format(composed)).fetchall()
    return json.dumps(plan)


@tables
@pytest.mark.parametrize("analyze", [True, False], ids=["analyzed", "unknown to the planner"])
def test_the_series_are_found(database: Connection, change: str, analyze: bool) -> None:
    fill(database, change, analyze=analyze)
    expected = counted(database)
    assert len(expected) == 60
    assert series_of(database, BARS, {}, count=True) == expected
    # A sample of so small a table is all of it.
    assert series_of(database, BARS, {}) == expected
    assert series_of(database, BARS, {"provider": "cme", "symbol": ["S1", "S2", "s3"]}) == [
        each for each in expected if each.provider == "cme" and each.symbol in ("S1", "S2")
    ]
    with database.transaction():
        at_once = times(database, BARS)
        assert at_once == {(each.provider, each.symbol, each.interval): each.last for each in expected}
        assert list(at_once) == sorted(at_once)
        assert times(database, BARS, 7) == at_once
        some = [*list(at_once)[:3], ("gone", "S", "1m")] if change != ALTERED else list(at_once)[:3]
        again = newest_of(database, BARS, some)
        assert {each.names: each.ts for each in again} == {key: at_once[key].timestamp() for key in list(at_once)[:3]}
        found = rows_by_minute(database, BARS, 1_000, MINUTES - 1, MINUTES + 1)
        assert sum(rows for _, _, rows in found) == 120
        assert {(names["provider"], names["symbol"], names["interval"]) for names, *_ in found} == set(at_once)
        assert {(minute, rows) for _, minute, rows in found} == {(MINUTES, 1), (MINUTES + 1, 1)}


@tables
def test_no_plan_reads_a_whole_table(database: Connection, change: str) -> None:
    fill(database, change)
    for query, numbers in (
        (series._SERIES, {}),
        (newest._TIMES, {"most": 1_000}),
        (newest._TIMES, {"most": 10, "after": ("cme", "S1", "5m")}),
        (newest._TIME, {"after": ("cme", "S1", "5m")}),
        (newest._MINUTES, {"most": 1_000, "start": MINUTES * 60, "end": MINUTES * 60 + 120}),
        (series._NEWEST, {"limit": 10}),
    ):
        plan = plan_of(database, query, **numbers)
        assert "Seq Scan" not in plan
        assert "Index" in plan
        # An index on the time would be read from its newest end until a row of the series comes.
        assert "bars_ohlcv_ts_idx" not in plan
        assert "chunk_ts_idx" not in plan


@tables
def test_few_rows_are_touched(database: Connection, change: str) -> None:
    fill(database, change)
    with database.transaction():
        before = touched(database)
        newest_times(database, BARS, 1_000)
        scans, fetched = (after - earlier for after, earlier in zip(touched(database), before, strict=True))
    assert scans == 0
    assert 0 < fetched < 60 * 2 * 2 + 10  # a first and a last row of each, from each partition


def touched(database: Connection) -> tuple[int, int]:
    """Scans of whole tables so far, and rows fetched by an index."""
    ((scans, fetched),) = database.execute(
        "SELECT sum(seq_scan), sum(idx_tup_fetch) FROM pg_stat_xact_user_tables "
        "WHERE relname IN ('bars_ohlcv', 'early', 'late', 'chunk')"
    ).fetchall()
    return int(scans), int(fetched)


@tables
def test_the_newest_rows_are_those_of_all_series(database: Connection, change: str) -> None:
    fill(database, change)
    found = newest_rows(database, BARS, {}, 61)
    assert [row["ts"] for row in found] == ["2024-01-01T06:39:00+00:00"] * 60 + ["2024-01-01T06:38:00+00:00"]
    assert len({(row["provider"], row["symbol"], row["interval"]) for row in found[:60]}) == 60
    assert list(found[0]) == [column.name for column in BARS.columns]
    (row,) = newest_rows(database, BARS, {"symbol": ["S3"], "interval": "5m", "provider": "Z"}, 1)
    assert (row["provider"], row["symbol"], row["interval"], row["ts"]) == (
        "Z",
        "S3",
        "5m",
        "2024-01-01T06:39:00+00:00",
    )
    assert newest_rows(database, BARS, {"symbol": "s3"}, 5) == []


def test_a_small_series_is_counted_and_a_large_one_estimated(
    database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    database.execute(
        "INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at) "
        "SELECT 'few', 'F', '1m', now() - i * interval '1 hour', 1, 1, 1, 1, now() FROM generate_series(1, 99) AS i"
    )
    monkeypatch.setattr(series, "_SAMPLED_PAGES", 100)
    found = {(each.provider, each.rows): each.exact for each in series_of(database, BARS, {})}
    assert found.pop(("few", 99)) is True
    assert set(found.values()) == {False}
    estimates = [rows for _, rows in found]
    assert min(estimates) >= 100
    assert 200 < sum(estimates) / len(estimates) < 800


def test_the_series_of_options_are_not_their_contracts(database: Connection) -> None:
    database.execute(
        "INSERT INTO options_snap (provider, symbol, expiry, strike, option_type, ts, enqueued_at) SELECT 'p', "
        "'S' || i % 2, date '2024-03-01' + i % 7, i % 5, 'C', timestamptz '2024-01-01Z' + i * interval '1 minute', "
        "now() FROM generate_series(0, 499) AS i"
    )
    assert series_of(database, OPTIONS, {}) == [
        Series("p", f"S{i}", None, START + i * MINUTE, START + (498 + i) * MINUTE, 250, True) for i in (0, 1)
    ]
    with database.transaction():
        contracts = times(database, OPTIONS, 9)
        assert len(contracts) == 70
        assert max(contracts.values()) == START + 499 * MINUTE
    assert [row["ts"] for row in newest_rows(database, OPTIONS, {"symbol": "S0"}, 2)] == [
        "2024-01-01T08:18:00+00:00",
        "2024-01-01T08:16:00+00:00",
    ]


def test_news_are_a_series_of_their_provider(database: Connection) -> None:
    database.execute(
        "INSERT INTO news (provider, ts, id, title, symbol, enqueued_at) SELECT 'p' || i % 2, timestamptz "
        "'2024-01-01Z' + i * interval '1 minute', i, 't', 'S' || i % 3, now() FROM generate_series(0, 9) AS i"
    )
    assert [(each.provider, each.symbol, each.rows) for each in series_of(database, NEWS, {})] == [
        ("p0", None, 5),
        ("p1", None, 5),
    ]
    assert [row["id"] for row in newest_rows(database, NEWS, {"symbol": "S1"}, 2)] == ["7", "4"]


def test_an_empty_dataset_has_no_series(database: Connection) -> None:
    for dataset in DATASETS.values():
        assert series_of(database, dataset, {}) == []
        assert newest_rows(database, dataset, {}, 5) == []
        with database.transaction():
            assert newest_times(database, dataset, 10) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE bars_ohlcv RENAME TO kept; CREATE VIEW bars_ohlcv AS SELECT * FROM kept",
        "ALTER TABLE bars_ohlcv DROP CONSTRAINT bars_ohlcv_pkey, ADD PRIMARY KEY (ts, provider, symbol, interval)",
        "CREATE TABLE pg_dist_partition ()",
    ],
    ids=["view", "another order of the key", "Citus"],
)
def test_without_the_keys_index_the_rows_are_counted(database: Connection, change: str) -> None:
    fill(database)
    expected = counted(database)
    newest = newest_rows(database, BARS, {"provider": "cme"}, 3)
    database.execute(change)
    assert series_of(database, BARS, {}) == expected
    assert newest_rows(database, BARS, {"provider": "cme"}, 3) == newest
    with database.transaction():
        assert newest_times(database, BARS, 1_000) is None
