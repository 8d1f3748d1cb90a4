"""What Postgres remembers of messages whose broker does not say when they were first taken."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.databases import Connection
from support.writing import noise, select

from market_data_store.postgres.writer import Writer

T = 1_760_000_000.123_456


def test_a_take_is_remembered_until_its_message_is_done(writer: Writer, database: Connection) -> None:
    writer.remember_takes({"b": T + 1, "a": T}, ())
    assert writer.first_takes(["a", "b", "c"]) == {"a": T, "b": T + 1}
    writer.remember_takes({"c": T + 2}, {"a", "b"})
    assert writer.first_takes(["a", "b", "c"]) == {"c": T + 2}


def test_a_message_that_is_new_does_not_inherit_the_take_of_its_id(writer: Writer) -> None:
    writer.remember_takes({"hourly-load": T}, ())
    writer.remember_takes({"hourly-load": T + 3_600}, {"hourly-load"})
    assert writer.first_takes(["hourly-load"]) == {"hourly-load": T + 3_600}


@pytest.mark.parametrize("task_id", ["a\0b", "\ud800", noise(9_000, 1)], ids=["NUL", "surrogate", "long"])
def test_any_id_can_be_remembered(writer: Writer, task_id: str) -> None:
    writer.remember_takes({task_id: T}, {task_id})
    assert writer.first_takes([task_id]) == {task_id: T}


def test_what_dead_workers_left_goes_after_a_week(writer: Writer, database: Connection) -> None:
    writer.remember_takes({"old": time.time() - 8 * 86_400, "new": time.time() - 6 * 86_400}, ())
    writer.first_takes(["x"])
    assert select(database, "SELECT task_id FROM first_takes") == [("new",)]


@pytest.fixture
def zone(database_url: str) -> Iterator[Writer]:
    writer = Writer(f"{database_url}?options=-c%20timezone%3DAsia/Kolkata")
    yield writer
    writer.close()


def test_a_take_and_the_servers_time_do_not_depend_on_the_time_zone(zone: Writer, database: Connection) -> None:
    zone.remember_takes({"a": T}, ())
    assert zone.first_takes(["a"]) == {"a": T}
    assert abs(zone.time() - time.time()) < 5
