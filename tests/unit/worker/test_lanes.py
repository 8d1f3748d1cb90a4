"""Which waiting messages are handed to the pool, and when, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from market_data_store.protocol import BACKFILL_QUEUE, QUEUE
from market_data_store.worker.jobs import Job
from market_data_store.worker.lanes import Lanes
from market_data_store.worker.pace import FIRST_ROWS

BATCH_ROWS = 5_000
PROCESSES = 2


class Consumer:
    """A pool of two processes that end when the test says so, and a timer that it fires."""

    def __init__(self) -> None:
        self.pool = SimpleNamespace(num_processes=PROCESSES)
        self.timer = self
        self.running: list[Job] = []
        self.timers: list[Callable[[], None]] = []
        self.handed: list[list[int]] = []

    def call_after(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)

    def on_task_request(self, job: Job) -> None:
        self.running.append(job)
        self.handed.append([request.rows for request in job.requests])  # type: ignore[attr-defined]

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for callback in timers:
            callback()

    def end_one(self) -> None:
        self.running.pop(0)._close()


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def lanes(consumer: Consumer) -> Lanes:
    task: Any = SimpleNamespace(batch_rows=BATCH_ROWS, batch_messages=64, flush_interval_s=0.05)
    return Lanes(task, consumer)


def message(rows: int, *, redelivered: bool = False, lane: str = QUEUE) -> Any:
    return SimpleNamespace(rows=rows, runs_alone=redelivered, lane=lane)


def history(rows: int, *, redelivered: bool = False) -> Any:
    return message(rows, redelivered=redelivered, lane=BACKFILL_QUEUE)


def test_a_full_batch_goes_at_once_and_others_when_their_time_is_up(consumer: Consumer, lanes: Lanes) -> None:
    lanes.add(message(BATCH_ROWS))
    lanes.add(message(1))
    assert consumer.handed == [[BATCH_ROWS]]
    consumer.fire()
    assert consumer.handed == [[BATCH_ROWS], [1]]


def test_a_message_goes_at_once_while_no_batch_is_at_work(consumer: Consumer, lanes: Lanes) -> None:
    for rows in (1, 2, 3):
        lanes.add(message(rows))
    assert consumer.handed == [[1]]
    consumer.end_one()
    assert consumer.handed == [[1], [2, 3]]
    consumer.end_one()
    lanes.add(message(4))
    assert consumer.handed == [[1], [2, 3], [4]]


def test_a_message_beside_a_batch_at_work_waits_for_company(consumer: Consumer, lanes: Lanes) -> None:
    for rows in (1, 2, 3):
        lanes.add(message(rows))
    consumer.fire()
    assert consumer.handed == [[1], [2, 3]]


def test_a_large_message_is_not_in_one_batch_with_those_before_it(consumer: Consumer, lanes: Lanes) -> None:
    lanes.add(message(BATCH_ROWS))
    for rows in (1, 1, 40 * BATCH_ROWS, 1):
        lanes.add(message(rows))
    consumer.end_one()
    assert consumer.handed[1:] == [[1, 1], [40 * BATCH_ROWS]]
    consumer.fire()
    consumer.end_one()
    assert consumer.handed[3:] == [[1]]


def test_what_a_full_batch_left_while_every_process_was_busy_goes_without_another_message(
    consumer: Consumer, lanes: Lanes
) -> None:
    lanes.add(message(BATCH_ROWS))
    lanes.add(message(BATCH_ROWS))
    lanes.add(message(BATCH_ROWS))
    lanes.add(message(999))
    assert len(consumer.handed) == PROCESSES
    consumer.end_one()
    consumer.end_one()
    assert consumer.handed[PROCESSES:] == [[BATCH_ROWS]]
    consumer.fire()
    assert consumer.handed[PROCESSES + 1 :] == [[999]]


def test_a_due_batch_goes_when_a_process_is_free(consumer: Consumer, lanes: Lanes) -> None:
    lanes.add(message(BATCH_ROWS))
    lanes.add(message(BATCH_ROWS))
    lanes.add(message(7))
    consumer.fire()
    assert len(consumer.handed) == PROCESSES
    consumer.end_one()
    assert consumer.handed[PROCESSES:] == [[7]]


def test_a_redelivered_message_travels_alone(consumer: Consumer, lanes: Lanes) -> None:
    lanes.add(message(BATCH_ROWS))
    lanes.add(message(1))
    lanes.add(message(2, redelivered=True))
    consumer.fire()
    consumer.end_one()
    assert consumer.handed[1:] == [[2], [1]]


def test_history_goes_whenever_a_process_is_free(consumer: Consumer, lanes: Lanes) -> None:
    for rows in (1, 2, 3, 4):
        lanes.add(history(rows))
    assert consumer.handed == [[1], [2]]
    consumer.end_one()
    assert consumer.handed == [[1], [2], [3, 4]]


def test_a_live_message_is_next_however_much_history_waits(consumer: Consumer, lanes: Lanes) -> None:
    for _ in range(20):
        lanes.add(history(FIRST_ROWS))
    lanes.add(history(1, redelivered=True))
    assert len(consumer.handed) == PROCESSES
    lanes.add(message(7))
    assert len(consumer.handed) == PROCESSES
    consumer.end_one()
    assert consumer.handed[PROCESSES:] == [[7]]
    consumer.end_one()
    assert consumer.handed[PROCESSES + 1 :] == [[1]], "of history, one whose turn has ended badly is first"


def test_history_leaves_a_process_to_live_messages_that_wait_for_company(consumer: Consumer, lanes: Lanes) -> None:
    for rows in (1, 2, 3):
        lanes.add(message(rows))
    lanes.add(history(500))
    assert consumer.handed == [[1]]
    consumer.fire()
    assert consumer.handed == [[1], [2, 3]]
    consumer.end_one()
    assert consumer.handed == [[1], [2, 3], [500]]


def test_no_job_waits_for_a_process(consumer: Consumer, lanes: Lanes) -> None:
    for rows in (1, 2, 3, 4):
        lanes.add(message(rows, redelivered=True))
        lanes.add(history(rows, redelivered=True))
    assert len(consumer.handed) == PROCESSES
    while consumer.running:
        consumer.end_one()
        assert len(consumer.running) <= PROCESSES
    assert len(consumer.handed) == 8


def test_a_batch_of_history_is_cut_and_one_of_live_rows_is_not(consumer: Consumer, lanes: Lanes) -> None:
    for _ in range(PROCESSES):
        lanes.add(history(40 * BATCH_ROWS))  # a message alone may be larger
    for _ in range(10):
        lanes.add(history(FIRST_ROWS // 3))
        lanes.add(message(FIRST_ROWS // 3))
    consumer.end_one()
    assert consumer.handed[PROCESSES:] == [[FIRST_ROWS // 3] * 10]
    consumer.end_one()
    assert consumer.handed[PROCESSES + 1 :] == [[FIRST_ROWS // 3] * 3]


@pytest.mark.parametrize(
    ("rows", "messages"), [(FIRST_ROWS // 2, 2), (FIRST_ROWS * 6 // 10, 2), (FIRST_ROWS * 7 // 10, 1)]
)
def test_a_batch_of_history_ends_where_it_is_nearest_to_its_limit(
    rows: int, messages: int, consumer: Consumer, lanes: Lanes
) -> None:
    for _ in range(PROCESSES):
        lanes.add(history(1, redelivered=True))
    for _ in range(4):
        lanes.add(history(rows))
    consumer.end_one()
    assert consumer.handed[PROCESSES:] == [[rows] * messages]


def test_a_pool_that_runs_jobs_at_once_gets_them_one_after_the_other(consumer: Consumer, lanes: Lanes) -> None:
    def run(job: Job) -> None:
        consumer.handed.append([request.rows for request in job.requests])  # type: ignore[attr-defined]
        job._close()

    consumer.pool.num_processes = 1
    consumer.on_task_request = run  # type: ignore[method-assign]
    for rows in (1, 2):
        lanes.add(history(rows))
        lanes.add(message(rows))
    assert consumer.handed == [[1], [1], [2], [2]]
