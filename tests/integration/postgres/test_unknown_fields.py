"""What was seen of unknown fields is added up in Postgres, bounded, and by several processes at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from support.databases import Connection

from market_data_store.postgres.connection import connect
from market_data_store.postgres.unknown_fields import UnknownField, add, listed
from market_data_store.status.database import DatabaseReader
from market_data_store.wire.seen import MOST_NAMES, OTHERS, Seen


def by_name(database: Connection, dataset: str = "bars") -> dict[str, UnknownField]:
    return {each.name: each for each in listed(database, dataset)}


def test_counts_and_kinds_add_up_and_the_first_time_stays(database: Connection) -> None:
    add(database, {"bars": {"lots": Seen(2, {"integer"})}, "ticks": {"lots": Seen(1, {"text"})}})
    first = by_name(database)["lots"]
    add(database, {"bars": {"lots": Seen(3, {"number", "integer"}), "": Seen(1, {"text"})}})
    found = by_name(database)
    assert (found["lots"].rows, found["lots"].kinds, found["lots"].column) == (5, ["integer", "number"], None)
    assert found["lots"].first_at == first.first_at
    assert found["lots"].last_at > first.last_at
    assert found[""].rows == 1
    assert {(each.dataset, each.name) for each in listed(database)} == {
        ("bars", "lots"),
        ("bars", ""),
        ("ticks", "lots"),
    }


def test_names_beyond_the_bound_and_odd_ones_are_counted_together(database: Connection) -> None:
    for start in (0, 150, 300):
        add(database, {"bars": {f"n{number}": Seen(1, {"text"}) for number in range(start, start + 150)}})
    add(database, {"bars": {"a\0b": Seen(1), "\ud800": Seen(1), "n0": Seen(1, {"text"}), "'; DROP": Seen(1)}})
    found = by_name(database)
    assert len(found) == MOST_NAMES + 1
    assert found["n0"].rows == 2
    assert (found[OTHERS].rows, found[OTHERS].kinds) == (450 - MOST_NAMES + 3, [])


def test_processes_that_store_at_once_neither_deadlock_nor_lose_a_count(
    database_url: str, database: Connection
) -> None:
    names = [f"n{number}" for number in range(40)]

    def store(order: int) -> None:
        with connect(database_url) as connection:
            for _ in range(10):
                add(connection, {"ticks": {name: Seen(1, {"text"}) for name in names[::order]}})

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(store, order) for order in (1, -1, 1, -1)]:
            each.result()
    assert {each.rows for each in by_name(database, "ticks").values()} == {40}


def test_a_locked_table_ends_the_try(database_url: str, database: Connection) -> None:
    with connect(database_url) as other, database.transaction():
        database.execute("LOCK TABLE unknown_fields IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            add(other, {"bars": {"lots": Seen(1)}})


def test_the_status_has_the_newest_fifty(database_url: str, database: Connection) -> None:
    add(database, {"bars": {f"n{number:02}": Seen(1, {"text"}) for number in range(60)}})
    add(database, {"ticks": {"lots": Seen(7, {"integer"}), OTHERS: Seen(1)}})
    reader = DatabaseReader(database_url)
    try:
        found = reader.read().unknown
    finally:
        reader.close()
    assert found is not None
    assert len(found) == 50
    assert (found[0].dataset, found[0].name, found[0].rows) == ("ticks", "lots", 7)
    assert found[1].name == "n00"
