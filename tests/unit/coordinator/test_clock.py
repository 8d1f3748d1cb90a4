"""What a header is worth by a clock, and how a server's clock is known between two looks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from market_data_store.coordinator import clock
from market_data_store.coordinator.clock import BrokerClock, ServerClock, broker_clock, enqueued_at, plausible

NOW = 1_760_000_000.0


@pytest.mark.parametrize("sent", [946_684_800, 1_700_000_000, 1_700_000_000.123_456, NOW])
def test_a_time_since_2000_that_has_passed_counts(sent: float) -> None:
    assert enqueued_at(sent, NOW) == sent


@pytest.mark.parametrize(
    "sent",
    [
        *(None, "", "abc", "1700000000", True, False, [1_700_000_000], {}, b"1", (1_700_000_000,)),
        *(0, -1, -5e9, 946_684_799.999, -1e300, math.nan, -math.inf),
        *(NOW + 0.001, NOW + 3_600, 4_102_444_800, 9.5e12, 1e300, math.inf, 10**400, -(10**400)),
    ],
    ids=lambda sent: repr(sent)[:20],
)
def test_anything_else_counts_as_now(sent: Any) -> None:
    assert enqueued_at(sent, NOW) == NOW


@given(st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none(), st.lists(st.integers())))
def test_whatever_the_header_the_moment_lies_between_2000_and_now(sent: Any) -> None:
    assert 946_684_800 <= enqueued_at(sent, NOW) <= NOW
    assert plausible(sent) is None or plausible(sent) == sent


def test_within_the_tolerance_a_time_in_the_future_stays() -> None:
    assert enqueued_at(NOW + 0.9, NOW, tolerance_s=1.0) == NOW + 0.9
    assert enqueued_at(NOW + 1.1, NOW, tolerance_s=1.0) == NOW


class Machine:
    """Clocks that a test sets: the machine's own and the monotonic one."""

    def __init__(self) -> None:
        self.wall, self.monotonic, self.server = NOW - 600, 50.0, NOW
        self.asked = 0
        self.answer_s = 0.0

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds
        self.server += seconds

    def ask(self) -> float:
        self.asked += 1
        self.pass_s(self.answer_s / 2)
        answer = self.server
        self.pass_s(self.answer_s / 2)
        return answer


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    clocks = SimpleNamespace(time=lambda: machine.wall, monotonic=lambda: machine.monotonic)
    monkeypatch.setattr(clock, "time", clocks)
    return machine


@pytest.mark.parametrize("shared", [False, True])
def test_a_look_makes_the_servers_time_known(machine: Machine, shared: bool) -> None:
    server = ServerClock(shared=shared)
    assert (server.is_known, server.is_due) == (False, True)
    machine.answer_s = 0.2
    server.look(machine.ask)
    assert (server.is_known, server.is_due) == (True, False)
    machine.pass_s(30)
    assert server.at(machine.monotonic) == pytest.approx(machine.server, abs=1e-6)


def test_the_quickest_answer_counts(machine: Machine) -> None:
    server, answers_s = ServerClock(), iter([0.8, 0.002, 0.4])

    def ask() -> float:
        late_s = next(answers_s)
        answer = machine.server  # at once, and the way back takes all the time
        machine.pass_s(late_s)
        return answer

    server.look(ask)
    assert abs(server.at(machine.monotonic) - machine.server) <= 0.001_001


def test_noise_does_not_move_a_known_clock_and_a_real_difference_does(machine: Machine) -> None:
    server = ServerClock()
    server.look(machine.ask)
    machine.answer_s = 0.010
    machine.server += 0.004  # less than what the answers may be off by
    before = server.at(0.0)
    server.look(machine.ask)
    assert server.at(0.0) == before
    machine.server += 0.004
    server.look(machine.ask)
    assert server.at(0.0) - before == pytest.approx(0.008, abs=1e-6)


def test_a_look_is_due_each_minute(machine: Machine) -> None:
    server = ServerClock()
    server.look(machine.ask)
    machine.pass_s(59)
    assert not server.is_due
    machine.pass_s(2)
    assert server.is_due


@pytest.mark.parametrize("step_s", [-600.0, 1.5, 3_600.0])
def test_a_look_is_due_when_the_machines_clock_was_set_and_until_then_the_time_stays(
    machine: Machine, step_s: float
) -> None:
    server = ServerClock()
    server.look(machine.ask)
    machine.wall += step_s
    assert server.is_due
    assert server.at(machine.monotonic) == pytest.approx(machine.server, abs=1e-6)
    server.look(machine.ask)
    assert not server.is_due


def test_on_rabbitmq_the_producers_clock_stays(machine: Machine) -> None:
    broker = BrokerClock(Celery(broker="amqp://127.0.0.1:1//", set_as_current=False))
    broker.refresh()  # asks nobody
    assert broker.now() == machine.wall


def asking(broker: BrokerClock, ask: Callable[[], float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker._inspector, "time", ask)


@pytest.mark.parametrize(("off_s", "said"), [(600.0, "600 s ahead of"), (-600.0, "600 s behind"), (1.5, None)])
def test_a_clock_that_is_off_is_reported_once(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    off_s: float,
    said: str | None,
) -> None:
    machine.wall = machine.server + off_s
    broker = BrokerClock(Celery(broker="redis://127.0.0.1:1/0", set_as_current=False))
    asking(broker, machine.ask, monkeypatch)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            broker.refresh()
            assert broker.now() == pytest.approx(machine.server, abs=1e-6)
            machine.pass_s(61)
    assert machine.asked == 9
    assert [record.getMessage() for record in caplog.records] == [
        *([f"this machine's clock is {said} the broker's; messages carry the broker's time"] if said else [])
    ]


def test_a_broker_that_is_away_is_reported_once_and_asked_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = BrokerClock(Celery(broker="redis://127.0.0.1:1/0", set_as_current=False))  # nobody listens
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            broker.refresh()
            assert broker.now() == machine.wall
            machine.pass_s(6)
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "the broker does not tell its time"
    ]
    asking(broker, machine.ask, monkeypatch)
    broker.refresh()
    assert broker.now() == pytest.approx(machine.server, abs=1e-6)


def test_applications_with_one_broker_share_its_clock() -> None:
    one, other, another = (
        Celery(broker=url, set_as_current=False)
        for url in ("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1")
    )
    assert broker_clock(one) is broker_clock(other)
    assert broker_clock(one) is not broker_clock(another)


def test_the_time_is_told_without_a_server() -> None:
    before = time.time()
    assert before <= BrokerClock(Celery(set_as_current=False)).now() <= time.time()
