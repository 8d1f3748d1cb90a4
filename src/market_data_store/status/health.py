"""Computes Core's `HealthStatus` from looks at the store's parts. Pure: no clock, no server."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from market_data_core.telemetry import HealthComponent, HealthStatus

from market_data_store.coordinator.watermarks import HARD, LevelAndReason
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.looks import Away, FeedbackStatus, Looks, QueueStatus
from market_data_store.status.trouble import Trouble

State = Literal["healthy", "degraded", "unhealthy"]

#: The components without which no row can be accepted and written.
_REQUIRED = ("database", "migrations", "broker", "datasets")


def health_of(
    looks: Looks, level: LevelAndReason, *, capacity: int, heartbeat_s: float, metrics: int, now: float
) -> HealthStatus:
    """Return the store's health at `now` (seconds since 1970).

    The store is unhealthy when neither database nor broker answers, and degraded when anything else is wrong.
    `metrics` is the number of metrics that this process serves.
    """
    components = [
        _database(looks.database),
        _migrations(looks.database),
        _broker(looks.queue),
        _queue(looks.queue, level, capacity),
        _workers(looks.workers, looks.queue, looks.trouble),
        _datasets(looks.trouble),
        _feedback(looks.feedback, heartbeat_s, now),
        _component("prometheus", "healthy", {"metrics": str(metrics)}),
    ]
    return HealthStatus(
        service="market-data-store",
        state=_whole(components),
        components=components,
        version=version("market-data-store"),
        ts=now,
    )


def is_ready(status: HealthStatus) -> bool:
    """Return whether rows can be accepted and written: all servers are there, and rows of every dataset are written."""
    return all(component.state != "unhealthy" for component in status.components if component.name in _REQUIRED)


def _whole(components: list[HealthComponent]) -> State:
    states = {component.name: component.state for component in components}
    if states["database"] == states["broker"] == "unhealthy":
        return "unhealthy"
    return "healthy" if set(states.values()) == {"healthy"} else "degraded"


def _component(name: str, state: State, details: dict[str, str], error: str | None = None) -> HealthComponent:
    return HealthComponent(name=name, state=state, details=details if error is None else {**details, "error": error})


def _database(look: DatabaseStatus | Away) -> HealthComponent:
    if isinstance(look, Away):
        return _component("database", "unhealthy", {}, look.error)
    details = {"latency_ms": f"{look.latency_ms:.1f}"}
    if look.is_read_only:
        return _component("database", "unhealthy", details, "Postgres is read-only")
    return _component("database", "healthy", details)


def _migrations(look: DatabaseStatus | Away) -> HealthComponent:
    if isinstance(look, Away):
        return _component("migrations", "unhealthy", {}, "unknown while the database is away")
    details = {"current": look.revisions.current or "none", "head": look.revisions.head}
    if look.revisions.is_newer:
        return _component("migrations", "degraded", details, "a newer version has migrated the database")
    if look.revisions.up_to_date:
        return _component("migrations", "healthy", details)
    return _component("migrations", "unhealthy", details, "a migration is due; run `mds migrate`")


def _broker(look: QueueStatus | Away) -> HealthComponent:
    details = {} if look.refusal is None else {"refusal": look.refusal}
    if isinstance(look, Away):
        return _component("broker", "unhealthy", details, look.error)
    details["latency_ms"] = f"{look.latency_ms:.1f}"
    if look.refusal:
        return _component("broker", "unhealthy", details, f"the broker takes no write: {look.refusal}")
    return _component("broker", "healthy", details)


def _queue(look: QueueStatus | Away, level: LevelAndReason, capacity: int) -> HealthComponent:
    said = {"level": level.level.value} | ({} if level.reason is None else {"reason": level.reason})
    if isinstance(look, Away):
        return _component("queue", "unhealthy", said, "unknown while the broker is away")
    details = {"depth": str(look.depth), "capacity": str(capacity), "utilization": f"{look.depth / capacity:.2f}"}
    details |= said | ({} if look.reserved is None else {"reserved": str(look.reserved)})
    details |= {"malformed": str(look.malformed)} if look.malformed else {}
    return _component("queue", "degraded" if level.level is HARD else "healthy", details)


def _workers(look: list[str] | Away, queue: QueueStatus | Away, trouble: Trouble) -> HealthComponent:
    if isinstance(look, Away):
        error = "unknown while the broker is away" if isinstance(queue, Away) else look.error
        return _component("workers", "unhealthy", {}, error)
    details = {"alive": str(len(look))}
    if look and trouble.workers:
        return _component("workers", "degraded", details, "; ".join(trouble.workers))
    if look:
        return _component("workers", "healthy", details)
    return _component("workers", "degraded", details, "no worker takes messages; nothing is written")


def _datasets(trouble: Trouble) -> HealthComponent:
    details = {"held": str(sum(each.messages for each in trouble.held))}
    if trouble.sentences:
        return _component("datasets", "unhealthy", details, "; ".join(trouble.sentences))
    return _component("datasets", "healthy", details)


def _feedback(look: FeedbackStatus | Away | None, heartbeat_s: float, now: float) -> HealthComponent:
    if look is None:
        return _component("feedback", "healthy", {"stream": "none; set REDIS_URL to publish to one"})
    if isinstance(look, Away):
        return _component("feedback", "degraded", {}, look.error)
    if not look.events:
        return _component("feedback", "degraded", {}, "no event yet; is `mds monitor` running?")
    newest = look.events[0]
    details = {"level": newest.level.value, "age_s": f"{now - newest.ts:.1f}", **look.outcomes}
    if newest.reason:
        details["reason"] = newest.reason
    if look.fresh(now, heartbeat_s) is None:
        return _component("feedback", "degraded", details, "no recent event; is `mds monitor` running?")
    failing = sorted(receiver for receiver, outcome in look.outcomes.items() if outcome == "failed")
    if failing:
        return _component("feedback", "degraded", details, f"feedback cannot be delivered to {', '.join(failing)}")
    return _component("feedback", "healthy", details)
