"""How long rows wait for others before their message is sent."""

from __future__ import annotations

import math

import pytest
from support.clocks import StandingClock

from market_data_store.producer import messages
from market_data_store.producer.messages import Gathering, Message


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandingClock:
    clock = StandingClock()
    monkeypatch.setattr(messages, "time", clock)
    return clock


def gathered(gathering: Gathering, *, dataset: str = "bars", rows: int = 1) -> list[Message]:
    """Add rows one by one; return the messages that this filled."""
    return [message for _ in range(rows) for message in gathering.add(gathering.place(dataset, b"{}", [(1, b"{}")]))]


def test_a_row_after_a_pause_is_due_at_once_and_the_next_ones_go_together(clock: StandingClock) -> None:
    gathering = Gathering(500, 1 << 20, None)
    gathered(gathering)
    assert gathering.next_due == clock.now
    (first,) = gathering.due(clock.now)
    gathered(gathering)
    clock.now += 0.01
    gathered(gathering, rows=2)
    assert gathering.next_due == pytest.approx(100.0 + messages._PAUSE_S)
    assert gathering.due(clock.now) == []
    clock.now += 0.03
    (second,) = gathering.due(clock.now)
    assert (first.rows, second.rows) == (1, 3)
    clock.now += 1.0
    gathered(gathering)
    assert gathering.next_due == clock.now


def test_a_full_message_counts_as_the_one_before(clock: StandingClock) -> None:
    gathering = Gathering(2, 1 << 20, None)
    (full,) = gathered(gathering, rows=2)
    gathered(gathering, dataset="signals")
    assert full.rows == 2
    assert gathering.next_due == pytest.approx(clock.now + messages._PAUSE_S)


def test_a_flush_counts_as_now(clock: StandingClock) -> None:
    gathering = Gathering(500, 1 << 20, None)
    gathered(gathering)
    assert len(gathering.due(math.inf)) == 1
    gathered(gathering)
    assert gathering.next_due == pytest.approx(clock.now + messages._PAUSE_S)


def test_rows_linger_as_long_as_a_client_was_told(clock: StandingClock) -> None:
    gathering = Gathering(500, 1 << 20, 5.0)
    for _ in range(2):
        gathered(gathering)
        assert gathering.next_due == clock.now + 5.0
        assert len(gathering.due(clock.now + 5.0)) == 1
