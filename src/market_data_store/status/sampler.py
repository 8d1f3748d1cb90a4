"""Looks at the store's parts repeatedly in background threads, so that no request waits for a server.

Each part has its own thread, so a part that hangs stops no other. The threads start with the first request: in the
process that serves, not in gunicorn's parent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from market_data_core.telemetry import HealthStatus
from prometheus_client import REGISTRY

from market_data_store.config import Settings
from market_data_store.coordinator.watermarks import LevelAndReason
from market_data_store.logs.repeated import Repeated
from market_data_store.protocol import BACKFILL_QUEUE
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.flow import NOTHING_KNOWN, Flowing
from market_data_store.status.headline import Headline, headline
from market_data_store.status.health import health_of
from market_data_store.status.history import INTERVAL_S, SEED_EVENTS, History, Point
from market_data_store.status.levels import Levels
from market_data_store.status.looks import Away, FeedbackStatus, Looks, QueueStatus
from market_data_store.status.reader import RECENT_EVENTS, StatusReader

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds after which a look counts as unanswered. A request waits at most this long.
DEADLINE_S = 1.6
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

    def level_at(self, depth: int | None) -> LevelAndReason:
        """Return the level at a depth that was read just now; None means that the broker did not answer."""
        return self._started().level_at(depth)

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
        self._started = time.monotonic()
        self._workers = _Part("workers", self._reader.workers, deadline_s=_WORKERS_DEADLINE_S, log=False)
        self._database = _Part(
            "database", self._reader.database, interval_s=_DATABASE_INTERVAL_S, after=self._tell, log=log
        )
        self._feedback = _Part("feedback", self._look_at_feedback, log=log)
        self._queue = _Part("queue", self._reader.queue, after=self._record, log=log)
        self._parts: tuple[_Part[Any], ...] = (self._workers, self._database, self._feedback, self._queue)
        for part in self._parts:
            part.thread.start()

    def level_at(self, depth: int | None) -> LevelAndReason:
        for part in (self._workers, self._feedback):
            part.wait_for_first(self._started + part.deadline_s)
        return self._levels.at(depth, self._looks(), time.time())

    def sample(self, *, complete: bool) -> Sample:
        for part in self._parts:
            part.wait_for_first(self._started + (part.deadline_s if complete else DEADLINE_S))
        now = time.time()
        looks = self._looks()
        level, backfill = self._both_levels(looks, now)
        health = health_of(
            looks,
            level,
            capacity=self._settings.queue_capacity,
            heartbeat_s=self._settings.feedback_heartbeat_s,
            metrics=sum(1 for _ in REGISTRY.collect()),
            now=now,
        )
        said, age_s = headline(level, health), self._queue.age_s()
        histories = self._history.points(), self._reader.flow.seen(), self._backfill_history.points()
        return Sample(now, looks, level, backfill, health, said, age_s, *histories)

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
        return Looks(queue, workers, self._database.value(), feedback, trouble, backfill, answers, found)

    def _both_levels(self, looks: Looks, now: float) -> tuple[LevelAndReason, LevelAndReason]:
        backfill = looks.of_backfill
        return self._levels.at(looks.depth, looks, now), self._backfill_levels.at(backfill.depth, backfill, now)

    def _record(self) -> None:
        if not (self._workers.has_looked and self._feedback.has_looked):
            return  # the level needs these looks too
        now, looks = time.time(), self._looks()
        level, backfill = self._both_levels(looks, now)
        self._history.add(Point(now, looks.depth, level.level.value))
        self._backfill_history.add(Point(now, looks.of_backfill.depth, backfill.level.value))
        self._on_level(level, backfill)

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


class _Part(Generic[T]):
    """One part of the store: the thread that looks at it repeatedly, and its newest look."""

    def __init__(
        self,
        name: str,
        look: Callable[[], T | Away],
        *,
        interval_s: float = INTERVAL_S,
        deadline_s: float = DEADLINE_S,
        after: Callable[[], None] | None = None,
        log: bool,
    ) -> None:
        self._name = name
        self._look = look
        self._interval_s = interval_s
        self._after = after or (lambda: None)
        self._log = log
        self._trouble, self._refused = Repeated(logger), Repeated(logger)
        self._found: tuple[float, T | Away] | None = None
        self._first = threading.Event()
        self.deadline_s = deadline_s
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"status-{name}", daemon=True)

    @property
    def has_looked(self) -> bool:
        """Whether the first look has ended."""
        return self._first.is_set()

    def wait_for_first(self, until: float) -> None:
        """Wait for the end of the first look, at most until `until` (monotonic seconds)."""
        self._first.wait(max(0.0, until - time.monotonic()))

    def value(self) -> T | Away:
        """Return the newest look's result; `Away` if the next look is overdue by more than the deadline."""
        found = self._found
        if found is None:
            return Away(f"no answer within {DEADLINE_S:g} s")
        if time.monotonic() - found[0] > self._interval_s + self.deadline_s:
            return Away(f"no answer within {self.deadline_s:g} s")
        return found[1]

    def age_s(self) -> float | None:
        """Return the seconds since the last look ended."""
        return None if self._found is None else time.monotonic() - self._found[0]

    def _run(self) -> None:
        while not self.stop.is_set():
            started = time.monotonic()
            try:
                value = self._look()
            except Exception as error:  # the edge of a thread: the other parts continue
                if not self._trouble.is_on:
                    logger.exception("Could not read the state of the %s", self._name)
                value = Away(f"the state of the {self._name} could not be read ({type(error).__name__})")
            self._found = time.monotonic(), value
            self._first.set()
            self._say(value)
            self._say_refusal(value)
            self._after()
            self.stop.wait(max(0.0, self._interval_s - (time.monotonic() - started)))

    def _say(self, value: T | Away) -> None:
        """Note whether the part answers, or why it does not."""
        if not isinstance(value, Away):
            self._trouble.over(f"The {self._name} answers again")
        elif self._log:
            self._trouble.happened(f"{value.error}{value.reason and ': '}{value.reason}", kind="away")

    def _say_refusal(self, value: T | Away) -> None:
        """Note whether the broker refuses writes."""
        if not self._log or not isinstance(value, QueueStatus):
            return
        if value.refusal:
            self._refused.happened(f"The broker takes no write: {value.refusal}")
        else:
            self._refused.over("The broker takes writes again")
