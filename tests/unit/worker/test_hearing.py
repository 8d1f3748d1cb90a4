"""When a worker is deaf."""

from __future__ import annotations

import pytest

from market_data_store.worker.hearing import Hearing, Look
from market_data_store.worker.progress import Progress

WAITING = Look(0.0, 5, is_free=True, received=7)


def deaf_s(*looks: Look) -> float:
    hearing = Hearing()
    for number, look in enumerate(looks):
        hearing.note(look._replace(at=2.0 * number))
    return hearing.deaf_s


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        ([], 0.0),
        ([WAITING], 0.0),
        ([WAITING] * 6, 10.0),
        ([WAITING._replace(waiting=0)] * 6, 0.0),  # its queue is empty
        ([WAITING._replace(is_free=False)] * 6, 0.0),  # it has messages, or is not to consume
        ([*[WAITING] * 5, WAITING._replace(received=8)], 0.0),  # one came
        ([*[WAITING] * 5, WAITING._replace(waiting=0)], 0.0),  # somebody took them, or the broker is away
        ([*[WAITING] * 5, WAITING._replace(waiting=0), *[WAITING] * 3], 4.0),
        ([*[WAITING] * 5, *[WAITING._replace(received=8)] * 3], 4.0),
    ],
)
def test_a_worker_is_deaf_while_messages_wait_it_is_free_and_none_comes(looks: list[Look], seconds: float) -> None:
    assert deaf_s(*looks) == seconds


def test_the_time_in_which_it_could_not_look_does_not_count() -> None:
    hearing = Hearing()
    for at in (0.0, 2.0, 602.0, 604.0):
        hearing.note(WAITING._replace(at=at))
    assert hearing.deaf_s == 2.0


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, as a list of one number."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return clock


def test_a_message_that_comes_again_and_again_stalls_a_worker_that_is_not_stuck(now: list[float]) -> None:
    progress = Progress()
    for _ in range(3):
        progress.began()
        now[0] += 30
        progress.ended(settled=False)
        now[0] += 1
    progress.began()
    assert progress.stalled_s == 93
    assert progress.stuck_s == 0
    now[0] += 5
    assert progress.stuck_s == 5
    progress.ended(settled=True)
    assert progress.settled_s == 0
    now[0] += 1
    progress.began()
    assert (progress.stalled_s, progress.stuck_s, progress.settled_s) == (0, 0, 1)


def test_a_message_that_comes_long_after_one_that_failed_begins_anew(now: list[float]) -> None:
    progress = Progress()
    progress.began()
    now[0] += 30
    progress.ended(settled=False)
    assert (progress.stalled_s, progress.stuck_s) == (0, 0)
    now[0] += 60
    progress.began()
    assert (progress.stalled_s, progress.stuck_s, progress.settled_s) == (0, 0, None)


def test_jobs_that_end_in_turn_are_not_stuck(now: list[float]) -> None:
    progress = Progress()
    progress.began()
    for _ in range(4):
        progress.began()
        now[0] += 20
        progress.ended(settled=False)
    assert (progress.stalled_s, progress.stuck_s) == (80, 0)
