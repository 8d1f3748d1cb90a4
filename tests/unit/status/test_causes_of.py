"""Which cause is the worst, what follows from it and is not said, and since when it has been there."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from market_data_store.causes import Cause
from market_data_store.coordinator.feedback import BROKER_UNREACHABLE, NO_WORKERS, FeedbackEvent
from market_data_store.coordinator.watermarks import HARD, OK, LevelAndReason
from market_data_store.postgres.schema import Revisions
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.headline import Found, causes_of, headline
from market_data_store.status.health import health_of, is_ready
from market_data_store.status.looks import Away, FeedbackStatus, Looks, QueueStatus
from market_data_store.status.saying import Saying
from market_data_store.status.since import Since
from market_data_store.status.trouble import HeldStatus, Trouble

NOW = 1_700_000_000.0
WELL_DATABASE = DatabaseStatus(1.0, Revisions("0002", "0002"), 12.0, 0, [])
GONE = Away("Postgres does not answer (OperationalError)")
REFUSES = Away("the broker refuses: MISCONF no disk", "", "MISCONF no disk")
STALLED = Trouble((), 31.0, ("1 of 1 workers have had messages and committed none for more than 8 s",))


def event(reason: str | None, age_s: float) -> FeedbackEvent:
    level = "hard" if reason else "ok"
    return FeedbackEvent.create("store.write", 0, 100, level, reason).model_copy(update={"ts": NOW - age_s})


WELL = Looks(QueueStatus(7, 2, 0.5), ["celery@one"], WELL_DATABASE, FeedbackStatus([event(None, 1.0)]))


def found(level: LevelAndReason = LevelAndReason(OK), **looks: Any) -> list[Found]:  # noqa: B008  # immutable
    seen = WELL._replace(**looks)
    return causes_of(level, seen, health_of(seen, level, capacity=100, heartbeat_s=10.0, metrics=3, now=NOW))


@pytest.mark.parametrize(
    ("level", "looks", "causes"),
    [
        (LevelAndReason(OK), {}, []),
        (LevelAndReason(OK), {"database": GONE, "trouble": STALLED}, ["database_down", "workers_in_trouble"]),
        (LevelAndReason(HARD), {"database": GONE}, ["database_down", "queue_full"]),
        (LevelAndReason(OK), {"database": replace(WELL_DATABASE, is_read_only=True)}, ["database_read_only"]),
        (LevelAndReason(OK), {"trouble": STALLED}, ["workers_stalled", "workers_in_trouble"]),
        (
            LevelAndReason(OK), {"trouble": STALLED._replace(held=(HeldStatus("bars", 4, "42703", "no column"),))},
            ["dataset_held", "workers_stalled", "workers_in_trouble"],
        ),
        (LevelAndReason(HARD, BROKER_UNREACHABLE), {"queue": REFUSES, "workers": REFUSES}, ["broker_takes_no_write"]),
        (LevelAndReason(HARD, NO_WORKERS), {"workers": []}, ["no_workers"]),
        (LevelAndReason(OK), {"workers": [], "clocks": ["the clock of Postgres is 9 s ahead"]},
            ["no_workers", "clock_wrong"],
        ),
        (LevelAndReason(OK), {"database": replace(WELL_DATABASE, new_letters="dead letters grow: bars: no")},
            ["letters_grow"],
        ),
        (LevelAndReason(OK), {"feedback": Away("the feedback stream's Redis does not answer")},
            ["feedback_not_delivered"],
        ),
        (LevelAndReason(OK), {"feedback": FeedbackStatus([event(None, 1.0)], {"http": "failed"})},
            ["feedback_not_delivered"],
        ),
        (LevelAndReason(OK), {"feedback": FeedbackStatus([])}, ["no_monitor"]),
    ],
)  # fmt: skip
def test_the_worst_cause_comes_first(level: LevelAndReason, looks: dict[str, Any], causes: list[str]) -> None:
    assert [each.cause.value for each in found(level, **looks)] == causes
    assert headline(level, found(level, **looks)).code == (causes[0] if causes else None)


def test_a_postgres_that_is_read_only_is_not_ready() -> None:
    level, looks = LevelAndReason(OK), WELL._replace(database=replace(WELL_DATABASE, is_read_only=True))
    assert not is_ready(health_of(looks, level, capacity=100, heartbeat_s=10.0, metrics=3, now=NOW))
    said = headline(level, found(level, database=looks.database))
    assert str(said) == "not ready: Postgres is read-only; messages wait in the queue, nothing is lost"


def test_a_cause_is_there_since_it_was_first_seen() -> None:
    since = Since()
    since.note([Cause.DATABASE_DOWN], NOW)
    since.note([Cause.DATABASE_DOWN], NOW + 3)
    assert since.of(Cause.DATABASE_DOWN, WELL) == NOW
    since.note([], NOW + 4)  # one look that was missed
    since.note([Cause.DATABASE_DOWN], NOW + 5)
    assert since.of(Cause.DATABASE_DOWN, WELL) == NOW
    since.note([], NOW + 20)
    assert since.of(Cause.DATABASE_DOWN, WELL) is None
    assert since.of(None, WELL) is None


def test_the_feedback_stream_may_know_an_earlier_time() -> None:
    since = Since()
    since.note([Cause.NO_WORKERS], NOW)
    events = [event("no_workers", 1.0), event("no_workers", 40.0), event(None, 50.0), event("no_workers", 90.0)]
    assert since.of(Cause.NO_WORKERS, WELL._replace(feedback=FeedbackStatus(events))) == NOW - 40.0


def test_a_cause_is_said_once_and_when_it_is_over_and_a_warning_only_if_it_lasts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    saying = Saying()
    held = Found(Cause.DATASET_HELD, "critical", "bars is held")
    monitor = Found(Cause.NO_MONITOR, "warning", "no event yet; is `mds monitor` running?")
    down = Found(Cause.DATABASE_DOWN, "critical", "Postgres does not answer")  # the look itself says it
    for second in range(9):
        saying.note([down, held, monitor], 100.0 + second)
    saying.note([monitor], 109.0)  # what is critical is over
    saying.note([], 110.0)
    lines = [(record.getMessage().partition(",")[0], vars(record)["cause"]) for record in caplog.records]
    assert lines == [
        ("bars is held", "dataset_held"),
        ("no event yet; is `mds monitor` running?", "no_monitor"),
        ("Over: dataset held", "dataset_held"),
        ("Over: no monitor", "no_monitor"),
    ]
