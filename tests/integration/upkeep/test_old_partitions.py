"""Old partitions go as a whole: archived if that is asked for, whatever ends the work, and no writer waits for it."""

from __future__ import annotations

import re
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.databases import Connection
from support.partitions import partitions
from support.waiting import wait_until
from support.writing import select

from market_data_store.datasets import DATASETS
from market_data_store.datasets.spans import Span
from market_data_store.errors import ArchiveFailed, DatasetUnavailable
from market_data_store.files import archiving
from market_data_store.files.archiving import archiver
from market_data_store.files.options import Options
from market_data_store.files.plan import make_plan
from market_data_store.files.rows import made_rows
from market_data_store.postgres import leaving, retention, schema
from market_data_store.postgres.leaving import begun
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.partitioning import make
from market_data_store.postgres.partitions import partitions_of
from market_data_store.postgres.writer import Writer
from market_data_store.upkeep.retention import Retention
from market_data_store.wire.arrow import frame_of, read_table

TICKS = DATASETS["ticks"]
#: All of March and April, and the first days of May.
LIMIT = datetime(2024, 5, 4, tzinfo=UTC)
OLD = ["tick_data_p2024_03", "tick_data_p2024_04"]
ROWS = """
    INSERT INTO tick_data (provider, symbol, ts, seq, price, size, conditions, metadata, enqueued_at)
    SELECT 'p', 'S' || i % 3, timestamptz '2024-03-01 00:00Z' + i * interval '1 day', i, i + 0.1,
           CASE WHEN i % 2 = 0 THEN 'NaN'::float8 END, CASE WHEN i % 5 = 0 THEN ARRAY['a,b', 'é'] END,
           CASE WHEN i % 7 = 0 THEN jsonb_build_object('i', i) END, now()
    FROM generate_series(0, 79) AS i
"""
DAYS_OF_OLD = 31 + 30


@pytest.fixture
def ticks(database: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A connection to a database with ticks of March, April and May."""
    with partitions(monkeypatch, "ticks=month"):
        schema.upgrade(database_url)
        for month in (3, 4, 5):
            make(database, TICKS, Span.MONTH, datetime(2024, month, 1, tzinfo=UTC))
        database.execute(ROWS)
        yield database


def names(database: Connection) -> list[str]:
    return [each.name for each in partitions_of(database, TICKS)]


def rows(database: Connection) -> int:
    return int(select(database, "SELECT count(*) FROM tick_data")[0][0])


def tables(database: Connection) -> list[str]:
    found = select(database, "SELECT relname FROM pg_class WHERE relname LIKE 'tick_data_p2024%' AND relkind = 'r'")
    return sorted(name for (name,) in found)


def delete(database: Connection, archive: Any = None, guard: Callable[[], None] = lambda: None) -> str:
    parts = retention.delete(database, "ticks", LIMIT, guard, archive)
    return str(retention.total("ticks", LIMIT, parts))


def test_whole_partitions_go_and_rows_of_the_one_that_is_partly_old(ticks: Connection) -> None:
    assert str(retention.count(ticks, "ticks", LIMIT)) == "2 partitions and 3 rows of ticks"
    assert delete(ticks) == "2 partitions and 3 rows of ticks"
    assert (names(ticks)[0], rows(ticks)) == ("tick_data_p2024_05", 80 - DAYS_OF_OLD - 3)
    assert not begun(ticks, TICKS)
    assert delete(ticks) == "0 rows of ticks"


def test_the_upkeep_says_what_it_dropped(ticks: Connection, tmp_path: Path) -> None:
    days = {"ticks": (datetime.now(UTC) - LIMIT).days, "bars": 9}
    run = Retention(days, automatic=False).run(ticks, LIMIT, lambda: None)
    assert re.match("would delete 2 partitions and [34] rows of ticks; MDS_RETENTION_AUTO=1", run.said), run.said
    service = Retention(days, automatic=True, archive=archiver(str(tmp_path)))
    run = service.run(ticks, LIMIT, lambda: None)
    assert run.said == (
        "deleted 2 partitions of ticks; bars failed: MDS_ARCHIVE_DIR is set, and only partitions are archived; give "
        "bars partitions (MDS_PARTITIONS=bars=month), or unset MDS_ARCHIVE_DIR"
    )


def test_an_archive_has_the_rows_and_can_be_loaded(ticks: Connection, database_url: str, tmp_path: Path) -> None:
    writer = Writer(database_url)
    ticks.execute("UPDATE tick_data SET size = NULL")
    columns = "provider, symbol, ts, seq, price, size, conditions, metadata"
    before = select(ticks, f"SELECT {columns} FROM tick_data WHERE ts < '2024-05-01 00:00Z' ORDER BY ts")
    assert delete(ticks, archiver(str(tmp_path))) == "2 partitions of ticks"
    files = sorted(tmp_path.rglob("*"))[1:]
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [f"ticks/{name}.parquet" for name in OLD]
    assert [pq.read_metadata(file).num_rows for file in files] == [31, 30]
    for month in (3, 4):
        make(ticks, TICKS, Span.MONTH, datetime(2024, month, 1, tzinfo=UTC))
    for file in files:
        for made in made_rows(make_plan(file, Options(dataset=TICKS))):
            assert not made.bad
            sent = read_table(TICKS, frame_of(made.table), made.constants)
            message = DecodedMessage(task_id=file.name, dataset=TICKS, rows=sent, enqueued_at=0)
            (counts,) = writer.write(decoded(TICKS, [message]), [message]).counts
            assert counts.written == counts.rows
    assert select(ticks, f"SELECT {columns} FROM tick_data WHERE ts < '2024-05-01 00:00Z' ORDER BY ts") == before
    writer.close()


@contextmanager
def small_disk(most_bytes: int) -> Iterator[None]:
    """Let no file of this process become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def nothing_is_dropped(database: Connection, tmp_path: Path) -> None:
    assert (names(database)[:2], rows(database)) == (OLD, 80)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_room_on_the_disk_nothing_is_dropped(ticks: Connection, tmp_path: Path) -> None:
    with small_disk(1_000), pytest.raises(ArchiveFailed, match=r"tick_data_p2024_03: cannot be archived .*too large"):
        delete(ticks, archiver(str(tmp_path)))
    nothing_is_dropped(ticks, tmp_path)


def test_without_the_directory_nothing_is_dropped(ticks: Connection, tmp_path: Path) -> None:
    with pytest.raises(
        ArchiveFailed, match=r"cannot be archived in /dev/null/ticks: Not a directory; nothing is dropped"
    ):
        delete(ticks, archiver("/dev/null"))
    nothing_is_dropped(ticks, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_a_file_that_is_not_what_was_written_drops_nothing(
    ticks: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    write = archiving._write

    def damaged(connection: Connection, partition: Any, part: Path) -> Any:
        digest = write(connection, partition, part)
        if damage == "cut":
            part.write_bytes(part.read_bytes()[:-100])
        else:
            table = pq.read_table(part)
            wrong = table.slice(0, 0 if damage == "emptied" else len(table) - 1)
            pq.write_table(wrong if damage == "emptied" else _with_first_again(wrong), part)
        return digest

    monkeypatch.setattr(archiving, "_write", damaged)
    said = {
        "cut": "cannot be read back",
        "changed": "has other values than the table",
        "emptied": "has 0 rows, the table 31",
    }
    with pytest.raises(ArchiveFailed, match=said[damage]):
        delete(ticks, archiver(str(tmp_path)))
    nothing_is_dropped(ticks, tmp_path)


def _with_first_again(table: Any) -> Any:
    return pa.concat_tables([table.slice(0, 1), table])


def test_rows_that_change_while_they_are_archived_drop_nothing(ticks: Connection, tmp_path: Path) -> None:
    archive = archiver(str(tmp_path))
    assert archive is not None

    def changed(connection: Connection, partition: Any, count: int) -> None:
        archive(connection, partition, count)
        connection.execute("UPDATE tick_data SET price = -price WHERE seq = 3")

    with pytest.raises(ArchiveFailed, match="tick_data_p2024_03: rows were written while it was archived"):
        delete(ticks, changed)
    assert (names(ticks)[:2], rows(ticks)) == (OLD, 80)
    # At the next try it is archived as it is, beside the file that is there.
    assert delete(ticks, archive) == "2 partitions of ticks"
    first, second = (tmp_path / f"ticks/tick_data_p2024_03{end}.parquet" for end in ("", "_2"))
    prices = [min(pq.read_table(path).column("price").to_pylist()) for path in (first, second)]
    assert prices == [0.1, -3.1]


def test_rows_that_change_after_it_was_detached_are_archived_again(ticks: Connection, tmp_path: Path) -> None:
    calls: list[None] = []

    def guard() -> None:
        calls.append(None)
        if len(calls) == 2:  # in the transaction that drops
            ticks.execute("UPDATE tick_data_p2024_03 SET price = 0 WHERE seq = 3")

    with pytest.raises(ArchiveFailed, match="tick_data_p2024_03: rows were written after it was archived"):
        delete(ticks, archiver(str(tmp_path)), guard)
    assert OLD[0] in tables(ticks)


class Killed(Exception):
    """What ends the work in a test."""


def test_a_run_that_ends_between_detaching_and_dropping_is_finished_by_the_next(ticks: Connection) -> None:
    calls: list[None] = []

    def guard() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise Killed

    with pytest.raises(Killed):
        delete(ticks, None, guard)
    assert (names(ticks)[0], tables(ticks)[0]) == (OLD[1], OLD[0])
    assert [each.name for each in begun(ticks, TICKS)] == [OLD[0]]
    assert delete(ticks) == "2 partitions and 3 rows of ticks"
    assert tables(ticks)[0] == "tick_data_p2024_05"
    assert not begun(ticks, TICKS)


def test_what_is_to_be_kept_longer_by_then_is_attached_again(ticks: Connection) -> None:
    calls: list[None] = []

    def guard() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise Killed

    with pytest.raises(Killed):
        delete(ticks, None, guard)
    assert [*retention.delete(ticks, "ticks", LIMIT - timedelta(days=365))] == []
    assert (names(ticks)[:2], rows(ticks)) == (OLD, 80)


def test_no_writer_waits_while_a_reader_keeps_a_partition(
    ticks: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def work() -> None:
        with psycopg.connect(database_url, autocommit=True) as own:
            done.append(delete(own))

    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM tick_data")  # in a transaction, which stays open
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: OLD[0] not in [each.name for each in partitions_of(ticks, TICKS) if not each.is_leaving])
        ticks.execute("SET lock_timeout = '100ms'")
        ticks.execute("INSERT INTO tick_data SELECT * FROM tick_data WHERE false")
        ticks.execute("UPDATE tick_data SET price = 1 WHERE ts = '2024-05-10 00:00Z'")
        assert not done
    thread.join(30)
    assert done == ["2 partitions and 3 rows of ticks"]


def test_a_reader_that_stays_too_long_is_said_and_the_next_run_goes_on(
    ticks: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "_DETACH_S", 0.3)
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM tick_data")
        with pytest.raises(DatasetUnavailable, match="tick_data_p2024_03 is still read by a transaction"):
            delete(ticks)
        assert [each.state for each in partitions_of(ticks, TICKS)][:2] == ["leaving", "attached"]
    assert delete(ticks) == "2 partitions and 3 rows of ticks"
