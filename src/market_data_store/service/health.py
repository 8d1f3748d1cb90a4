"""Health: what is asked of database, broker, workers and feedback, side by side, each with its deadline.

An answer is kept for a second, so that probes cost the servers nothing, and is never waited for longer than
`DEADLINE_S`: a server that accepts and never answers holds one thread and one connection, however many ask.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal

import psycopg
from market_data_core.telemetry import HealthComponent, HealthStatus
from prometheus_client import REGISTRY
from redis.exceptions import RedisError

from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.coordinator.queue import QueueInspector, Reading
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.coordinator.watermarks import HARD, OK, Watermarks
from market_data_store.errors import BrokerUnavailable, DatabaseUnavailable
from market_data_store.metrics.definitions import set_queue_gauges
from market_data_store.postgres import schema
from market_data_store.postgres.connection import connect
from market_data_store.protocol import QUEUE

logger = logging.getLogger(__name__)

#: Seconds after which a check counts as unanswered; above a ping of the workers, which takes a second.
DEADLINE_S = 1.6
#: Seconds for which an answer is kept.
MAX_AGE_S = 1.0
#: Workers are asked in the background, and their last answer is taken for so long.
_WORKERS_MAX_AGE_S = 5.0
#: Heartbeats that may be missed before the monitor counts as gone.
_MISSED_HEARTBEATS = 3

State = Literal["healthy", "degraded", "unhealthy"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about a component."""

    state: State
    details: dict[str, str] = field(default_factory=dict)


#: Finds out about one or several components, by name.
Probe = Callable[[], dict[str, Finding]]


class Check:
    """A probe that runs in a thread of its own, at most one at a time, and its last answer."""

    def __init__(self, names: tuple[str, ...], probe: Probe, *, max_age_s: float = MAX_AGE_S) -> None:
        self.names = names
        self._probe = probe
        self._max_age_s = max_age_s
        self._changed = threading.Condition()
        self._started_at: float | None = None
        self._answer: tuple[float, dict[str, Finding]] | None = None

    def refresh(self) -> None:
        """Ask, unless the answer is fresh or is being waited for."""
        with self._changed:
            now = time.monotonic()
            if self._started_at is None and (self._answer is None or now - self._answer[0] >= MAX_AGE_S):
                self._started_at = now
                threading.Thread(target=self._run, name=f"check-{self.names[0]}", daemon=True).start()

    def findings(self) -> dict[str, Finding]:
        """The answer, or that there is none, at the latest `DEADLINE_S` after it was asked for."""
        with self._changed:
            started_at, answer = self._started_at, self._answer
            if started_at is not None and (answer is None or started_at - answer[0] >= self._max_age_s):
                left_s = started_at + DEADLINE_S - time.monotonic()
                if not self._changed.wait_for(lambda: self._started_at != started_at, max(0.0, left_s)):
                    unanswered = Finding("unhealthy", {"error": f"no answer within {DEADLINE_S:g} s"})
                    return dict.fromkeys(self.names, unanswered)
            assert self._answer is not None  # noqa: S101  # for mypy: it was asked, and answered
            return self._answer[1]

    def _run(self) -> None:
        try:
            findings = self._probe()
        except Exception as error:  # a probe raises what its driver raises, and the page must go on
            logger.exception("The check of %s failed", self.names[0])
            findings = dict.fromkeys(self.names, Finding("unhealthy", {"error": type(error).__name__}))
        with self._changed:
            self._answer = (time.monotonic(), findings)
            self._started_at = None
            self._changed.notify_all()


class Health:
    """The store's health, for `/health` and `/readyz`."""

    #: The components without which nothing can be served.
    _REQUIRED = ("database", "migrations", "broker")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: psycopg.Connection[tuple[object, ...]] | None = None
        self._inspector = QueueInspector(app, QUEUE)
        self._workers = QueueInspector(app, QUEUE)
        self._watermarks = Watermarks.of(settings)
        self._level = OK
        self._feedback = None
        if settings.feedback_url and settings.pulse_enabled:
            self._feedback = RedisFeedbackPublisher(settings.feedback_url, namespace=settings.namespace, timeout_s=1.0)
        self._checks = (
            Check(("database", "migrations"), self._ask_database),
            Check(("broker", "queue"), self._ask_broker),
            Check(("workers",), self._ask_workers, max_age_s=_WORKERS_MAX_AGE_S),
            Check(("feedback",), self._ask_feedback),
            Check(("prometheus",), _ask_prometheus),
        )

    def status(self) -> HealthStatus:
        """The whole, within two seconds."""
        for check in self._checks:
            check.refresh()
        found = {name: finding for check in self._checks for name, finding in check.findings().items()}
        return HealthStatus(
            service="market-data-store",
            state=_state_of(found),
            components=[HealthComponent(name=n, state=f.state, details=f.details) for n, f in found.items()],
            version=version("market-data-store"),
            ts=time.time(),
        )

    def is_ready(self, status: HealthStatus) -> bool:
        """Whether rows can be taken and written: database, its schema and the broker are there."""
        return all(c.state != "unhealthy" for c in status.components if c.name in self._REQUIRED)

    def _ask_database(self) -> dict[str, Finding]:
        started = time.monotonic()
        try:
            if self._database is None:
                self._database = connect(self._settings.require_database_url())
            revisions = schema.revisions_of(self._database)
        except (DatabaseUnavailable, psycopg.Error) as error:
            self._close_database()
            return {
                "database": _unavailable("Postgres", error),
                "migrations": Finding("unhealthy", {"error": "unknown while the database is away"}),
            }
        details = {"current": revisions.current or "none", "head": revisions.head}
        due = Finding("unhealthy", {**details, "error": "a migration is due; run `mds migrate`"})
        return {
            "database": Finding("healthy", {"latency_ms": f"{(time.monotonic() - started) * 1e3:.1f}"}),
            "migrations": Finding("healthy", details) if revisions.up_to_date else due,
        }

    def _close_database(self) -> None:
        if self._database is not None:
            with suppress(psycopg.Error):
                self._database.close()
            self._database = None

    def _ask_broker(self) -> dict[str, Finding]:
        started = time.monotonic()
        try:
            depth = self._inspector.depth()
            reserved = self._inspector.reserved()
        except BrokerUnavailable as error:
            set_queue_gauges(self._settings.queue_capacity, Reading(None, None, None), HARD)
            unknown = Finding("unhealthy", {"error": "unknown while the broker is away"})
            return {"broker": _unavailable("the broker", error), "queue": unknown}
        capacity = self._settings.queue_capacity
        self._level = self._watermarks.level(self._level, depth / capacity)
        set_queue_gauges(capacity, Reading(depth, reserved, None), self._level)
        details = {"depth": str(depth), "capacity": str(capacity), "utilization": f"{depth / capacity:.2f}"}
        details |= {"level": self._level.value} | ({} if reserved is None else {"reserved": str(reserved)})
        return {
            "broker": Finding("healthy", {"latency_ms": f"{(time.monotonic() - started) * 1e3:.1f}"}),
            "queue": Finding("degraded" if self._level == HARD else "healthy", details),
        }

    def _ask_workers(self) -> dict[str, Finding]:
        try:
            count = len(self._workers.workers())
        except BrokerUnavailable:
            return {"workers": Finding("unhealthy", {"error": "unknown while the broker is away"})}
        set_queue_gauges(self._settings.queue_capacity, Reading(None, None, count), self._level)
        details = {"alive": str(count)}
        if count:
            return {"workers": Finding("healthy", details)}
        return {"workers": Finding("degraded", {**details, "error": "no worker answers; nothing is written"})}

    def _ask_feedback(self) -> dict[str, Finding]:
        if self._feedback is None:
            return {"feedback": Finding("healthy", {"stream": "none; set REDIS_URL for one"})}
        try:
            last, outcomes = self._feedback.last(), self._feedback.reported()
        except RedisError as error:
            return {"feedback": _unavailable("the feedback stream's Redis", error, state="degraded")}
        if last is None:
            return {"feedback": Finding("degraded", {"error": "no event yet; is `mds monitor` running?"})}
        age_s = time.time() - last.ts
        details = {"level": last.level.value, "age_s": f"{age_s:.1f}", **outcomes}
        if last.reason:
            details["reason"] = last.reason
        if age_s > _MISSED_HEARTBEATS * self._settings.feedback_heartbeat_s:
            return {"feedback": Finding("degraded", {**details, "error": "no event lately; is `mds monitor` running?"})}
        return {"feedback": Finding("degraded" if "failed" in outcomes.values() else "healthy", details)}


def _state_of(found: dict[str, Finding]) -> State:
    """Unhealthy when neither database nor broker is there, degraded when anything else is wrong."""
    if all(found[name].state == "unhealthy" for name in ("database", "broker")):
        return "unhealthy"
    return "healthy" if all(finding.state == "healthy" for finding in found.values()) else "degraded"


def _unavailable(what: str, error: Exception, *, state: State = "unhealthy") -> Finding:
    # Drivers name hosts and users: that is for the log, the answer is for anyone.
    logger.warning("Health: %s does not answer: %s", what, error if isinstance(error, DatabaseUnavailable) else "")
    return Finding(state, {"error": f"{what} does not answer ({_kind(error)})"})


def _kind(error: Exception) -> str:
    return type(error.__cause__ or error).__name__


def _ask_prometheus() -> dict[str, Finding]:
    return {"prometheus": Finding("healthy", {"metrics": str(sum(1 for _ in REGISTRY.collect()))})}
