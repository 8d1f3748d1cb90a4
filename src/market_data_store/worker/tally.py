"""What a worker has counted since its start, for its answer to those who ask (`answers`).

A pool process counts what the signals say, and its jobs take the counts to the parent process, which adds them up. What
a process that is killed has counted since its last job is lost: the messages are delivered again, and counted then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from market_data_store.coordinator.counted import NONE, OUTCOMES, Counted, add, key, observe
from market_data_store.protocol import Counts
from market_data_store.signals import batch_written, rows_rejected, write_retried

#: Of this process, since its last job.
_mine: Counted = {}
#: Of the worker, in its parent process.
_total: Counted = {}


def taken() -> Counted:
    """Return what this process has counted since it was asked last."""
    counted = dict(_mine)
    _mine.clear()
    return counted


def gather(counted: Counted) -> None:
    """Add what a pool process has counted."""
    add(_total, counted)


def total() -> Counted:
    """Return what the worker has counted."""
    return dict(_total)


@batch_written.connect(weak=False)
def _on_batch(
    dataset: str, counts: Counts, seconds: float, late: Sequence[float], latencies: Sequence[float] = (), **_: Any
) -> None:
    add(
        _mine,
        {key("rows", dataset, name): n for name in OUTCOMES if name != "rejected" and (n := getattr(counts, name))},
    )
    observe(_mine, "batch_rows", dataset, [counts.rows])
    observe(_mine, "write_s", dataset, [seconds])
    observe(_mine, "stale_s", dataset, late)
    observe(_mine, "latency_s", "", latencies)


@rows_rejected.connect(weak=False)
def _on_rejects(dataset: str | None, rows: int, **_: Any) -> None:
    add(_mine, {key("rows", dataset or NONE, "rejected"): rows})


@write_retried.connect(weak=False)
def _on_retry(sqlstate_class: str | None, **_: Any) -> None:
    add(_mine, {key("retries", "", sqlstate_class or NONE): 1})
