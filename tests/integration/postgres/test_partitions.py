"""Tables with partitions: made ahead and on demand, written like plain tables, and bounded whatever times arrive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from support.databases import Connection
from support.partitions import partitions
from support.waiting import wait_until
from support.writing import bar, bars, message, select, write, written

from market_data_store.datasets import DATASETS
from market_data_store.datasets.spans import Span
from market_data_store.errors import PartitionsMissing
from market_data_store.postgres import schema
from market_data_store.postgres.converting import convert
from market_data_store.postgres.partitioning import make
from market_data_store.postgres.partitions import is_partitioned, partitions_of
from market_data_store.postgres.partitions_wanted import wanted
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts
from market_data_store.upkeep.partitions import Partitions

BARS = DATASETS["bars"]
JANUARY = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def by_month(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with partitions(monkeypatch):
        schema.upgrade(database_url)
        yield


@pytest.fixture
def monitor(database_url: str, by_month: None) -> Iterator[Partitions]:
    """The service of the monitor that makes partitions."""
    service = Partitions(database_url, {"bars": Span.MONTH})
    service.start()
    yield service
    service.stop()


def names(database: Connection) -> list[str]:
    return [each.name for each in partitions_of(database, BARS)]


def test_a_migration_partitions_an_empty_table_and_makes_some_ahead(by_month: None, database: Connection) -> None:
    assert is_partitioned(database, BARS)
    now = datetime.now(UTC)
    assert names(database)[0] == f"bars_ohlcv_p{now:%Y_%m}"
    assert len(names(database)) == 4
    # What was the table's is each partition's.
    assert select(
        database, "SELECT DISTINCT reloptions FROM pg_class WHERE relname LIKE 'bars_ohlcv_p2%' AND relkind = 'r'"
    ) == [(["fillfactor=80"],)]
    assert select(
        database, "SELECT conname FROM pg_constraint WHERE conrelid = 'bars_ohlcv'::regclass AND contype = 'p'"
    ) == [("bars_ohlcv_pkey",)]


def test_a_second_migration_does_nothing(by_month: None, database: Connection, database_url: str) -> None:
    before, lines = names(database), list[str]()
    schema.upgrade(database_url, lines.append)
    assert (names(database), lines) == (before, [])


def test_only_the_messages_without_a_partition_wait(by_month: None, database: Connection, writer: Writer) -> None:
    now = datetime.now(UTC).isoformat()
    late, fresh = message([bar()]), message([bar(ts=now)])
    with pytest.raises(PartitionsMissing, match=r"bars: no partition for 2024_01; the monitor makes it") as caught:
        write(writer, fresh, late)
    assert caught.value.messages == {1}
    assert select(database, "SELECT count(*) FROM bars_ohlcv") == [(0,)]
    assert [(each.dataset, each.starts) for each in wanted(database)] == [("bars", JANUARY)]
    assert write(writer, fresh) == [Counts(written=1)]


def test_the_monitor_makes_what_is_asked_for(monitor: Partitions, database: Connection, writer: Writer) -> None:
    with pytest.raises(PartitionsMissing):
        write(writer, message([bar(), bar(ts="1999-12-31T23:59:59.999999Z")]))
    wait_until(lambda: not wanted(database))
    assert names(database)[:2] == ["bars_ohlcv_p1999_12", "bars_ohlcv_p2024_01"]
    assert write(writer, message([bar(), bar(ts="1999-12-31T23:59:59.999999Z")])) == [Counts(written=2)]


def test_a_time_too_far_away_is_a_letter_and_the_others_are_written(
    by_month: None, database: Connection, writer: Writer
) -> None:
    now = datetime.now(UTC)
    near, far = (now + timedelta(days=1)).isoformat(), (now + timedelta(days=400)).isoformat()
    found = written(writer, message([bar(ts=near), bar(ts=far), bar(ts=far, close=2.0), bar(ts="1901-01-01")]))
    assert found.counts == [Counts(written=1, rejected=3)]
    assert [each.reason for each in found.rejections[0]] == [
        f"ts: {far} is more than 366 days ahead: no partition is made for it",
        f"ts: {far} is more than 366 days ahead: no partition is made for it",
        "ts: 1901-01-01T00:00:00+00:00 is more than 100 years ago: no partition by month is made for it; use longer "
        "partitions",
    ]
    assert not wanted(database)
    assert len(names(database)) == 4


def test_a_partition_that_goes_away_is_asked_for(by_month: None, database: Connection, writer: Writer) -> None:
    make(database, BARS, Span.MONTH, JANUARY)
    assert write(writer, message(bars(30))) == [Counts(written=30)]
    database.execute("DROP TABLE bars_ohlcv_p2024_01")
    with pytest.raises(PartitionsMissing, match="2024_01"):
        write(writer, message(bars(30)), message(bars(30, symbol="B")))
    assert [each.starts for each in wanted(database)] == [JANUARY]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]
    make(database, BARS, Span.MONTH, JANUARY)
    assert write(writer, message(bars(30))) == [Counts(written=30)]


def test_replays_newer_and_stale_rows_count_as_on_a_plain_table(
    by_month: None, database: Connection, writer: Writer
) -> None:
    for start in (JANUARY, datetime(2024, 2, 1, tzinfo=UTC)):
        make(database, BARS, Span.MONTH, start)
    rows = [*bars(40), *(bar(ts=f"2024-02-{day:02}") for day in range(1, 29))]
    assert write(writer, message(rows)) == [Counts(written=68)]
    assert write(writer, message(rows)) == [Counts(unchanged=68)]
    newer = [{**row, "close": 9.0} for row in rows]
    assert write(writer, message(newer, at=10)) == [Counts(written=68)]
    assert write(writer, message(rows, at=5)) == [Counts(stale=68)]
    assert write(writer, message([newer[0], {**newer[0], "close": 1.0}], at=20)) == [Counts(written=1, superseded=1)]


def test_gaps_between_partitions_of_others_are_filled(by_month: None, database: Connection) -> None:
    database.execute(
        "CREATE TABLE other PARTITION OF bars_ohlcv FOR VALUES FROM ('2024-01-05 00:00Z') TO ('2024-01-20 00:00Z')"
    )
    assert make(database, BARS, Span.MONTH, JANUARY) == ["bars_ohlcv_p2024_01_01", "bars_ohlcv_p2024_01_20"]
    assert make(database, BARS, Span.MONTH, JANUARY) == []


def test_making_one_waits_for_no_writer_and_no_writer_waits(
    by_month: None, database: Connection, database_url: str
) -> None:
    make(database, BARS, Span.MONTH, JANUARY)
    with psycopg.connect(database_url) as other:
        other.execute("DELETE FROM bars_ohlcv")  # the lock of a writer, until the end of the block
        assert make(database, BARS, Span.MONTH, datetime(2016, 3, 1, tzinfo=UTC)) == ["bars_ohlcv_p2016_03"]


def test_a_table_with_rows_is_converted_with_all_that_belongs_to_it(
    database: Connection, database_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer, message([*bars(50), bar(ts="2016-03-01"), bar(ts="2016-02-29T23:59:59.999999Z")]))
    database.execute("""
        ALTER TABLE bars_ohlcv ADD COLUMN note text DEFAULT 'own';
        CREATE INDEX by_symbol ON bars_ohlcv (symbol);
        COMMENT ON TABLE bars_ohlcv IS 'what''s ours';
        GRANT SELECT ON bars_ohlcv TO PUBLIC;
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER mine BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION nothing()
    """)
    before = select(database, "SELECT * FROM bars_ohlcv ORDER BY ts, symbol")
    with partitions(monkeypatch):
        lines: list[str] = []
        schema.upgrade(database_url, lines.append)
        assert lines == ["bars: the table bars_ohlcv is plain; `mds partitions convert bars` partitions it by month"]
        assert schema.due_tables(database_url) == lines
        # Until then it is written as ever.
        assert write(writer, message([bar()])) == [Counts(unchanged=1)]
        assert convert(database, BARS, Span.MONTH) == 52
        assert select(database, "SELECT * FROM bars_ohlcv ORDER BY ts, symbol") == before
        assert names(database)[:3] == ["bars_ohlcv_p2016_02", "bars_ohlcv_p2016_03", "bars_ohlcv_p2024_01"]
        extras = """
            SELECT obj_description(oid, 'pg_class'), has_table_privilege('pg_monitor', oid, 'SELECT'),
                   ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = pg_class.oid),
                   (SELECT count(*) FROM pg_index WHERE indrelid = pg_class.oid)
            FROM pg_class WHERE oid = 'bars_ohlcv'::regclass
        """
        assert select(database, extras) == [("what's ours", True, ["mine"], 2)]
        assert write(writer, message([bar(), bar(ts="2016-03-31T23:59:59Z")])) == [Counts(written=1, unchanged=1)]


def test_what_stands_in_the_way_of_a_conversion_is_said(
    database: Connection, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer, message([bar()]))
    database.execute("CREATE VIEW seen AS SELECT * FROM bars_ohlcv")
    with partitions(monkeypatch), pytest.raises(Exception, match="the view seen reads it; drop the view"):
        convert(database, BARS, Span.MONTH)
    assert not is_partitioned(database, BARS)
    assert select(database, "SELECT count(*) FROM bars_ohlcv") == [(1,)]


def test_a_conversion_that_is_killed_leaves_the_old_table(
    database: Connection, database_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer, message(bars(50)))
    with partitions(monkeypatch), psycopg.connect(database_url, autocommit=True) as other:

        def kill(line: str) -> None:
            if "copied" in line:
                database.execute("SELECT pg_terminate_backend(%s)", [other.info.backend_pid])

        with pytest.raises(psycopg.OperationalError):
            convert(other, BARS, Span.MONTH, kill)
    assert not is_partitioned(database, BARS)
    assert select(database, "SELECT count(*) FROM bars_ohlcv") == [(50,)]
    assert select(database, "SELECT count(*) FROM pg_class WHERE relname LIKE 'bars_ohlcv_%2024%'") == [(0,)]
