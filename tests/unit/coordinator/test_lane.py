"""Which event of a lane is due."""

from __future__ import annotations

from market_data_store.coordinator.lane import Lane
from market_data_store.coordinator.queue import Reading
from market_data_store.coordinator.watermarks import Watermarks


def seen(lane: Lane, depth: int | None, now: float) -> tuple[str, int, str | None] | None:
    lane.see(Reading(depth, None, 1))
    event = lane.due(now, 10.0)
    return None if event is None else (event.level.value, event.queue_size, event.reason)


def test_an_event_is_due_at_each_change_and_each_heartbeat() -> None:
    lane = Lane("q", 100, Watermarks())
    assert seen(lane, 1, 0.0) == ("ok", 1, None)
    assert seen(lane, 2, 9.9) is None
    assert seen(lane, 3, 10.0) == ("ok", 3, None)
    assert seen(lane, 90, 10.5) == ("hard", 90, None)
    assert seen(lane, None, 11.0) == ("hard", 90, "broker_unreachable")
    assert seen(lane, None, 11.5) is None
    lane.publish_at_once()
    assert seen(lane, None, 12.0) == ("hard", 90, "broker_unreachable")
