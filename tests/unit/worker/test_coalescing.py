"""When waiting messages are handed to the pool, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from market_data_store.worker.coalescing import _Buffer
from market_data_store.worker.jobs import Job

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
def buffer(consumer: Consumer) -> _Buffer:
    task: Any = SimpleNamespace(batch_rows=BATCH_ROWS, batch_messages=64, flush_interval_s=0.05)
    return _Buffer(task, consumer)


def message(rows: int, *, redelivered: bool = False) -> Any:
    return SimpleNamespace(rows=rows, runs_alone=redelivered)


def test_a_full_batch_goes_at_once_and_others_when_their_time_is_up(consumer: Consumer, buffer: _Buffer) -> None:
    buffer.add(message(BATCH_ROWS))
    buffer.add(message(1))
    assert consumer.handed == [[BATCH_ROWS]]
    consumer.fire()
    assert consumer.handed == [[BATCH_ROWS], [1]]


def test_a_message_goes_at_once_while_no_batch_is_at_work(consumer: Consumer, buffer: _Buffer) -> None:
    for rows in (1, 2, 3):
        buffer.add(message(rows))
    assert consumer.handed == [[1]]
    consumer.end_one()
    assert consumer.handed == [[1], [2, 3]]
    consumer.end_one()
    buffer.add(message(4))
    assert consumer.handed == [[1], [2, 3], [4]]


def test_a_message_beside_a_batch_at_work_waits_for_company(consumer: Consumer, buffer: _Buffer) -> None:
    for rows in (1, 2, 3):
        buffer.add(message(rows))
    consumer.fire()
    assert consumer.handed == [[1], [2, 3]]


def test_a_large_message_is_not_in_one_batch_with_those_before_it(consumer: Consumer, buffer: _Buffer) -> None:
    buffer.add(message(BATCH_ROWS))
    for rows in (1, 1, 40 * BATCH_ROWS, 1):
        buffer.add(message(rows))
    consumer.end_one()
    assert consumer.handed[1:] == [[1, 1], [40 * BATCH_ROWS]]
    consumer.fire()
    consumer.end_one()
    assert consumer.handed[3:] == [[1]]


def test_what_a_full_batch_left_while_every_process_was_busy_goes_without_another_message(
    consumer: Consumer, buffer: _Buffer
) -> None:
    buffer.add(message(BATCH_ROWS))
    buffer.add(message(BATCH_ROWS))
    buffer.add(message(BATCH_ROWS))
    buffer.add(message(999))
    assert len(consumer.handed) == PROCESSES
    consumer.end_one()
    consumer.end_one()
    assert consumer.handed[PROCESSES:] == [[BATCH_ROWS]]
    consumer.fire()
    assert consumer.handed[PROCESSES + 1 :] == [[999]]


def test_a_due_batch_goes_when_a_process_is_free(consumer: Consumer, buffer: _Buffer) -> None:
    buffer.add(message(BATCH_ROWS))
    buffer.add(message(BATCH_ROWS))
    buffer.add(message(7))
    consumer.fire()
    assert len(consumer.handed) == PROCESSES
    consumer.end_one()
    assert consumer.handed[PROCESSES:] == [[7]]


def test_a_redelivered_message_travels_alone(consumer: Consumer, buffer: _Buffer) -> None:
    buffer.add(message(BATCH_ROWS))
    buffer.add(message(1))
    buffer.add(message(2, redelivered=True))
    consumer.fire()
    consumer.end_one()
    assert consumer.handed[1:] == [[2], [1]]
