"""From looks to health and headline: tables of cases."""

from __future__ import annotations

from typing import Any

import pytest
from market_data_core.telemetry import HealthStatus

from market_data_store.coordinator.feedback import BROKER_UNREACHABLE, NO_WORKERS, FeedbackEvent
from market_data_store.coordinator.watermarks import HARD, OK, SOFT, LevelAndReason
from market_data_store.postgres.schema import Revisions
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.headline import Headline, causes_of, headline
from market_data_store.status.health import health_of, is_ready
from market_data_store.status.looks import Away, FeedbackStatus, Looks, QueueStatus
from market_data_store.status.trouble import HeldStatus, Trouble

NOW = 1_700_000_000.0
HEARTBEAT_S = 10.0


def told(age_s: float = 1.0, level: str = "ok", reason: str | None = None, **outcomes: str) -> FeedbackStatus:
    event = FeedbackEvent.create("store.write", 0, 100, level, reason).model_copy(update={"ts": NOW - age_s})
    return FeedbackStatus([event], outcomes)


WELL = Looks(
    queue=QueueStatus(7, 2, 0.5),
    workers=["celery@one"],
    database=DatabaseStatus(1.0, Revisions("0002", "0002"), 12.0, 0, []),
    feedback=told(redis="delivered"),
)
GONE = Away("Postgres does not answer (OperationalError)", "cannot connect to postgresql://***@db/market")
BROKER_GONE = Away("the broker does not answer (ConnectionRefusedError)", "cannot connect to redis://***@broker/0")
REFUSAL = "OOM command not allowed when used memory > 'maxmemory'."
FULL = QueueStatus(7, 2, 0.5, {}, REFUSAL)
HUNG = Away("no answer within 1.6 s")
BEHIND = DatabaseStatus(1.0, Revisions("0001", "0002"), None, None, None)
NEWER = DatabaseStatus(1.0, Revisions("0003", "0002", is_newer=True), 12.0, 0, [])


def health(level: LevelAndReason = LevelAndReason(OK), **looks: Any) -> HealthStatus:  # noqa: B008  # immutable
    found = WELL._replace(**looks)
    return health_of(found, level, capacity=100, heartbeat_s=HEARTBEAT_S, metrics=3, now=NOW)


def component(status: HealthStatus, name: str) -> tuple[str, dict[str, str]]:
    (found,) = (each for each in status.components if each.name == name)
    return found.state, found.details


def test_all_is_healthy() -> None:
    status = health()
    names = ["database", "migrations", "broker", "queue", "workers", "datasets", "feedback", "prometheus"]
    assert [(each.name, each.state) for each in status.components] == [(name, "healthy") for name in names]
    assert (status.state, status.ts, is_ready(status)) == ("healthy", NOW, True)
    assert component(status, "queue")[1] == {
        "depth": "7", "capacity": "100", "utilization": "0.07", "level": "ok", "reserved": "2"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("looks", "level", "states", "whole", "ready"),
    [
        ({"database": GONE}, OK, {"database": "unhealthy", "migrations": "unhealthy"}, "degraded", False),
        ({"database": HUNG}, OK, {"database": "unhealthy", "migrations": "unhealthy"}, "degraded", False),
        ({"database": BEHIND}, OK, {"migrations": "unhealthy"}, "degraded", False),
        ({"database": NEWER}, OK, {"migrations": "degraded"}, "degraded", True),
        (
            {"queue": BROKER_GONE, "workers": BROKER_GONE}, HARD,
            {"broker": "unhealthy", "queue": "unhealthy", "workers": "unhealthy"}, "degraded", False,
        ),
        (
            {"queue": BROKER_GONE, "workers": BROKER_GONE, "database": GONE}, HARD,
            dict.fromkeys(("broker", "queue", "workers", "database", "migrations"), "unhealthy"), "unhealthy", False,
        ),
        ({"workers": []}, OK, {"workers": "degraded"}, "degraded", True),
        ({"workers": []}, HARD, {"workers": "degraded", "queue": "degraded"}, "degraded", True),
        ({"workers": HUNG}, OK, {"workers": "unhealthy"}, "degraded", True),
        ({}, SOFT, {}, "healthy", True),
        ({}, HARD, {"queue": "degraded"}, "degraded", True),
        ({"trouble": Trouble((HeldStatus("bars", 4, None, "no"),))}, OK, {"datasets": "unhealthy"}, "degraded", False),
        ({"trouble": Trouble((HeldStatus("bars", 4),))}, OK, {}, "healthy", True),
        ({"trouble": Trouble((), 31.0)}, OK, {"datasets": "unhealthy"}, "degraded", False),
        ({"queue": FULL}, OK, {"broker": "unhealthy"}, "degraded", False),
        ({"queue": FULL, "database": GONE}, OK,
            dict.fromkeys(("broker", "database", "migrations"), "unhealthy"), "unhealthy", False,
        ),
        ({"trouble": Trouble(workers=("1 of 2 workers",))}, OK, {"workers": "degraded"}, "degraded", True),
        ({"feedback": None}, OK, {}, "healthy", True),
        ({"feedback": FeedbackStatus([])}, OK, {"feedback": "degraded"}, "degraded", True),
        ({"feedback": told(age_s=29)}, OK, {}, "healthy", True),
        ({"feedback": told(age_s=31)}, OK, {"feedback": "degraded"}, "degraded", True),
        ({"feedback": told(redis="delivered", http="failed")}, OK, {"feedback": "degraded"}, "degraded", True),
        ({"feedback": HUNG}, OK, {"feedback": "degraded"}, "degraded", True),
    ],
)  # fmt: skip
def test_what_is_wrong_is_wrong_in_its_component_only(
    looks: dict[str, Any], level: Any, states: dict[str, str], whole: str, ready: bool
) -> None:
    status = health(LevelAndReason(level), **looks)
    assert {each.name: each.state for each in status.components if each.state != "healthy"} == states
    assert (status.state, is_ready(status)) == (whole, ready)
    said = [value for each in status.components for value in each.details.values()]
    assert not any("***" in value for value in said), "drivers name hosts, the answer is for everyone"


def test_the_queue_says_the_level_with_its_reason() -> None:
    level = LevelAndReason(HARD, NO_WORKERS)
    details = component(health(level, workers=[]), "queue")[1]
    assert (details["level"], details["reason"]) == ("hard", "no_workers")
    level = LevelAndReason(HARD, BROKER_UNREACHABLE)
    details = component(health(level, queue=BROKER_GONE, workers=BROKER_GONE), "queue")[1]
    assert (details["level"], details["reason"]) == ("hard", "broker_unreachable")


WAITS = "Postgres does not answer; messages wait in the queue, nothing is lost"


@pytest.mark.parametrize(
    ("level", "looks", "severity", "text"),
    [
        (LevelAndReason(OK), {}, "ok", "ok: producers send at full rate"),
        (LevelAndReason(SOFT), {}, "warning", "soft: the queue is filling; producers slow down"),
        (LevelAndReason(HARD), {}, "critical", "hard: the queue is full; producers wait"),
        (LevelAndReason(OK), {"database": GONE}, "critical", f"not ready: {WAITS}"),
        (LevelAndReason(SOFT), {"database": HUNG}, "critical", f"not ready: {WAITS}"),
        (LevelAndReason(OK), {"database": BEHIND}, "critical", "not ready: a migration is due; run `mds migrate`"),
        (
            LevelAndReason(HARD, NO_WORKERS), {"workers": []},
            "critical", "hard (no_workers): messages wait and no worker takes them",
        ),
        (
            LevelAndReason(HARD, NO_WORKERS), {"workers": [], "database": GONE},
            "critical", f"hard (no_workers): messages wait and no worker takes them; {WAITS}",
        ),
        (
            LevelAndReason(HARD, BROKER_UNREACHABLE), {"queue": BROKER_GONE, "workers": BROKER_GONE},
            "critical", "hard (broker_unreachable): the broker does not answer; producers wait",
        ),
        (
            LevelAndReason(HARD, BROKER_UNREACHABLE),
            {"queue": BROKER_GONE, "workers": BROKER_GONE, "database": GONE},
            "critical",
            "hard (broker_unreachable): the broker does not answer; producers wait; Postgres does not answer",
        ),
        (LevelAndReason(OK), {"queue": FULL}, "critical", f"not ready: the broker takes no write: {REFUSAL}"),
        (LevelAndReason(OK), {"workers": []}, "warning", "degraded: no worker takes messages; nothing is written"),
        (
            LevelAndReason(SOFT), {"feedback": FeedbackStatus([])},
            "warning",
            "soft: the queue is filling; producers slow down; no event yet; is `mds monitor` running?",
        ),
        (
            LevelAndReason(OK), {"feedback": told(http="failed")},
            "warning", "degraded: feedback cannot be delivered to http",
        ),
    ],
)  # fmt: skip
def test_the_headline_is_the_worst_of_level_and_health(
    level: LevelAndReason, looks: dict[str, Any], severity: str, text: str
) -> None:
    found = headline(level, causes_of(level, WELL._replace(**looks), health(level, **looks)))
    assert (found.severity, str(found)) == (severity, text)
    state, cause = text.split(": ", 1)
    assert found == Headline(found.severity, state, cause, found.code)
    assert (found.code is None) == (severity == "ok")
