from __future__ import annotations

import asyncio
import threading

import pytest
from support.waiting import wait_until

from market_data_store.coordinator.feedback import FeedbackBus, FeedbackEvent, backpressure_changed, feedback_bus

EVENT = FeedbackEvent.create("store.write", 1, 2, "soft")


@pytest.fixture
def seen() -> list[FeedbackEvent]:
    return []


@pytest.fixture
def bus() -> FeedbackBus:
    return FeedbackBus()


def raising(event: FeedbackEvent) -> None:
    raise RuntimeError(event.level)


async def raising_later(event: FeedbackEvent) -> None:
    raise RuntimeError(event.level)


def test_sync_and_async_subscribers_get_an_event_and_an_erring_one_stops_none(
    bus: FeedbackBus, seen: list[FeedbackEvent]
) -> None:
    async def later(event: FeedbackEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event)

    for callback in (raising, seen.append, raising_later, later):
        bus.subscribe(callback)
    asyncio.run(bus.publish(EVENT))
    assert seen == [EVENT, EVENT]


def test_an_async_subscriber_hears_in_its_own_loop_what_a_thread_sends(
    bus: FeedbackBus, seen: list[FeedbackEvent]
) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def later(event: FeedbackEvent) -> None:
            assert asyncio.get_running_loop() is loop
            seen.append(event)
            done.set()

        loop = asyncio.get_running_loop()
        bus.subscribe(raising_later)
        bus.subscribe(later)
        sender = threading.Thread(target=bus.send, args=(EVENT,))
        sender.start()
        await asyncio.wait_for(done.wait(), 10)
        sender.join()

    asyncio.run(main())
    assert seen == [EVENT]


def test_an_async_subscriber_without_a_loop_hears_too(bus: FeedbackBus, seen: list[FeedbackEvent]) -> None:
    async def later(event: FeedbackEvent) -> None:
        seen.append(event)

    bus.subscribe(later)
    bus.send(EVENT)
    wait_until(lambda: seen == [EVENT])


def test_subscribers_are_counted_once_and_can_leave(bus: FeedbackBus, seen: list[FeedbackEvent]) -> None:
    bus.subscribe(raising)
    bus.subscribe(raising)
    assert bus.subscriber_count == 1
    bus.unsubscribe(raising)
    bus.unsubscribe(raising)
    assert bus.subscriber_count == 0
    asyncio.run(bus.publish(EVENT))


def test_what_the_monitor_signals_reaches_the_bus_of_the_process(seen: list[FeedbackEvent]) -> None:
    bus = feedback_bus()
    assert feedback_bus() is bus
    bus.subscribe(seen.append)
    backpressure_changed.send(sender="test", event=EVENT)
    bus.unsubscribe(seen.append)
    assert seen == [EVENT]
