"""Sums of what workers have counted, over their restarts, and what workers say that have counted nothing."""

from __future__ import annotations

from typing import Any

import pytest

from market_data_store.coordinator.answers import FoundWorker, WorkerAnswer, answer_in
from market_data_store.coordinator.counted import (
    BOUNDS,
    Counted,
    bounded,
    buckets,
    key,
    observe,
    parts_of,
    plausible,
    quantile,
    since,
)
from market_data_store.coordinator.gathering import Gathering
from market_data_store.protocol import ANSWER

WRITTEN = key("rows", "bars", "written")


def worker(instance: str, rows: float, *, up_s: float = 0.0) -> FoundWorker:
    answer = WorkerAnswer({}, 0.0, instance=instance, up_s=up_s, counted={WRITTEN: rows})
    return FoundWorker("celery@one", ("store.write",), answer)


def test_a_sum_does_not_fall_when_a_worker_ends_or_starts_anew() -> None:
    gathering = Gathering()
    for workers, total in (
        ([worker("a", 10), worker("b", 5)], 15),
        ([worker("a", 12)], 17),  # b has ended, or did not answer in time
        ([worker("a", 12), worker("b", 6)], 18),
        ([worker("c", 100), worker("b", 6)], 118),  # a was started anew
        ([], 118),
    ):
        gathering.look(workers)
        assert gathering.total() == {WRITTEN: total}


def test_what_a_worker_counted_before_this_process_began_is_not_counted_again() -> None:
    gathering = Gathering()
    gathering.look([worker("old", 1_000_000, up_s=3_600.0), worker("young", 7, up_s=1.0)])
    assert gathering.total() == {WRITTEN: 7}
    gathering.look([worker("old", 1_000_010, up_s=3_601.0)])
    assert gathering.total() == {WRITTEN: 17}


def test_one_that_does_not_add_takes_note_all_the_same() -> None:
    gathering = Gathering()
    gathering.look([worker("a", 10)], adds=False)
    assert gathering.total() == {}
    gathering.look([worker("a", 13)])
    assert gathering.total() == {WRITTEN: 3}


def test_workers_that_do_not_count_are_left_out() -> None:
    gathering = Gathering()
    gathering.look([FoundWorker("old", ("store.write",), None), FoundWorker("0.5", (), WorkerAnswer({}, 0.0))])
    assert gathering.total() == {}


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        (None, None),
        ([1], None),
        ({}, {}),
        ({WRITTEN: 3}, {WRITTEN: 3}),
        ({WRITTEN: -1, "rows|bars|stale": 2}, {"rows|bars|stale": 2}),
        ({WRITTEN: "1", "rows|" + "x" * 40 + "|written": 1, "else|bars|1": 1, "rows|bars": 1}, {}),
        ({WRITTEN: float("nan")}, {}),
        ({WRITTEN: 1e300}, {}),
        ({f"rows|d{n}|written": 1 for n in range(5_000)}, None),
    ],
)
def test_what_cannot_be_a_count_is_none(said: Any, counted: Counted | None) -> None:
    assert plausible(said) == counted


def test_odd_counts_hide_nothing_else_of_an_answer() -> None:
    answer = answer_in([{"name": "store.write", ANSWER: {"held": {}, "stalled_s": 1.0, "counted": 5, "new": 1}}])
    assert answer is not None
    assert (answer.stalled_s, answer.up_s, answer.holds, answer.rss_bytes) == (1.0, None, None, None)


def test_the_labels_are_bounded() -> None:
    known: set[str] = set()
    found = bounded({f"rows|d{n}|written": 1 for n in range(300)}, known)
    assert len({label for label, _, _ in parts_of(found, "rows")}) == 101
    assert found["rows|others|written"] == 200
    assert bounded({"latency_s||3": 1}, known) == {"latency_s||3": 1}


def test_a_quantile_is_between_the_bounds_of_its_bucket() -> None:
    counted: Counted = {}
    assert quantile(counted, "latency_s", 0.5) is None
    observe(counted, "latency_s", "", [0.012] * 98 + [4.0, 5_000.0])
    assert sum(buckets(counted, "latency_s")) == 100
    assert counted["latency_s||sum"] == pytest.approx(98 * 0.012 + 5_004.0)
    assert 0.01 < (quantile(counted, "latency_s", 0.5) or 0) <= 0.02
    assert 3.0 < (quantile(counted, "latency_s", 0.985) or 0) <= 5.0
    assert quantile(counted, "latency_s", 1.0) == BOUNDS["latency_s"][-1]


def test_only_what_grew_is_new() -> None:
    assert since({"a": 5, "b": 2, "c": 1}, {"a": 3, "b": 2, "c": 4}) == {"a": 2}
