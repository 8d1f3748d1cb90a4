"""Answers that no worker has given."""

from __future__ import annotations

from typing import Any

import pytest
from kombu.message import Message

from market_data_store.coordinator.answers import answer_in, answers_in, names_of


def message(body: bytes, ticket: Any = "t") -> Message:
    return Message(body, content_type="application/json", content_encoding="utf-8", headers={"ticket": ticket})


def test_an_answer_is_read() -> None:
    answers = answers_in(message(b'{"w": [{"name": "q"}]}'), "t")
    assert answers == [("w", [{"name": "q"}])]
    assert names_of(answers[0][1]) == ["q"]


@pytest.mark.parametrize("body", [b"5", b"[1]", b"null", b'"str"', b"{}", b"\xff", b"[" * 100_000, b"{", b""])
def test_what_is_not_an_answer_is_none(body: bytes) -> None:
    assert answers_in(message(body), "t") == []


def test_another_question_is_not_this_one() -> None:
    assert answers_in(message(b'{"w": []}', ticket=["t"]), "t") == []
    assert answers_in(message(b'{"' + b"w" * 300 + b'": []}'), "t") == []


@pytest.mark.parametrize("queues", [5, None, "str", [], [5], {"x": 1}, [{"name": "q", "market_data_store": 5}]])
def test_odd_queues_say_nothing(queues: Any) -> None:
    assert names_of(queues) in ([], ["q"])
    assert answer_in(queues if isinstance(queues, list) else []) is None
