"""The one line that sums up the store's status: the worse of level and health, with the cause. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from market_data_core.telemetry import HealthComponent, HealthStatus

from market_data_store.coordinator.feedback import BROKER_UNREACHABLE, DATABASE_FULL, DATASET_HELD, NO_WORKERS
from market_data_store.coordinator.watermarks import HARD, OK, SOFT, LevelAndReason
from market_data_store.coordinator.workers import unserved
from market_data_store.protocol import BACKFILL_QUEUE
from market_data_store.status.health import is_ready

Severity = Literal["ok", "warning", "critical"]

_OF_LEVEL = {
    OK: "producers send at full rate",
    SOFT: "the queue is filling; producers slow down",
    HARD: "the queue is full; producers wait",
}
_OF_REASON = {
    BROKER_UNREACHABLE: "the broker does not answer; producers wait",
    DATABASE_FULL: "the database is nearly full; producers wait",
    DATASET_HELD: "the messages of held datasets fill their capacity; producers wait",
    NO_WORKERS: "messages wait and no worker takes them",
}


class Headline(NamedTuple):
    """The store's status for people; its text is `state: cause`."""

    severity: Severity
    #: The level and its reason (`soft`, `hard (no_workers)`), or `not ready` or `degraded` if health is worse.
    state: str
    cause: str

    def __str__(self) -> str:
        """Return the whole line."""
        return f"{self.state}: {self.cause}"


def headline(level: LevelAndReason, health: HealthStatus) -> Headline:
    """Return the worse of level and health.

    Critical is what stops rows: the level hard, a database, schema or broker that is missing, a broker that takes no
    write, or a held dataset.
    Everything else is a warning, and warnings are left out while something is critical.
    """
    of_level = _OF_REASON.get(level.reason or "") or _OF_LEVEL[level.level]
    if level.level is HARD or not is_ready(health):
        stopped = [of_level] if level.level is HARD else []
        causes = [*stopped, *_not_ready(health)]
        return Headline("critical", str(level) if stopped else "not ready", "; ".join(causes))
    warnings = [of_level] if level.level is SOFT else []
    warnings += [_cause(component) for component in health.components if component.state != "healthy"]
    if warnings:
        return Headline("warning", "soft" if level.level is SOFT else "degraded", "; ".join(warnings))
    return Headline("ok", str(level), of_level)


def problem_of(backfill: LevelAndReason) -> str | None:
    """Return what to do about the backfill lane, if nobody takes what waits there; it makes no headline."""
    if backfill.reason != NO_WORKERS:
        return None
    return unserved(BACKFILL_QUEUE)


def _not_ready(health: HealthStatus) -> Iterator[str]:
    state = {component.name: component.state for component in health.components}
    if state["database"] == "unhealthy":
        waits = "" if state["broker"] == "unhealthy" else "; messages wait in the queue, nothing is lost"
        yield f"Postgres does not answer{waits}"
    elif state["migrations"] == "unhealthy":
        (due,) = (component for component in health.components if component.name == "migrations")
        yield _cause(due)
    for component in health.components:
        # That a broker does not answer is what the level says.
        is_due = component.name == "datasets" or "refusal" in component.details
        if component.state == "unhealthy" and is_due:
            yield _cause(component)


def _cause(component: HealthComponent) -> str:
    return str(component.details.get("error", f"{component.name} is {component.state}"))
