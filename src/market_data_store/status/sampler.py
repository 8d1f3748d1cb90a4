"""Looks at the store's parts repeatedly in background threads, so that no request waits for a server.

Each part has its own thread, so a part that hangs stops no other. The threads start with the first request: in the
process that serves, not in gunicorn's parent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from market_data_core.telemetry import HealthStatus
from prometheus_client import REGISTRY

from market_data_store.config import Settings
from market_data_store.coordinator.watermarks import LevelAndReason
from market_data_store.protocol import BACKFILL_QUEUE
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.flow import NOTHING_KNOWN, Flowing
from market_data_store.status.headline import Found, Headline, causes_of, headline
from market_data_store.status.health import health_of
from market_data_store.status.history import SEED_EVENTS, History, Point
from market_data_store.status.levels import Levels
from market_data_store.status.looks import Away, FeedbackStatus, Looks
from market_data_store.status.part import DEADLINE_S, Part
from market_data_store.status.reader import RECENT_EVENTS, StatusReader
from market_data_store.status.saying import Saying
from market_data_store.status.since import Since

#: The same for the workers: a second for the broker's connection, and a second for each of two answers.
_WORKERS_DEADLINE_S = 3.5
#: Seconds between the starts of two looks at Postgres: a server that hangs must be on the page within five.
_DATABASE_INTERVAL_S = 1.0


#: Gets the level of live rows, and that of the backfill lane.
OnLevels = Callable[[LevelAndReason, LevelAndReason], None]
#: Gets what was read from Postgres.
OnDatabase = Callable[[DatabaseStatus], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything known at one moment."""

    #: The moment, in seconds since 1970.
    ts: float
    looks: Looks
    level: LevelAndReason
    #: The level of the backfill lane.
    backfill: LevelAndReason
    health: HealthStatus
    headline: Headline
    #: Seconds since the last look at the queue ended; None before the end of the first.
    age_s: float | None
    #: The last 15 minutes, oldest first.
    history: list[Point]
    #: What flows.
    flow: Flowing = NOTHING_KNOWN
    #: Since when the headline's cause has been there, in seconds since 1970, as far as is known; None without one.
    since: float | None = None
    #: The same of the backfill lane.
    backfill_history: list[Point] = field(default_factory=list)


class Sampler:
    """Returns the newest looks, and what follows from them, without asking the servers. Thread-safe.

    `on_level` is called with the level of each lane, live first, after each look at the queues, and `on_database` after
    each look at Postgres. `log` says whether to log when a part goes away or comes back.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_level: OnLevels | None = None,
        on_database: OnDatabase | None = None,
        log: bool = True,
    ) -> None:
        self._settings = settings
        self._on_level = on_level or (lambda *_: None)
        self._on_database = on_database or (lambda _: None)
        self._log = log
        self._lock = threading.Lock()
        self._running: _Threads | None = None

    def start(self) -> None:
        """Start the threads; does nothing if they are running."""
        self._started()

    def newest(self, *, complete: bool = False) -> Sample:
        """Return the results of the newest looks; a part that has not answered in time is `Away`.

        Waits only for the first looks: at most `DEADLINE_S`, or with `complete` until each part's own deadline (3.5 s
        for the workers).
        """
        return self._started().sample(complete=complete)

    def level_at(self, depth: int | None, queue: str) -> LevelAndReason:
        """Return a lane's level at a depth that was read just now; None means that the broker did not answer."""
        return self._started().level_at(depth, queue)

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop the threads, and close the connections unless a look still hangs after `timeout_s`."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.close(timeout_s)

    def _started(self) -> _Threads:
        with self._lock:
            if self._running is None:
                self._running = _Threads(self._settings, self._on_level, self._on_database, log=self._log)
            return self._running


class _Threads:
    def __init__(self, settings: Settings, on_level: OnLevels, on_database: OnDatabase, *, log: bool) -> None:
        self._settings = settings
        self._on_level = on_level
        self._on_database = on_database
        self._reader = StatusReader(settings)
        self._levels, self._backfill_levels = Levels(settings), Levels(settings, BACKFILL_QUEUE)
        self._history, self._backfill_history = History(), History()
        self._since, self._saying, self._log = Since(), Saying(), log
        self._started = time.monotonic()
        self._workers = Part("workers", self._reader.workers, deadline_s=_WORKERS_DEADLINE_S, log=False)
        self._database = Part(
            "database", self._reader.database, interval_s=_DATABASE_INTERVAL_S, after=self._tell, log=log
        )
        self._feedback = Part("feedback", self._look_at_feedback, log=log)
        self._queue = Part("queue", self._reader.queue, after=self._record, log=log)
        self._parts: tuple[Part[Any], ...] = (self._workers, self._database, self._feedback, self._queue)
        for part in self._parts:
            part.thread.start()

    def level_at(self, depth: int | None, queue: str) -> LevelAndReason:
        for part in (self._workers, self._feedback):
            part.wait_for_first(self._started + part.deadline_s)
        looks, now = self._looks(), time.time()
        if queue == BACKFILL_QUEUE:
            return self._backfill_levels.at(depth, looks.of_backfill, now)
        return self._levels.at(depth, looks, now)

    def sample(self, *, complete: bool) -> Sample:
        for part in self._parts:
            part.wait_for_first(self._started + (part.deadline_s if complete else DEADLINE_S))
        now = time.time()
        looks = self._looks()
        level, backfill = self._both_levels(looks, now)
        health, found = self._judged(looks, level, now)
        said, age_s = headline(level, found), self._queue.age_s()
        since, flow = self._since.of(said.code, looks), self._reader.flow.seen()
        histories = {"history": self._history.points(), "backfill_history": self._backfill_history.points()}
        return Sample(now, looks, level, backfill, health, said, age_s, flow=flow, since=since, **histories)

    def close(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        for part in self._parts:
            part.stop.set()
        for part in self._parts:
            part.thread.join(max(0.0, until - time.monotonic()))
        if not any(part.thread.is_alive() for part in self._parts):
            self._reader.close()

    def _looks(self) -> Looks:
        queue, workers = self._queue.value(), self._workers.value()
        feedback = self._feedback.value()
        backfill = self._reader.backfill(queue, workers, feedback)
        trouble = self._reader.trouble(queue, workers, backfill)
        answers, found = (self._reader.answers, self._reader.found) if workers or backfill.workers else ((), ())
        database = self._database.value()
        clocks = self._reader.clocks(queue, workers, database)
        return Looks(queue, workers, database, feedback, trouble, backfill, answers, found, clocks)

    def _judged(self, looks: Looks, level: LevelAndReason, now: float) -> tuple[HealthStatus, list[Found]]:
        """Return the health and all that is wrong, and note since when."""
        health = health_of(
            looks,
            level,
            capacity=self._settings.queue_capacity,
            heartbeat_s=self._settings.feedback_heartbeat_s,
            metrics=sum(1 for _ in REGISTRY.collect()),
            now=now,
        )
        found = causes_of(level, looks, health)
        self._since.note((each.cause for each in found), now)
        return health, found

    def _both_levels(self, looks: Looks, now: float) -> tuple[LevelAndReason, LevelAndReason]:
        backfill = looks.of_backfill
        return self._levels.at(looks.depth, looks, now), self._backfill_levels.at(backfill.depth, backfill, now)

    def _record(self) -> None:
        if not all(part.has_looked for part in (self._workers, self._feedback, self._database)):
            return  # the level needs these looks too
        now, looks = time.time(), self._looks()
        level, backfill = self._both_levels(looks, now)
        self._history.add(Point(now, looks.depth, level.level.value))
        self._backfill_history.add(Point(now, looks.of_backfill.depth, backfill.level.value))
        self._on_level(level, backfill)
        _, found = self._judged(looks, level, now)
        if self._log:
            self._saying.note(found, time.monotonic())

    def _tell(self) -> None:
        found = self._database.value()
        if not isinstance(found, Away):
            self._on_database(found)

    def _look_at_feedback(self) -> FeedbackStatus | Away | None:
        if self._history.seeded:
            return self._reader.feedback()
        found = self._reader.feedback(SEED_EVENTS)
        if not isinstance(found, FeedbackStatus):
            return found
        self._history.seed(found.events, time.time())
        backfill = self._reader.backfill_feedback
        if isinstance(backfill, FeedbackStatus):
            self._backfill_history.seed(backfill.events, time.time())
        return FeedbackStatus(found.events[:RECENT_EVENTS], found.outcomes)
