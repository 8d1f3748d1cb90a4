"""Whether a database is nearly full."""

from __future__ import annotations

import pytest
from support.databases import Connection

from market_data_store.postgres import room
from market_data_store.postgres.room import Room


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_INTERVAL_S", 0.0)


def size(database: Connection) -> int:
    ((found,),) = database.execute("SELECT pg_database_size(current_database())").fetchall()
    return int(found)


def test_a_database_is_full_from_95_per_cent_of_its_quota_until_it_is_below_90(database: Connection) -> None:
    watched = Room(round(size(database) / 0.85))
    assert not watched.look(database)
    database.execute("CREATE TABLE filler AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 3000)")
    assert watched.look(database)
    watched._quota = round(size(database) / 0.92)
    assert watched.look(database)  # it has not fallen far enough
    database.execute("DROP TABLE filler")
    assert not watched.look(database)


def test_a_disk_without_room_makes_it_full_too_where_the_server_is_on_this_machine(
    database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Room(0)
    for free, expected in ((5 << 30, False), (900 << 20, True), (3 << 29, True), (3 << 30, False)):
        monkeypatch.setattr(room, "disk_free", lambda _, free=free: free)
        assert watched.look(database) is expected, free


def test_it_is_not_asked_more_often_than_every_ten_seconds(
    database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_INTERVAL_S", 10.0)
    watched = Room(1)
    assert watched.look(database)
    watched._quota = 0
    assert watched.look(database)
