"""`mds status` says what is stored, and takes no longer for it whatever state the tables are in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from support.databases import Connection
from support.waiting import wait_until

from market_data_store.cli.status import _feeds, _stored
from market_data_store.datasets import DATASETS
from market_data_store.status import stored
from market_data_store.status.database import DatabaseReader
from market_data_store.status.freshness import Feed, FeedName, ordered
from market_data_store.status.stored import Summary

BARS = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at)
    SELECT 'p', 'S' || i % 5, '1m', timestamptz '2024-01-01Z' + i * interval '1 minute', 1, 1, 1, 1, now()
    FROM generate_series(0, 99) AS i
"""
NEWEST = datetime(2024, 1, 1, 1, 39, tzinfo=UTC)
EMPTY, UNKNOWN = Summary(0, None), Summary(None, None)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look has time for all datasets, however busy the machine is."""
    monkeypatch.setattr(stored, "_BUDGET_S", 10.0)


@pytest.fixture
def reader(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabaseReader]:
    """Looks each time anew."""
    monkeypatch.setattr(stored, "_REST_S", 0.0)
    monkeypatch.setattr(stored, "_REST_TIMES", 0.0)
    reader = DatabaseReader(database_url)
    yield reader
    reader.close()


def looked(reader: DatabaseReader) -> dict[str, Summary]:
    """What is known of each dataset, without the estimate of its rows."""
    return {name: found._replace(rows=None) for name, found in reader.read().stored.items()}


@pytest.mark.usefixtures("unhurried")
def test_each_dataset_has_its_series_and_its_newest_row(database: Connection, reader: DatabaseReader) -> None:
    database.execute(BARS)
    assert looked(reader) == dict.fromkeys(DATASETS, EMPTY) | {"bars": Summary(5, NEWEST)}


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE bars_ohlcv RENAME TO away",
        "ALTER TABLE bars_ohlcv ALTER ts TYPE timestamp",
        "ALTER TABLE bars_ohlcv DROP ts",
        "ALTER TABLE bars_ohlcv RENAME TO kept; CREATE VIEW bars_ohlcv AS SELECT * FROM kept",
        "UPDATE bars_ohlcv SET ts = 'infinity' WHERE ts = '2024-01-01Z'",
    ],
)
@pytest.mark.usefixtures("unhurried")
def test_what_cannot_be_found_out_is_unknown_and_hides_nothing_else(
    database: Connection, reader: DatabaseReader, change: str
) -> None:
    database.execute(BARS)
    database.execute(change)
    assert looked(reader) == dict.fromkeys(DATASETS, EMPTY) | {"bars": UNKNOWN}


def test_many_series_are_not_looked_through(
    database: Connection, reader: DatabaseReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(BARS)
    monkeypatch.setattr(stored, "_MOST", 4)
    assert looked(reader)["bars"] == UNKNOWN
    monkeypatch.setattr(stored, "_MOST", 5)
    assert looked(reader)["bars"] == Summary(5, NEWEST)


def test_a_locked_table_costs_no_more_than_its_share(
    database: Connection, database_url: str, reader: DatabaseReader
) -> None:
    database.execute(BARS)
    reader.read()
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE bars_ohlcv IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        found = [looked(reader) for _ in range(2)]
        assert time.monotonic() - started < 2 * (stored._BUDGET_S + 0.7)
        # It took all the time there was; the others come first in the next look.
        assert found[-1]["bars"] == UNKNOWN
        assert found[-1]["ticks"] == EMPTY
    wait_until(lambda: looked(reader)["bars"] == Summary(5, NEWEST), "it is looked at again")


def test_a_dataset_is_not_looked_at_all_the_time(
    database: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_REST_S", 3_600.0)
    reader = DatabaseReader(database_url)
    before = looked(reader)
    database.execute(BARS)
    assert looked(reader) == before
    reader.close()


def test_the_line_of_mds_status() -> None:
    found = {"bars": Summary(1_205, NEWEST), "ticks": EMPTY, "quotes": UNKNOWN}
    assert _stored(found) == "bars 1,205 series, newest 2024-01-01 01:39:00Z; quotes unknown"
    assert _stored({"bars": EMPTY}) == "nothing"
    assert (
        _stored({"bars": Summary(5, NEWEST, 1_234)}) == "bars 5 series, about 1,234 rows, newest 2024-01-01 01:39:00Z"
    )
    assert _stored({"bars": Summary(None, None, 9_000_000)}) == "bars about 9,000,000 rows"


def test_the_line_of_mds_status_names_feeds_that_have_stopped() -> None:
    feeds = [Feed(FeedName("bars", f"p{n}", "all"), 0.0, 60.0 * n, 150.0) for n in range(9)]
    assert _feeds(ordered(feeds[:2])) == "2"
    assert _feeds(ordered(feeds[:4])) == "4; 1 stopped; bars:p3:all is silent for 0:03:00 (limit 0:02:30)"
    assert _feeds(ordered(feeds)).startswith("9; 6 stopped; bars:p3:all is silent")
    assert _feeds(ordered(feeds)).endswith("(limit 0:02:30); ...")
    assert _feeds(ordered([])) == "none"
