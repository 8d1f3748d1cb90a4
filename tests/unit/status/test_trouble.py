"""What keeps rows from being written although every part answers."""

from __future__ import annotations

import pytest

from market_data_store.coordinator.answers import WorkerAnswer, counted_troubles
from market_data_store.status.trouble import HeldStatus, trouble_of

WELL = WorkerAnswer({}, 0.0)


def test_a_dataset_that_a_worker_holds_is_named_with_its_reason() -> None:
    found = trouble_of({"bars": 4_000}, [WELL, WorkerAnswer({"bars": ("42703", "no column")}, 0.0)])
    assert found.held == (HeldStatus("bars", 4_000, "42703", "no column"),)
    assert found.sentences == ["bars is held: no column (SQLSTATE 42703); 4,000 messages wait for it"]


def test_messages_that_flow_back_are_counted_and_are_no_trouble() -> None:
    found = trouble_of({"bars": 7}, [WELL])
    assert found.held == (HeldStatus("bars", 7),)
    assert found.sentences == []


STALLED, DEAF = WorkerAnswer({}, 31.0, 0.0, 50.0), WorkerAnswer({}, 0.0, 31.0)
IDLE, BUSY = WorkerAnswer({}, 0.0, 0.0, 90.0), WorkerAnswer({}, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("answers", "is_stopped"),
    [
        ([], False),
        ([WELL], False),
        ([STALLED], True),
        ([DEAF], True),
        ([WorkerAnswer({}, 7.0)], False),
        ([STALLED, IDLE], True),
        ([STALLED, BUSY], False),
        ([DEAF, BUSY], False),
        ([IDLE, WELL], False),
    ],
)
def test_rows_are_not_written_when_a_worker_should_commit_and_none_does(
    answers: list[WorkerAnswer], is_stopped: bool
) -> None:
    assert bool(trouble_of({}, answers).sentences) == is_stopped


def test_workers_in_trouble_are_counted_by_what_is_wrong() -> None:
    answers = [STALLED, DEAF, DEAF, WELL, WorkerAnswer({}, 0.0, fallback="Redis refuses EVAL")]
    assert counted_troubles(answers) == {"stalled": 1, "deaf": 2, "fallback": 1}
    assert trouble_of({}, answers).workers == (
        "1 of 5 workers have had messages and committed none for more than 8 s",
        "2 of 5 workers have taken no message, although some wait, for more than 8 s",
        "1 of 5 workers use Celery's own transport: Redis refuses EVAL",
    )


def test_workers_of_one_name_are_named() -> None:
    found = trouble_of({}, [WELL, WELL], {"worker1@here": 2})
    assert found.workers == ("2 workers have the name worker1@here; start each with a name of its own (-n)",)
    assert not found.sentences
