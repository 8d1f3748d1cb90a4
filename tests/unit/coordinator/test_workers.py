"""One missed answer does not count."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.workers import Workers
from market_data_store.errors import BrokerUnavailable


class Answers(QueueInspector):
    """Gives these answers in turn, to one queue or to two; None is a broker that does not answer."""

    queue = "own"

    def __init__(self, answers: Iterable[list[str] | tuple[list[str], list[str]] | None]) -> None:
        self._answers = iter(answers)

    def consumers(self, *others: str) -> dict[str, list[str]]:
        answer = next(self._answers)
        if answer is None:
            raise BrokerUnavailable("gone")
        return dict(zip((self.queue, *others), answer if isinstance(answer, tuple) else (answer,), strict=True))


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


def test_one_round_answers_for_each_queue_and_a_miss_counts_for_its_own() -> None:
    both: tuple[list[str], list[str]] = (["a", "b"], ["b"])
    workers = Workers(Answers([both, (["a"], []), (["a"], []), ([], ["b"])]), "other")
    assert [workers.by_queue() for _ in range(4)] == [
        {"own": ["a", "b"], "other": ["b"]},
        {"own": ["a"], "other": ["b"]},
        {"own": ["a"], "other": []},
        {"own": ["a"], "other": ["b"]},
    ]


def test_a_queue_without_an_answer_at_first_is_asked_about_again() -> None:
    workers = Workers(Answers([(["a"], []), ([], ["b"]), (["a"], [])]), "other")
    assert [workers.by_queue() for _ in range(2)] == [{"own": ["a"], "other": ["b"]}] * 2


def test_workers_of_another_queue_alone_are_asked_for_again_only_where_that_matters() -> None:
    matters = iter([False, True])
    answers = [(["a"], []), (["a"], []), (["a"], ["b"]), (["a"], [])]
    workers = Workers(Answers(answers), "other", asks_again=lambda: next(matters))
    assert [workers.by_queue()["other"] for _ in range(3)] == [[], ["b"], ["b"]]
