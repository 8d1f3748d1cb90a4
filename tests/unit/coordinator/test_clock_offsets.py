"""Which clock is wrong, and by how much."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from market_data_store.coordinator.answers import WorkerAnswer
from market_data_store.coordinator.clock_offsets import BROKER, POSTGRES, ahead_s, own_offset, wrong_clocks
from market_data_store.coordinator.clock_watch import ClockWatch


@pytest.mark.parametrize(
    ("servers", "workers", "said"),
    [
        ({POSTGRES: 0.5, BROKER: -1.9}, {"a@x": 2.0}, []),
        ({POSTGRES: None, BROKER: None}, {}, []),
        (
            {POSTGRES: 61.0, BROKER: 0.1}, {},
            ["the clock of Postgres is 61 s ahead of that of this machine"],
        ),
        (
            {POSTGRES: 0.0, BROKER: -3.0}, {},
            ["the clock of the broker is 3 s behind that of this machine"],
        ),
        (
            {POSTGRES: 120.0, BROKER: 119.5}, {"a@x": 119.0},
            ["the clock of this machine is 120 s behind those of Postgres and of the broker"],
        ),
        ({POSTGRES: 0.0}, {"a@x": -120.0, "b@x": 0.0}, ["the clock of the worker a@x is 120 s behind the others"]),
        (
            {POSTGRES: 0.0}, dict.fromkeys("abcde", 9.0),
            [*(f"the clock of the worker {name} is 9 s ahead of the others" for name in "abc"),
             "and 2 more workers differ"],
        ),
    ],
)  # fmt: skip
def test_the_clock_that_differs_is_named(
    servers: dict[str, float | None], workers: dict[str, float], said: list[str]
) -> None:
    assert wrong_clocks(servers, workers) == said


def test_one_server_alone_does_not_prove_this_machine_wrong() -> None:
    assert own_offset({POSTGRES: 60.0}) == 0.0
    assert own_offset({POSTGRES: 60.0, BROKER: 60.5}) == 60.25


def test_a_slow_answer_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = iter([100.0, 101.5, 200.0, 200.2])
    monkeypatch.setattr("time.time", lambda: next(times))
    assert ahead_s(lambda: 500.0) is None
    assert ahead_s(lambda: 210.1) == pytest.approx(10.0)


@pytest.mark.parametrize(("clock", "ahead"), [(None, 0.0), (100.5, 0.0), (99.0, -1.0), (103.0, 2.0)])
def test_a_worker_that_answers_between_question_and_reading_is_not_wrong(clock: float | None, ahead: float) -> None:
    assert WorkerAnswer({}, 0.0, clock=clock).ahead_s(100.0, 101.0) == ahead


def test_the_monitor_keeps_the_offsets_and_says_what_is_wrong_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = ClockWatch()
    watch.see_postgres(-0.1)
    watch.see_broker(30.0, {"a@x": 0.0, "b@x": -40.0})
    watch.see_broker(30.0, {"a@x": 0.0, "b@x": -41.0})
    assert watch.offsets == {"postgres": -0.1, "broker": 30.0, "workers": -41.0}
    watch.see_postgres(None)
    watch.see_broker(None, {})
    assert watch.offsets == {}
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(
        "the clock of the broker is 30 s ahead of that of this machine; the clock of the worker b"
    )
    assert said[1].startswith("The clocks agree again")
    assert len(said) == 2
