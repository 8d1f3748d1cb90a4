"""What keeps rows from being written although every part answers."""

from __future__ import annotations

import pytest

from market_data_store.coordinator.queue import WorkerAnswer
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


@pytest.mark.parametrize(
    ("seconds", "is_stalled"), [([31.0], True), ([29.0], False), ([90.0, 0.0], False), ([], False)]
)
def test_workers_are_stalled_when_none_commits(seconds: list[float], is_stalled: bool) -> None:
    sentences = trouble_of({}, [WorkerAnswer({}, each) for each in seconds]).sentences
    assert bool(sentences) == is_stalled
