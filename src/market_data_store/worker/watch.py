"""Watches whether a worker gets on, from a thread: says once in its log when it does not, and may end it.

A worker is *deaf* if messages wait and it takes none (`hearing`), *stalled* if it has jobs and settles nothing
(`progress`), and has *fallen back* if it uses Celery's own transport (`transport.selection`). With
MDS_EXIT_WHEN_STALLED it ends, with an exit code other than 0, when it has been deaf, when no job has ended, when its
loop hangs, or when it has used another transport than before for that long: what a new process may cure. An outage of
Postgres is not among these if that is longer than a job may take (90 s): jobs end, and begin again. Nor is a transport
that the worker has used from the start.

It is a thread, because the worker's loop may be what hangs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import partial
from typing import Any

from celery.platforms import EX_FAILURE
from celery.worker import state

from market_data_store.causes import Cause
from market_data_store.coordinator.answers import STALLED_S
from market_data_store.coordinator.queue import QueueInspector, if_answered
from market_data_store.logs.repeated import Repeated
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE
from market_data_store.transport.moving import Mover
from market_data_store.transport.selection import fallback_of
from market_data_store.worker.hearing import Hearing, Look
from market_data_store.worker.origins import lanes_of
from market_data_store.worker.shutdown import PATIENCE_S, is_stopping, kill

logger = logging.getLogger(__name__)

#: Seconds between two looks. Only a worker that is free, and to which nothing has come since, asks the broker.
LOOK_S = 2.0
#: Looks at the beginning, within which a worker finds itself and who else has its name.
_NAME_LOOKS = 10
#: A count of the loop's is good for this many seconds, and a free worker's loop has so long for its first one.
_COUNT_S = 3 * LOOK_S
#: The worker's loop says this often that it turns.
TURN_S = 1.0
#: A connected loop that has not turned for this many seconds hangs. It may wait for a broker for half of them.
_HANGS_S = 60.0
#: Seconds that a worker has to end by itself; its jobs get `PATIENCE_S` of them.
_END_S = PATIENCE_S + 10.0


class Watch:
    """Watches one worker, of which `consumer` is the consumer."""

    def __init__(self, consumer: Any, *, exit_after_s: float) -> None:
        self._consumer = consumer
        self._exit_after_s = exit_after_s
        self._inspector = QueueInspector(consumer.app, QUEUE)
        self._hearing = Hearing()
        self._received = 0
        self._free_since: float | None = None
        #: What the loop has counted last, and when.
        self._counted: tuple[int, float] | None = None
        self._had_our_transport = False
        self._fallen_back_at: float | None = None
        self._deaf, self._stalled = Repeated(logger), Repeated(logger)
        self._has_failed = False
        self._name_looks = _NAME_LOOKS
        self._pause = threading.Event()  # never set
        self._thread: threading.Thread | None = None
        #: Why the worker uses Celery's own transport; None if it does not.
        self.fallback: str | None = None

    @property
    def deaf_s(self) -> float:
        """As `Hearing.deaf_s`."""
        return self._hearing.deaf_s

    def start(self) -> None:
        """Start to watch; does nothing if it has started."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="worker-watch", daemon=True)
            self._thread.start()

    def count(self, mover: Mover, errors: tuple[type[Exception], ...]) -> None:
        """Let the worker's loop count what waits, where that saves a connection; called every `LOOK_S`."""
        if self._free_since is None:
            return
        try:
            counts = [mover.waiting(lane) for lane in lanes_of(self._consumer.app)]
        except errors:  # what it cannot do otherwise is said there
            return
        if None not in counts:  # else somebody else should ask
            self._counted = sum(count or 0 for count in counts), time.monotonic()

    def _run(self) -> None:
        why = None
        while why is None:
            self._pause.wait(LOOK_S)
            try:
                self._look()
                why = self._hopeless()
            except Exception:  # the edge of a thread
                if not self._has_failed:
                    logger.exception("The worker could not watch itself")
                self._has_failed = True
        self._end(why)

    def _look(self) -> None:
        progress = self._consumer.progress
        is_free = not (progress.jobs or len(state.reserved_requests)) and self._is_to_consume()
        free_since = (self._free_since or time.monotonic()) if is_free else None
        self._free_since = free_since
        received = progress.received
        waiting = self._waiting(free_since) if free_since is not None and received == self._received else 0
        self._hearing.note(Look(time.monotonic(), waiting, is_free, received))
        self._received = received
        self._look_at_transport()
        self._look_for_namesakes()
        _say(self._deaf, self.deaf_s, "Messages wait in the queue, and none has come to this worker")
        _say(self._stalled, progress.stalled_s, "Messages are at work, and nothing was committed")

    def _look_for_namesakes(self) -> None:
        """Say once if another worker has this worker's name; on RabbitMQ the other cannot even connect."""
        connection = self._consumer.connection
        if self._name_looks == 0 or is_stopping() or connection is None or connection.transport.driver_type != "redis":
            return
        self._name_looks -= 1
        name = self._consumer.hostname
        found = if_answered(lambda: self._inspector.consumers(BACKFILL_QUEUE)) or {}
        self._inspector.close()
        if not any(name in names for names in found.values()):
            return  # the worker itself has not answered yet
        self._name_looks = 0
        if name in self._inspector.namesakes:
            logger.warning(
                "Another worker has the name %s, and those who ask take the two for one; start each with a name of its "
                "own (-n worker2@%%h)",
                name,
            )

    def _is_to_consume(self) -> bool:
        # Not by order (`celery control cancel_consumer`), and not while it ends.
        return not is_stopping() and bool(lanes_of(self._consumer.app))

    def _waiting(self, free_since: float) -> int:
        """Count what waits; asked by this thread itself, over a connection of its own, only if the loop does not."""
        now = time.monotonic()
        if self._counted is not None and now - self._counted[1] < _COUNT_S:
            self._inspector.close()
            return self._counted[0]
        if now - free_since < _COUNT_S:
            return 0
        lanes = lanes_of(self._consumer.app)
        waiting = sum(if_answered(partial(self._inspector.waiting, lane)) or 0 for lane in lanes)
        return waiting if waiting and if_answered(self._inspector.delivers) else 0

    def _look_at_transport(self) -> None:
        tasks = self._consumer.task_consumer
        if tasks is None or tasks.channel is None:
            return
        self.fallback = fallback_of(tasks.channel)
        self._had_our_transport = self._had_our_transport or self.fallback is None
        if self.fallback is None or not self._had_our_transport:
            self._fallen_back_at = None
        elif self._fallen_back_at is None:
            self._fallen_back_at = time.monotonic()

    def _hopeless(self) -> str | None:
        """Why the worker ends; None if it goes on."""
        hangs_s = self._hangs_s()
        fallen_back_s = 0.0 if self._fallen_back_at is None else time.monotonic() - self._fallen_back_at
        found = {
            f"none of the messages that wait has come to it for {self.deaf_s:.0f} s": self.deaf_s,
            f"none of its jobs has ended for {self._consumer.progress.stuck_s:.0f} s": self._consumer.progress.stuck_s,
            f"its loop has hung for {hangs_s:.0f} s": hangs_s if hangs_s >= _HANGS_S else 0.0,
            f"it has used Celery's own transport for {fallen_back_s:.0f} s ({self.fallback})": fallen_back_s,
        }
        is_to_end = self._exit_after_s > 0 and not is_stopping()
        return next((why for why, s in found.items() if is_to_end and s >= self._exit_after_s), None)

    def _hangs_s(self) -> float:
        turned_at = self._consumer.progress.turned_at
        # The loop does not turn while it connects, and in a pool without processes while there is a job.
        may_turn = self._consumer.connection is not None and getattr(self._consumer.pool, "_pool", None) is not None
        return time.monotonic() - turned_at if turned_at is not None and may_turn else 0.0

    def _end(self, why: str) -> None:
        logger.critical("This worker ends, to be started anew: %s (MDS_EXIT_WHEN_STALLED)", why)
        state.should_stop = EX_FAILURE  # what its loop looks at in each turn, as after a signal
        self._pause.wait(_END_S)  # this thread ends with the process
        logger.critical("This worker does not end by itself, and is ended at once")
        kill(self._consumer.pool)
        os._exit(EX_FAILURE)


def _say(trouble: Repeated, seconds: float, text: str) -> None:
    if seconds > STALLED_S:
        trouble.happened(f"{text} for {seconds:.0f} s", kind=text, cause=Cause.WORKERS_STALLED)
    else:
        trouble.over("This worker gets on again")
