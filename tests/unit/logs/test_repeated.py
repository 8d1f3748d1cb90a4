"""A trouble that lasts is said when it begins, then less and less often, and once when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from market_data_store.causes import Cause
from market_data_store.logs.repeated import BACK_S, MOST_TEXTS, Repeated


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float, act: Callable[[], None], every_s: float = 1.0) -> None:
        for _ in range(int(seconds / every_s)):
            self.now += every_s
            act()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trouble(clock: Clock, caplog: pytest.LogCaptureFixture) -> Repeated:
    caplog.set_level(logging.INFO)
    return Repeated(logging.getLogger("market_data_store.test"), clock)


def test_ten_minutes_of_it_are_a_few_lines(trouble: Repeated, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    trouble.happened("Postgres is away")
    clock.pass_by(600, lambda: trouble.happened("Postgres is away"))
    trouble.over("Postgres answers")
    trouble.over("Postgres answers")
    assert caplog.messages == [
        "Postgres is away",
        "Postgres is away (again 30 times in 30 s)",
        "Postgres is away (again 60 times in 60 s)",
        "Postgres is away (again 120 times in 120 s)",
        "Postgres is away (again 240 times in 240 s)",
        "Postgres answers, after 600 s",
    ]
    assert [getattr(record, "event", None) for record in caplog.records] == [
        "trouble",
        *["trouble_lasts"] * 4,
        "trouble_over",
    ]
    assert vars(caplog.records[-1])["lasted_s"] == 600.0
    assert vars(caplog.records[-1])["times"] == 601


def test_another_reason_is_said_at_once_and_only_once(
    trouble: Repeated, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3 * MOST_TEXTS):
        trouble.happened("it shuts down")
        trouble.happened(f"no connection at try {n}", kind="refused")
        clock.now += 0.1
    assert caplog.messages == ["it shuts down", "no connection at try 0"]
    for n in range(3 * MOST_TEXTS):
        trouble.happened(f"reason {n}")
    assert len(caplog.messages) == MOST_TEXTS


def test_what_comes_and_goes_is_one_trouble(trouble: Repeated, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    def flap() -> None:
        trouble.happened("away")
        trouble.over("back")

    clock.pass_by(120, flap)
    assert caplog.messages == [
        "away",
        "back, after 0 s",
        "away (again 30 times in 30 s)",
        "back, after 0 s",
        "away (again 60 times in 60 s)",
        "back, after 0 s",
    ]
    clock.now += BACK_S
    flap()
    assert caplog.messages[-2:] == ["away", "back, after 0 s"]


def test_what_is_not_said_can_be_seen_at_debug(trouble: Repeated, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(3):
        trouble.happened("away")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "away"),
        ("DEBUG", "away"),
        ("DEBUG", "away"),
    ]


def test_a_line_names_the_cause_and_where_its_remedy_is(trouble: Repeated, caplog: pytest.LogCaptureFixture) -> None:
    trouble.happened("away", cause=Cause.DATABASE_DOWN)
    trouble.over("back")
    first, last = map(vars, caplog.records)
    assert (first["cause"], first["help"]) == ("database_down", "docs/troubleshooting.md#postgres-does-not-answer")
    assert last["cause"] == "database_down"


def test_a_bug_is_said_with_its_traceback_once(trouble: Repeated, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(2):
        try:
            raise ValueError("a bug")
        except ValueError as error:
            trouble.happened("failed", error=error)
    assert [record.exc_info is not None for record in caplog.records] == [True, False]
