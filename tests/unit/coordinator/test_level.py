"""The one computation of the level and its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_data_core.telemetry import BackpressureLevel

from market_data_store.coordinator.feedback import BROKER_UNREACHABLE, DATABASE_FULL, DATASET_HELD, NO_WORKERS
from market_data_store.coordinator.queue import Reading
from market_data_store.coordinator.watermarks import HARD, OK, SOFT, LevelAndReason, Watermarks, level_of

MARKS = Watermarks()
counts = st.none() | st.integers(0, 300)


@pytest.mark.parametrize(
    ("previous", "depth", "workers", "expected"),
    [
        (OK, None, 3, LevelAndReason(HARD, BROKER_UNREACHABLE)),
        (HARD, None, None, LevelAndReason(HARD, BROKER_UNREACHABLE)),
        (OK, 1, 0, LevelAndReason(HARD, NO_WORKERS)),
        (OK, 100, 0, LevelAndReason(HARD, NO_WORKERS)),
        (OK, 0, 0, LevelAndReason(OK)),  # nothing waits, so nobody is missed
        (OK, 10, None, LevelAndReason(OK)),  # unknown is not none
        (OK, 60, 1, LevelAndReason(SOFT)),
        (OK, 90, 1, LevelAndReason(HARD)),
        (HARD, 70, 1, LevelAndReason(HARD)),
        (SOFT, 70, 1, LevelAndReason(SOFT)),
        (HARD, 1, 1, LevelAndReason(OK)),  # a worker came
    ],
)
def test_a_look_gives_level_and_reason(
    previous: BackpressureLevel, depth: int | None, workers: int | None, expected: LevelAndReason
) -> None:
    assert level_of(previous, Reading(depth, None, workers), 100, MARKS) == expected


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (None, LevelAndReason(OK)),
        ({"bars": 999}, LevelAndReason(OK)),
        ({"bars": 600, "ticks": 400}, LevelAndReason(HARD, DATASET_HELD)),
    ],
)
def test_held_messages_have_a_capacity_of_their_own(held: dict[str, int] | None, expected: LevelAndReason) -> None:
    assert level_of(OK, Reading(10, None, 1, held), 100, MARKS, held_capacity=1_000) == expected


@pytest.mark.parametrize(
    ("depth", "workers", "expected"),
    [(0, 1, DATABASE_FULL), (10, None, DATABASE_FULL), (10, 0, NO_WORKERS), (None, None, BROKER_UNREACHABLE)],
)
def test_a_database_without_room_makes_the_level_hard(depth: int | None, workers: int | None, expected: str) -> None:
    reading = Reading(depth, None, workers, is_database_full=True)
    assert level_of(OK, reading, 100, MARKS) == LevelAndReason(HARD, expected)


@given(st.sampled_from([OK, SOFT, HARD]), counts, counts)
def test_the_same_look_gives_the_same_level_again(
    previous: BackpressureLevel, depth: int | None, workers: int | None
) -> None:
    reading = Reading(depth, None, workers)
    once = level_of(previous, reading, 100, MARKS)
    assert level_of(once.level, reading, 100, MARKS) == once


def test_a_level_is_shown_with_its_reason() -> None:
    assert str(LevelAndReason(HARD, NO_WORKERS)) == "hard (no_workers)"
    assert str(LevelAndReason(SOFT)) == "soft"
