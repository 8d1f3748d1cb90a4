"""A message that kills its process each time becomes a dead letter; no other message does, whatever is killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.databases import Connection
from support.fixtures.store import HELD_BACK, Bar, HoldBack, Send, StartWorker, Stored
from support.waiting import wait_until
from support.workers import Worker

from market_data_store import dead_letters
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.dead_letters import Letter
from market_data_store.dead_letters.replay import replay

pytestmark = pytest.mark.slow

#: What Python imports when it starts. Stands for what the kernel does to a process that takes too much memory.
DEADLY = """
import os, signal
from celery.signals import worker_process_init

@worker_process_init.connect(weak=False)
def arm(**_):
    from market_data_store.worker import tasks
    read_rows = tasks.read_rows

    def deadly(dataset, rows, *rest):
        if "POISON" in str(rows):
            with open(os.environ["DEATHS"], "a") as deaths:
                deaths.write("x")
            os.kill(os.getpid() if os.environ["KILLS"] == "process" else -os.getpgrp(), signal.SIGKILL)
        return read_rows(dataset, rows, *rest)

    tasks.read_rows = deadly
"""


class Deadly:
    """Provide the environment of workers that a message with POISON kills, and the number of times it did."""

    def __init__(self, directory: Path) -> None:
        (directory / "sitecustomize.py").write_text(DEADLY)
        self._deaths = directory / "deaths"
        self.environment = {
            "PYTHONPATH": os.pathsep.join([str(directory), *filter(None, sys.path)]),
            "DEATHS": str(self._deaths),
            "MDS_VISIBILITY_TIMEOUT_S": "5",
        }

    @property
    def deaths(self) -> int:
        return len(self._deaths.read_text()) if self._deaths.exists() else 0


@pytest.fixture
def deadly(tmp_path: Path) -> Deadly:
    (tmp_path / "deadly").mkdir()
    return Deadly(tmp_path / "deadly")


def letters(database: Connection) -> list[Letter]:
    return list(dead_letters.stream(database))


def test_a_message_that_kills_its_process_is_a_dead_letter_and_the_others_are_written(
    deadly: Deadly,
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    queue: QueueInspector,
) -> None:
    for n in range(20):
        send(bars[n : n + 1])
    send([{**bars[20], "note": "POISON"}], task_id="poison")
    for n in range(20, 40):
        send(bars[n : n + 1])
    start_worker(**deadly.environment, KILLS="process")
    (letter,) = wait_until(lambda: letters(database), timeout_s=120)
    wait_until(lambda: stored() == bars[:40], timeout_s=60)
    assert letter.task_id == "poison"
    assert letter.reason.startswith("message: 3 deliveries, and each took its process down")
    assert b'"note": "POISON"' in (letter.body or b"")
    assert deadly.deaths == 3
    wait_until(lambda: queue.depth() == 0)


def test_a_message_that_kills_the_whole_worker_is_a_dead_letter(
    deadly: Deadly, start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    def restart_until_kept() -> list[Letter]:
        if worker.container.status == "exited":
            worker.restart()
        return letters(database)

    worker: Worker = start_worker(**deadly.environment, KILLS="worker", MDS_MAX_DELIVERIES="2")
    send([{**bars[0], "note": "POISON"}], task_id="poison")
    (letter,) = wait_until(restart_until_kept, timeout_s=120)
    assert (letter.task_id, deadly.deaths) == ("poison", 2)
    send(bars[:1])
    wait_until(lambda: stored() == bars[:1], timeout_s=60)


@contextmanager
def nobody_gets_in(postgres_url: str, database: Connection) -> Iterator[None]:
    """Postgres is away for the workers of this test."""
    name = database.info.dbname
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        workers = "datname = %s AND application_name = 'mds-worker'"
        admin.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {workers}", [name])
        yield
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_outages_of_postgres_that_hit_the_same_messages_make_no_dead_letter(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    postgres_url: str,
    database: Connection,
    writes_held_back: HoldBack,
) -> None:
    worker: Worker = start_worker(MDS_RETRY_DEADLINE_S="0")

    def given_back() -> int:
        return int(worker.logs().count("goes back to the broker"))

    def more_than(count: int) -> bool:
        return given_back() > count

    with writes_held_back() as until_held:
        send(bars[:1])
        until_held(1)
        send(bars[1:2])
        until_held(2)
        for _ in range(4):
            with nobody_gets_in(postgres_url, database):
                before = given_back()
                wait_until(partial(more_than, before + 5), timeout_s=60)
            until_held(1)
    wait_until(lambda: stored() == bars[:2], timeout_s=60)
    assert letters(database) == []


def test_processes_killed_twice_while_their_messages_wait_make_no_dead_letter(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    writes_held_back: HoldBack,
) -> None:
    def one_waits_since(moment: datetime) -> bool:
        return any(started > moment for _, started in database.execute(HELD_BACK))

    worker = start_worker()
    with writes_held_back() as until_held:
        send(bars[:1])
        until_held(1)
        send(bars[1:2])
        until_held(2)
        for _ in range(2):
            ((since,),) = database.execute("SELECT clock_timestamp()").fetchall()
            for pid in worker.pool_pids:
                os.kill(pid, signal.SIGKILL)
            # What the killed ones asked Postgres for still waits. What returned to the broker is tried one by one.
            wait_until(partial(one_waits_since, since), timeout_s=60)
    wait_until(lambda: stored() == bars[:2], timeout_s=60)
    assert letters(database) == []


def test_a_poison_message_that_is_replayed_keeps_its_letter(
    deadly: Deadly, start_worker: StartWorker, send: Send, bars: list[Bar], database: Connection, producer: Any
) -> None:
    body = b'[["bars", [{"note": "POISON"}]], {}, {}]'
    reason = "message: ..."
    kept = dead_letters.DeadLetter(
        task_id="poison", position=0, reason=reason, pattern=reason, enqueued_at=0, body=body
    )
    dead_letters.keep(database, [kept])
    start_worker(**deadly.environment, KILLS="process")
    assert replay(producer, database) == 1
    (letter,) = wait_until(lambda: [one for one in letters(database) if one.refused_at > one.created_at], timeout_s=120)
    assert (letter.task_id, deadly.deaths) == ("poison", 3)
    assert letter.reason.startswith("message: 3 deliveries")
