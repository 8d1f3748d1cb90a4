from __future__ import annotations

import threading
import time

from support.waiting import wait_until

from market_data_store.coordinator.delivery import Delivery
from market_data_store.coordinator.feedback import FeedbackEvent


def event(size: int) -> FeedbackEvent:
    return FeedbackEvent.create("store.write", size, 1_000, "soft")


def test_a_slow_receiver_delays_nobody_and_gets_the_newest() -> None:
    entered, let_go = threading.Event(), threading.Event()
    seen: list[int] = []

    def slow(received: FeedbackEvent) -> None:
        entered.set()
        let_go.wait(20)
        seen.append(received.queue_size)

    delivery = Delivery("slow", slow)
    delivery.put(event(0))
    assert entered.wait(20)
    started = time.monotonic()
    for size in range(1, 1_000):
        delivery.put(event(size))
    assert time.monotonic() - started < 10  # a thousand puts, and no wait for the receiver, which still holds the first
    assert not seen
    let_go.set()
    wait_until(lambda: seen == [0, 999])
    delivery.stop()


def test_what_fails_is_tried_until_it_succeeds_or_something_newer_has_come() -> None:
    failures, seen, outcomes = [3], [], []

    def failing(received: FeedbackEvent) -> None:
        if failures[0]:
            failures[0] -= 1
            raise ConnectionError
        seen.append(received.queue_size)

    delivery = Delivery("failing", failing, lambda name, worked: outcomes.append((name, worked)))
    delivery.put(event(1))
    wait_until(lambda: seen == [1])
    assert outcomes == [("failing", False)] * 3 + [("failing", True)]
    failures[0] = 1
    delivery.put(event(2))
    wait_until(lambda: failures[0] == 0)
    delivery.put(event(3))
    wait_until(lambda: seen[-1] == 3)
    delivery.stop()


def test_stopping_delivers_what_waits() -> None:
    seen: list[int] = []
    delivery = Delivery("quick", lambda received: seen.append(received.queue_size))
    delivery.put(event(1))
    delivery.stop()
    assert seen == [1]
