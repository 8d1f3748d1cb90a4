"""Which messages go to the pool next: whenever a process is free, live rows first, then history.

A job is given to the pool only when a process is free for it, over both lanes. So a live row waits for nothing but the
batches that are being written, and those of history are cut so that each takes a moment (`pace`).
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from market_data_store.protocol import BACKFILL_QUEUE, LANES
from market_data_store.worker.buffer import Buffer
from market_data_store.worker.jobs import CoalescedTask, Job
from market_data_store.worker.pace import Pace
from market_data_store.worker.shutdown import is_stopping


class Lanes:
    """What waits for a process, over one connection to the broker.

    When the connection is lost its content is void: the broker redelivers the messages.
    """

    def __init__(self, task: CoalescedTask, consumer: Any) -> None:
        self._task = task
        self._consumer = consumer
        #: By their queues; the first is served first.
        self._buffers = {queue: self._buffer(queue) for queue in LANES.values()}
        self._jobs = 0
        self._is_dispatching = False

    def add(self, request: Any) -> None:
        """Give a request to the pool as soon as its turn comes."""
        self._buffers[request.lane].add(request)
        self._dispatch()

    def _buffer(self, queue: str) -> Buffer:
        pace = Pace(self._task.batch_rows) if queue == BACKFILL_QUEUE else None
        return Buffer(self._task, self._consumer.timer.call_after, self._dispatch, pace=pace)

    def _dispatch(self) -> None:
        if self._is_dispatching:  # called by a job that ended at once: a pool without processes runs it right here
            return
        self._is_dispatching = True
        try:
            while (buffer := self._next()) is not None:
                self._hand_over(buffer)
        finally:
            self._is_dispatching = False
        for buffer in self._buffers.values():
            buffer.rest()

    def _next(self) -> Buffer | None:
        """The buffer from which the next batch comes; None if no process is free for one."""
        free = 0 if is_stopping() else self._consumer.pool.num_processes - self._jobs
        for buffer in self._buffers.values():
            if free <= 0:
                return None
            if buffer.is_to_go:
                return buffer
            free -= not buffer.is_empty  # those that wait for company find a process then
        return None

    def _hand_over(self, buffer: Buffer) -> None:
        requests = buffer.take()
        self._jobs += 1
        buffer.jobs += 1
        done = partial(self._on_done, buffer, sum(request.rows for request in requests), time.monotonic())
        self._consumer.on_task_request(Job(self._task, requests, self._consumer, done))

    def _on_done(self, buffer: Buffer, rows: int, began: float, is_written: bool) -> None:
        self._jobs -= 1
        buffer.jobs -= 1
        if is_written and buffer.pace is not None:
            buffer.pace.note(rows, time.monotonic() - began)
        self._dispatch()
