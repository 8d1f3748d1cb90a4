"""An attempt that was left open counts as a death, unless its process may have survived."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from support.databases import Connection
from support.waiting import wait_until

from market_data_store.postgres.attempts import close_attempt, open_attempt
from market_data_store.postgres.writer import Writer


class Process:
    """Stands for a pool process by what Postgres knows of one: its session."""

    def __init__(self, url: str, database: Connection) -> None:
        self._database = database
        self.session = psycopg.connect(url, autocommit=True)

    def opens(self, task_id: str, *, reconnected: bool = False) -> int:
        return open_attempt(self.session, task_id, reconnected=reconnected)

    def dies(self) -> None:
        pid = self.session.info.backend_pid
        self.session.close()
        wait_until(lambda: self._database.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).rowcount == 0)


@pytest.fixture
def processes(database_url: str, database: Connection) -> Iterator[list[Process]]:
    processes = [Process(database_url, database) for _ in range(4)]
    yield processes
    for process in processes:
        process.session.close()


def test_each_process_that_died_of_a_message_is_counted(processes: list[Process]) -> None:
    deaths = []
    for process in processes:
        deaths.append(process.opens("poison"))
        process.dies()
    assert deaths == [0, 1, 2, 3]


def test_another_message_and_a_finished_one_start_at_zero_deaths(processes: list[Process]) -> None:
    first, second, third, _ = processes
    first.opens("poison")
    first.dies()
    assert second.opens("other") == 0
    assert second.opens("poison") == 1
    close_attempt(second.session, "poison")
    second.dies()
    assert third.opens("poison") == 0


def test_a_session_that_is_still_open_is_not_a_death(processes: list[Process]) -> None:
    assert [process.opens("slow") for process in processes] == [0, 0, 0, 0]


def test_an_attempt_before_an_outage_is_not_a_death(processes: list[Process], database_url: str) -> None:
    processes[0].opens("given back")
    processes[0].dies()
    with psycopg.connect(database_url, autocommit=True) as after_the_outage:
        assert open_attempt(after_the_outage, "given back", reconnected=True) == 0


def test_a_process_that_lost_its_session_earlier_counts_deaths_again(processes: list[Process]) -> None:
    processes[0].opens("poison", reconnected=True)
    processes[0].dies()
    assert processes[1].opens("poison", reconnected=True) == 1


def test_an_attempt_before_a_restart_of_postgres_is_not_a_death(processes: list[Process], database: Connection) -> None:
    processes[0].opens("given back")
    processes[0].dies()
    database.execute("UPDATE attempts SET server_start = server_start - interval '1 second'")
    assert processes[1].opens("given back") == 0


def test_attempts_that_nobody_came_back_to_are_forgotten(processes: list[Process], database: Connection) -> None:
    processes[0].opens("purged from the queue")
    database.execute("UPDATE attempts SET opened_at = opened_at - interval '8 days'")
    close_attempt(processes[0].session, "another")
    assert database.execute("SELECT FROM attempts").rowcount == 0


@pytest.mark.parametrize("task_id", ["a\0b", "\ud800", "x" * 10_000])
def test_a_foreign_message_of_any_id_can_be_counted(database_url: str, database: Connection, task_id: str) -> None:
    writer = Writer(database_url)
    assert writer.open_attempt(task_id) == 0
    writer.close_attempt(task_id)
    writer.close()
    assert database.execute("SELECT FROM attempts").rowcount == 0


def test_a_writer_knows_that_it_had_to_connect_again(database_url: str, database: Connection) -> None:
    first, second = Writer(database_url), Writer(database_url)
    first.open_attempt("given back")
    terminate = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name LIKE '%worker'"
    second.open_attempt("another")
    database.execute(terminate + " AND datname = current_database()")
    with pytest.raises(Exception, match="Postgres"):
        second.close_attempt("another")
    assert second.open_attempt("given back") == 0
    for writer in (first, second):
        writer.close()
