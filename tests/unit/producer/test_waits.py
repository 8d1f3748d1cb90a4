"""What is said of a `write` that waits."""

from __future__ import annotations

import pytest
from support.clocks import StandingClock

from market_data_store.producer import waits
from market_data_store.producer.waits import Waits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandingClock:
    clock = StandingClock()
    monkeypatch.setattr(waits, "time", clock)
    return clock


def test_a_wait_is_said_once_with_its_reason_and_once_when_it_ends(
    clock: StandingClock, caplog: pytest.LogCaptureFixture
) -> None:
    every = Waits()
    with every.wait() as wait:
        wait(lambda: "too early")
        clock.now += 2
        wait(lambda: "the queue is full")
        clock.now += 40
        wait(lambda: "still")
    assert caplog.messages == ["write() waits: the queue is full", "write() no longer waits, after 42 s"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    for seconds, lines in ((10, 2), (61, 4)):
        clock.now += seconds
        with every.wait() as wait:
            clock.now += 2
            wait(lambda: "again")
        assert len(caplog.messages) == lines


def test_a_short_wait_is_not_said(clock: StandingClock, caplog: pytest.LogCaptureFixture) -> None:
    with Waits().wait() as wait:
        clock.now += 0.5
        wait(lambda: "the queue is full")
    assert caplog.messages == []
