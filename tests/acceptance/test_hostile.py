"""Hostile messages between good ones: each is what the grammar says, counted exactly, and no process ends."""

from __future__ import annotations

import os
import random

import pytest
from support.databases import Connection
from support.fixtures.store import StartWorker
from support.hostile.counting import Run
from support.hostile.grammar import LIMIT

from market_data_store.coordinator.queue import QueueInspector

SEED = int(os.environ.get("HOSTILE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
#: How many messages of the run that fails are shown.
SHOWN = 20


def check(
    start_worker: StartWorker, url: str, queue: QueueInspector, database: Connection, *, number: int, timeout_s: float
) -> None:
    worker = start_worker(MDS_MAX_MESSAGE_BYTES=str(LIMIT))
    processes = worker.pool_pids
    run = Run(url, worker, database, seed=SEED, hostile=number, good=number)
    figures = run.run(lambda: queue.depth() == 0 and queue.reserved() in (0, None), timeout_s)
    print(f"\n{url.partition(':')[0]}: {figures}")  # noqa: T201  # what the soak is for
    assert not figures.wrong, "\n".join([f"HOSTILE_SEED={SEED}, {len(figures.wrong)} wrong", *figures.wrong[:SHOWN]])
    assert figures.expected == figures.found
    assert worker.pool_pids == processes
    assert figures.rss_peak <= 1.5 * figures.rss_at_start
    worker.stop()
    assert queue.depth() == 0
    assert queue.reserved() in (0, None)
    assert figures.letter_bytes <= 4 * figures.sent_bytes + 1_024 * figures.letters


@pytest.mark.slow
def test_2_000_hostile_messages_are_stored_or_kept_and_counted(
    start_worker: StartWorker, broker_url: str, queue: QueueInspector, database: Connection
) -> None:
    check(start_worker, broker_url, queue, database, number=2_000, timeout_s=120)


@pytest.mark.soak
def test_20_000_hostile_messages_are_stored_or_kept_and_counted(
    start_worker: StartWorker, broker_url: str, queue: QueueInspector, database: Connection
) -> None:
    check(start_worker, broker_url, queue, database, number=20_000, timeout_s=1_200)
