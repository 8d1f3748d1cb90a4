"""What follows a message is bounded, and is a task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from market_data_store.errors import InvalidMessage
from market_data_store.worker.canvas import MOST_TASKS, are_tasks, followers_in

TASK: dict[str, Any] = {"task": "x", "args": [], "kwargs": {}, "options": {}, "subtask_type": None}
GROUP = {"task": "celery.group", "kwargs": {"tasks": [TASK] * 3}, "subtask_type": "group"}
CHUNKS = {"task": "celery.chunks", "kwargs": {"task": TASK, "it": [[]] * 100_000, "n": 1}, "subtask_type": "chunks"}
DEEP = json.loads("[" * 900 + "]" * 900)


def test_what_follows_is_found_by_its_name() -> None:
    embed = {"callbacks": [TASK], "errbacks": None, "chain": [], "chord": TASK, "other": 1}
    assert followers_in(embed) == {"callbacks": [TASK], "chord": TASK}


@pytest.mark.parametrize(
    "embed",
    [
        {"callbacks": [TASK] * (MOST_TASKS + 1)},
        {"callbacks": [TASK] * 60, "chain": [TASK] * 60},
        {"chord": {**GROUP, "kwargs": {"tasks": [GROUP] * 30}}},
        {"chain": [{"task": "x", "options": {"link": [TASK] * 1_000}}]},
        {"chain": [[[{"a": [TASK] * 101}]]]},
    ],
    ids=["callbacks", "callbacks and chain", "groups in a chord", "links", "anywhere"],
)
def test_more_tasks_than_a_message_may_have_refuse_it(embed: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage, match="body: more than 100 tasks follow the message"):
        followers_in(embed)


def test_as_many_as_a_message_may_have_do_not() -> None:
    assert followers_in({"callbacks": [TASK] * MOST_TASKS}) == {"callbacks": [TASK] * MOST_TASKS}


@pytest.mark.parametrize("value", [[TASK], [TASK, GROUP], [{"task": ""}]], ids=repr)
def test_tasks_and_groups_can_be_sent(value: Any) -> None:
    assert are_tasks("callbacks", value)
    assert are_tasks("chord", value[0])


@pytest.mark.parametrize(
    "value",
    ["2099", {"task": "x"}, 5, True, [1], [None], [[TASK]], [{}], [{"task": 5}], [TASK, "x"], [CHUNKS], DEEP],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_not_a_list_of_tasks_cannot(value: Any) -> None:
    assert not are_tasks("callbacks", value)
    assert not are_tasks("chord", [value])


def test_chunks_within_a_group_cannot_be_sent() -> None:
    assert not are_tasks("chain", [{**GROUP, "kwargs": {"tasks": [CHUNKS]}}])
