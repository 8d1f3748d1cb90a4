"""Turns that are ended each time: a letter within a bounded time, and the neighbours do not wait for it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import Bar, Send, StartWorker, Stored
from support.waiting import wait_until

from market_data_store import dead_letters
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.dead_letters import Letter

pytestmark = pytest.mark.slow

#: What Python imports when it starts: shorter time limits, and a row that says so does harm when it is decoded.
HARM = """
import os, resource, signal, time
from celery.signals import celeryd_after_setup, worker_process_init

@celeryd_after_setup.connect(weak=False)
def shorten(conf, **_):
    from market_data_store.worker import tasks
    tasks.write.soft_time_limit = float(os.environ["SOFT_S"])
    tasks.write.time_limit = float(os.environ["HARD_S"])

@worker_process_init.connect(weak=False)
def arm(**_):
    from market_data_store.worker import tasks
    read_rows = tasks.read_rows

    def harmful(dataset, rows, *rest):
        text = str(rows)
        if "STUCK" in text:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            time.sleep(120)
        if "MEMORY" in text:
            pages = int(open("/proc/self/statm").read().split()[0])
            limit = pages * resource.getpagesize() + (64 << 20)
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            bytearray(256 << 20)
        return read_rows(dataset, rows, *rest)

    tasks.read_rows = harmful
"""


@pytest.fixture
def start_harmed(tmp_path: Path, start_worker: StartWorker) -> StartWorker:
    (tmp_path / "harm").mkdir()
    (tmp_path / "harm" / "sitecustomize.py").write_text(HARM)
    path = os.pathsep.join([str(tmp_path / "harm"), *filter(None, sys.path)])
    return lambda **more: start_worker(**{"PYTHONPATH": path, "SOFT_S": "2", "HARD_S": "4", **more})


@pytest.fixture
def letters(database: Connection) -> Callable[[], list[Letter]]:
    return lambda: list(dead_letters.stream(database))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("STUCK", "message: 3 deliveries, and each took its process down or exceeded the time limit"),
        ("MEMORY", "message: 3 deliveries, and each took its process down or exceeded the time limit"),
    ],
    ids=["the hard time limit is exceeded", "the memory is exhausted"],
)
def test_a_message_whose_turn_is_ended_each_time_is_a_letter_and_its_neighbours_are_written(
    harm: str,
    reason: str,
    start_harmed: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    letters: Callable[[], list[Letter]],
    queue: QueueInspector,
) -> None:
    start_harmed()
    for n in range(10):
        send(bars[n : n + 1])
        if n == 4:
            send([{**bars[50], "note": harm}], task_id="harm")
    started = time.monotonic()
    wait_until(lambda: stored() == bars[:10], timeout_s=30)
    # The first turn is that of all in the batch, and a hard time limit takes 4 s here instead of 90.
    assert time.monotonic() - started < 15
    (letter,) = wait_until(letters, timeout_s=60)
    assert letter.task_id == "harm"
    assert letter.reason.startswith(reason)
    assert harm.encode() in (letter.body or b"")
    wait_until(lambda: queue.depth() == 0)
    assert stored() == bars[:10]


#: Sleeps at each row, and refuses one in fifteen of those below.
SLOW = """
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END$$;
    CREATE TRIGGER slow BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION slow();
    ALTER TABLE bars_ohlcv ADD CONSTRAINT positive CHECK (volume >= 0)
"""


def slow_rows(bars: list[Bar], count: int) -> list[Bar]:
    return [{**bar, "volume": -1.0} if n % 15 == 0 else bar for n, bar in enumerate(bars[:count])]


def test_a_message_that_takes_several_turns_is_done_and_the_others_go_on(
    start_harmed: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    letters: Callable[[], list[Letter]],
) -> None:
    database.execute(SLOW)
    worker = start_harmed(HARD_S="20")
    rows = slow_rows(bars, 600)
    send(rows, task_id="large")
    worker.wait_for_log("goes back to the broker")
    send(bars[-1:]).get(timeout=10)
    good = [*(row for row in rows if row["volume"] >= 0), bars[-1]]
    wait_until(lambda: stored() == good, timeout_s=120)
    wait_until(lambda: len(letters()) == 40, timeout_s=30)
    assert {letter.dataset for letter in letters()} == {"bars"}
    assert worker.logs().count("the soft time limit was exceeded") > 3


@on_redis
def test_a_message_whose_process_is_killed_in_two_turns_is_done_in_the_third(
    start_harmed: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    letters: Callable[[], list[Letter]],
    queue: QueueInspector,
) -> None:
    database.execute(SLOW)
    worker = start_harmed(SOFT_S="60", HARD_S="90")
    rows = slow_rows(bars, 300)
    send(rows, task_id="large")
    sleeping = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    for turn in range(2):
        wait_until(lambda: database.execute(sleeping).rowcount, timeout_s=30)
        if turn:
            wait_until(lambda: len(stored()) > 20, timeout_s=30)
        for pid in worker.pool_pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not database.execute(sleeping).rowcount, timeout_s=30)
    good = [row for row in rows if row["volume"] >= 0]
    wait_until(lambda: stored() == good, timeout_s=60)
    wait_until(lambda: len(letters()) == 20, timeout_s=30)
    assert {letter.dataset for letter in letters()} == {"bars"}
    wait_until(lambda: queue.depth() == 0)


#: Ends the session of a row.
ENDS = """
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
        IF NEW.symbol = 'BAD' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
        RETURN NEW;
    END$$;
    CREATE TRIGGER t BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION f()
"""


@on_redis
def test_a_row_that_ends_its_session_is_a_letter_and_its_neighbours_are_written_within_10_s(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    letters: Callable[[], list[Letter]],
) -> None:
    database.execute(ENDS)
    for n in range(10):
        send(bars[n : n + 1])
        if n == 4:
            send([*bars[10:15], {**bars[50], "symbol": "BAD"}, *bars[15:20]], task_id="harm")
    start_worker()
    started = time.monotonic()
    wait_until(lambda: {bar["ts"] for bar in stored()} >= {bar["ts"] for bar in bars[:10]}, timeout_s=20)
    assert time.monotonic() - started < 10
    (letter,) = wait_until(letters, timeout_s=120)
    assert (letter.task_id, letter.position, letter.sqlstate) == ("harm", 5, "57P01")
    wait_until(lambda: stored() == bars[:20], timeout_s=30)
