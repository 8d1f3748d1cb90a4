"""What a worker knows of held datasets, and how long it has settled nothing."""

from __future__ import annotations

import logging

import pytest

from market_data_store.protocol import held_queue
from market_data_store.worker.envelope import Hold
from market_data_store.worker.held import HeldDatasets
from market_data_store.worker.progress import Progress


def test_a_held_dataset_is_said_once_and_tried_in_each_round(caplog: pytest.LogCaptureFixture) -> None:
    held = HeldDatasets(probe_s=0.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            held.note(Hold("bars", "42703", "no column"))
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "The dataset bars is held: no column (SQLSTATE 42703)"
    ]
    assert held.names == {"bars"}
    held.begin_round({held_queue("ticks"): 2})
    assert [held.next_probe() for _ in range(3)] == ["bars", "ticks", None], "ticks: another worker's, or of before"


def test_a_dataset_that_is_written_again_flows_back_unless_it_is_held_anew() -> None:
    held = HeldDatasets(probe_s=30.0)
    held.note(Hold("bars", None, "in a sentence of the store's"))
    held.release("bars")
    assert (held.names, held.flowing) == (frozenset(), {"bars"})
    held.note(Hold("bars", "42703", "no column"))
    assert held.flowing == set()


def test_rows_without_a_partition_hold_nobody_else_and_are_no_trouble_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("market_data_store.worker.held.time.monotonic", lambda: now)
    held = HeldDatasets(probe_s=30.0)
    held.note(Hold("bars", "23514", "no partition for 2016_03", partly=True))
    assert ([*held.known], held.names, held.troubles) == (["bars"], frozenset(), {})
    now += 11.0
    assert [*held.troubles] == ["bars"]
    # Another row without a partition, an hour later: it is tried soon, too.
    now += 3_600.0
    held.note(Hold("bars", "23514", "no partition for 2016_04", partly=True))
    now += 2.0
    assert held.is_due
    held.release("bars")
    held.note(Hold("bars", "42703", "no column"))
    assert ({*held.names}, [*held.troubles]) == ({"bars"}, ["bars"])


def test_the_longer_a_probe_takes_the_later_is_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("market_data_store.worker.held.time.monotonic", lambda: now)
    for took_s, pause_s in ((0.1, 2.0), (0.5, 5.0), (6.0, 30.0)):
        held = HeldDatasets(probe_s=30.0)
        held.note(Hold("bars", "57014", "a time limit"))
        now += 2.0
        assert held.is_due
        held.begin_round({})
        assert held.next_probe() == "bars"
        now += took_s
        held.note(Hold("bars", "57014", "a time limit"))
        now += pause_s - 0.01
        assert not held.is_due
        now += 0.02
        assert held.is_due


def test_what_was_not_tried_tells_nothing() -> None:
    held = HeldDatasets(probe_s=30.0)
    held.note(Hold("bars"))
    assert held.names == frozenset()


def test_a_worker_without_jobs_is_not_stalled() -> None:
    progress = Progress()
    assert progress.stalled_s == 0
    progress.began()
    assert progress.stalled_s > 0
    progress.ended(settled=False)
    assert progress.stalled_s == 0
