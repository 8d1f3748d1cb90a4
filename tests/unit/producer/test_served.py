"""A client finds out whether workers take what it sends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from support.waiting import wait_until

from market_data_store.errors import BrokerUnavailable
from market_data_store.producer import served
from market_data_store.producer.served import Served
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE


class NoPermissionError(Exception):
    """As the driver of Redis has it."""


class Broker:
    """A Redis, as far as it is asked."""

    def __init__(self) -> None:
        self.queue = BACKFILL_QUEUE
        self.depth, self.asked, self.is_closed = 1, 0, False
        self.found: list[str] = []
        self.error: Exception | None = None

    def waiting(self) -> int:
        return self.depth

    def look(self) -> list[str]:
        self.asked += 1
        if self.error is not None:
            raise BrokerUnavailable("refused") from self.error
        return self.found

    @contextmanager
    def lent(self) -> Iterator[Any]:
        yield SimpleNamespace(transport=SimpleNamespace(driver_type="redis"))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    for name in ("_FIRST_S", "_INTERVAL_S"):
        monkeypatch.setattr(served, name, 0.001)
    monkeypatch.setattr(served, "Workers", lambda broker: broker)
    return Broker()


def said(caplog: pytest.LogCaptureFixture) -> int:
    return sum("no worker takes" in record.getMessage() for record in caplog.records)


def test_it_is_said_once_until_a_worker_takes_the_lane_again(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = Served(broker)  # type: ignore[arg-type]
    watch.sent(BACKFILL_QUEUE)
    wait_until(lambda: broker.asked > 10)
    assert said(caplog) == 1
    broker.found = ["worker"]
    wait_until(lambda: any("takes store.backfill again" in record.getMessage() for record in caplog.records))
    broker.found = []
    wait_until(lambda: said(caplog) == 2)
    watch.stop()
    wait_until(lambda: broker.is_closed)


def test_nobody_is_asked_while_nothing_waits_or_for_another_lane(broker: Broker) -> None:
    watch = Served(broker)  # type: ignore[arg-type]
    watch.sent(QUEUE)
    assert watch._thread is None
    broker.depth = 0
    watch.sent(BACKFILL_QUEUE)
    assert watch._thread is not None
    watch._thread.join(5.0)
    assert (broker.asked, broker.is_closed) == (0, False)


def test_who_may_not_ask_asks_once(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.queue, broker.error = QUEUE, NoPermissionError()
    watch = Served(broker)  # type: ignore[arg-type]
    watch.sent(QUEUE)
    wait_until(lambda: not watch._may_ask)
    watch.sent(QUEUE)
    assert (broker.asked, said(caplog)) == (1, 0)
