"""One missed answer does not count."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.workers import Workers
from market_data_store.errors import BrokerUnavailable


class Answers(QueueInspector):
    """Gives these answers in turn; None is a broker that does not answer."""

    def __init__(self, answers: Iterable[list[str] | None]) -> None:
        self._answers = iter(answers)

    def workers(self) -> list[str]:
        answer = next(self._answers)
        if answer is None:
            raise BrokerUnavailable("gone")
        return answer


def test_the_second_miss_in_a_row_counts() -> None:
    workers = Workers(Answers([["a"], [], ["a", "b"], [], [], [], ["b"]]))
    assert [workers.look() for _ in range(7)] == [["a"], ["a"], ["a", "b"], ["a", "b"], [], [], ["b"]]


def test_a_first_look_that_finds_none_asks_again_at_once() -> None:
    workers = Workers(Answers([[], ["a"], [], []]))
    assert [workers.look() for _ in range(3)] == [["a"], ["a"], []]
    nobody = Workers(Answers([[], [], [], ["a"]]))
    assert [nobody.look() for _ in range(3)] == [[], [], ["a"]]


def test_after_an_outage_of_the_broker_nothing_is_known() -> None:
    workers = Workers(Answers([["a"], None, [], []]))
    assert workers.look() == ["a"]
    with pytest.raises(BrokerUnavailable):
        workers.look()
    assert workers.look() == []
