"""The level of those who are not the monitor."""

from __future__ import annotations

from typing import Any

import pytest

from market_data_store.config import Settings
from market_data_store.coordinator.feedback import NO_WORKERS, FeedbackEvent
from market_data_store.coordinator.watermarks import HARD, OK, SOFT, LevelAndReason
from market_data_store.protocol import BACKFILL_QUEUE
from market_data_store.status.levels import Levels
from market_data_store.status.looks import Away, BackfillLooks, FeedbackStatus, Looks, QueueStatus

NOW = 1_700_000_000.0


@pytest.fixture
def levels() -> Levels:
    return Levels(Settings(MDS_QUEUE_CAPACITY=100, MDS_FEEDBACK_HEARTBEAT_S=10))  # type: ignore[call-arg]


def looks(depth: int | None, workers: list[str] | None = None, told: str = "", age_s: float = 0) -> Looks:
    away = Away("gone")
    feedback: Any = away
    if told:
        event = FeedbackEvent.create("store.write", 0, 100, told).model_copy(update={"ts": NOW - age_s})
        feedback = FeedbackStatus([event])
    queue = away if depth is None else QueueStatus(depth, None, 0.1)
    return Looks(queue, away if workers is None else workers, away, feedback)


def test_the_last_own_level_is_the_one_before(levels: Levels) -> None:
    found = [levels.at(depth, looks(depth, ["one"]), NOW).level for depth in (90, 70, 60, 45, 40, 45)]
    assert found == [HARD, HARD, SOFT, SOFT, OK, OK]


@pytest.mark.parametrize(
    ("told", "age_s", "expected"), [("hard", 29, HARD), ("soft", 29, SOFT), ("ok", 29, SOFT), ("hard", 31, SOFT)]
)
def test_a_fresh_event_of_the_monitor_is_the_level_before(
    levels: Levels, told: str, age_s: float, expected: Any
) -> None:
    assert levels.at(70, looks(70, ["one"], told, age_s), NOW).level is expected


def test_the_own_look_wins_over_the_event(levels: Levels) -> None:
    assert levels.at(1, looks(1, [], "ok"), NOW) == LevelAndReason(HARD, NO_WORKERS)
    assert levels.at(1, looks(1, ["one"], "hard"), NOW) == LevelAndReason(OK)
    assert levels.at(None, looks(None, None, "ok"), NOW).reason == "broker_unreachable"


def test_the_backfill_lane_has_a_capacity_and_a_level_of_its_own() -> None:
    levels = Levels(Settings(MDS_BACKFILL_CAPACITY=10), BACKFILL_QUEUE)  # type: ignore[call-arg]
    seen = looks(0, ["one"])._replace(backfill=BackfillLooks(QueueStatus(9, None, 0.1), ["two"], None))
    assert levels.at(9, seen.of_backfill, NOW) == LevelAndReason(HARD)
    nobody = seen._replace(backfill=seen.backfill._replace(workers=[]))
    assert levels.at(9, nobody.of_backfill, NOW) == LevelAndReason(HARD, NO_WORKERS)
