"""Live rows and history, in queues of their own: live rows are next, and each message stays in its lane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from support.brokers import slow_on_rabbitmq
from support.databases import Connection
from support.fixtures.store import TASK, Bar, HoldBack, StartWorker, Stored
from support.waiting import wait_until

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.protocol import ANSWER, BACKFILL_QUEUE, QUEUE, again_queue, held_queue

SendTo = Callable[..., Any]
Waiting = Callable[..., int]
BREAK, MEND = "ALTER TABLE bars_ohlcv RENAME vwap TO away", "ALTER TABLE bars_ohlcv RENAME away TO vwap"


@pytest.fixture
def send_to(producer: Celery) -> SendTo:
    """Send bars to a queue in messages of so many."""

    def send(queue: str, rows: list[Bar], *, each: int = 1) -> list[Any]:
        return [
            producer.send_task(TASK, args=["bars", rows[n : n + each]], queue=queue) for n in range(0, len(rows), each)
        ]

    return send


@pytest.fixture
def waiting(producer: Celery) -> Iterator[Waiting]:
    """How many messages wait in these queues."""
    inspectors: dict[str, QueueInspector] = {}

    def count(*queues: str) -> int:
        return sum(inspectors.setdefault(queue, QueueInspector(producer, queue)).waiting() for queue in queues)

    yield count
    for inspector in inspectors.values():
        inspector.close()


def lane(queue: str, *datasets: str) -> list[str]:
    """Where messages of a lane wait."""
    return [queue, again_queue(queue), *(held_queue(dataset, queue) for dataset in datasets)]


def test_a_live_row_is_next_although_the_worker_has_all_history_that_it_may(
    start_worker: StartWorker,
    send_to: SendTo,
    waiting: Waiting,
    producer: Celery,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    writes_held_back: HoldBack,
) -> None:
    worker = start_worker(MDS_PREFETCH_MESSAGES="20")
    history, live = bars[:3_000], bars[3_000:3_001]
    with writes_held_back() as until_held:
        send_to(BACKFILL_QUEUE, history, each=30)
        until_held(2)
        wait_until(lambda: waiting(BACKFILL_QUEUE) <= 60, "the prefetch limit is reached")
        send_to(QUEUE, live)
        wait_until(lambda: waiting(QUEUE) == 0, "the worker has it")
        assert waiting(BACKFILL_QUEUE) > 0
        found = producer.control.inspect(destination=[worker.hostname()], timeout=20, limit=1).reserved()
        assert {request["delivery_info"]["routing_key"] for request in found[worker.hostname()]} == {
            QUEUE,
            BACKFILL_QUEUE,
        }
    wait_until(lambda: stored() == history + live, timeout_s=30)
    # Each transaction has a higher number than those before it.
    before = database.execute(
        "SELECT count(DISTINCT xmin::text) FROM bars_ohlcv WHERE xmin::text::bigint < "
        "(SELECT xmin::text::bigint FROM bars_ohlcv ORDER BY ts DESC LIMIT 1)"
    ).fetchall()
    assert before[0][0] <= 3, "two were being written, and one may begin in the same moment"


@slow_on_rabbitmq
def test_a_worker_of_one_lane_takes_nothing_of_the_other(
    start_worker: StartWorker, send_to: SendTo, waiting: Waiting, producer: Celery, bars: list[Bar], stored: Stored
) -> None:
    both = {QUEUE: bars[:10], BACKFILL_QUEUE: bars[10:20]}
    for queue, rows in both.items():
        send_to(queue, rows)
    worker = start_worker(queues=BACKFILL_QUEUE)
    wait_until(lambda: stored() == both[BACKFILL_QUEUE])
    assert waiting(QUEUE) == 10
    worker.stop()
    send_to(BACKFILL_QUEUE, bars[20:30])
    worker = start_worker(queues=QUEUE)
    wait_until(lambda: stored() == bars[:20])
    assert waiting(BACKFILL_QUEUE) == 10
    worker.stop()
    worker = start_worker()
    wait_until(lambda: stored() == bars[:30])
    found = producer.control.inspect(destination=[worker.hostname()], timeout=20, limit=1).active_queues()
    assert {queue["name"]: "held" in queue[ANSWER] for queue in found[worker.hostname()]} == dict.fromkeys(both, True)


def test_what_a_killed_worker_had_of_both_lanes_goes_back_to_its_own(
    start_worker: StartWorker,
    send_to: SendTo,
    waiting: Waiting,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    writes_held_back: HoldBack,
) -> None:
    worker = start_worker(MDS_VISIBILITY_TIMEOUT_S="2")
    live, history = bars[:30], bars[30:60]
    with writes_held_back() as until_held:
        send_to(BACKFILL_QUEUE, history)
        until_held(2)
        send_to(QUEUE, live)
        wait_until(lambda: waiting(QUEUE, BACKFILL_QUEUE) == 0, "the worker has all")
        worker.kill("SIGKILL")
    wait_until(lambda: len(stored()) <= 60)
    written = [bar for bar in stored() if bar in live]  # none, but for a batch that was committed in that moment
    worker = start_worker(queues=BACKFILL_QUEUE, MDS_VISIBILITY_TIMEOUT_S="2")
    wait_until(lambda: [bar for bar in stored() if bar in history] == history, timeout_s=30)
    wait_until(lambda: waiting(*lane(QUEUE)) == 30, timeout_s=30)
    assert [bar for bar in stored() if bar in live] == written
    worker.stop()
    start_worker(queues=QUEUE, MDS_VISIBILITY_TIMEOUT_S="2")
    wait_until(lambda: stored() == bars[:60], timeout_s=30)
    wait_until(lambda: waiting(*lane(QUEUE), *lane(BACKFILL_QUEUE)) == 0)
    assert database.execute("SELECT FROM dead_letters").fetchall() == []


def test_what_is_held_stays_in_its_lane(
    start_worker: StartWorker, send_to: SendTo, waiting: Waiting, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    database.execute(BREAK)
    worker = start_worker(MDS_HELD_PROBE_S="1")
    send_to(QUEUE, bars[:10])
    send_to(BACKFILL_QUEUE, bars[10:20])
    queues = held_queue("bars"), held_queue("bars", BACKFILL_QUEUE)
    wait_until(lambda: waiting(queues[1]) == 10 and waiting(queues[0]) >= 9)  # probes are of live rows first
    worker.stop()
    wait_until(lambda: (waiting(queues[0]), waiting(queues[1])) == (10, 10))
    database.execute(MEND)
    worker = start_worker(queues=BACKFILL_QUEUE, MDS_HELD_PROBE_S="1")
    wait_until(lambda: stored() == bars[10:20], timeout_s=30)
    assert waiting(queues[0]) == 10
    send_to(BACKFILL_QUEUE, bars[20:30])
    wait_until(lambda: stored() == bars[10:30])
    worker.stop()
    start_worker(MDS_HELD_PROBE_S="1")
    wait_until(lambda: stored() == bars[:30], timeout_s=30)
    wait_until(lambda: waiting(*lane(QUEUE, "bars"), *lane(BACKFILL_QUEUE, "bars")) == 0)


def test_both_lanes_flow_back_when_the_dataset_is_written_again(
    start_worker: StartWorker, send_to: SendTo, waiting: Waiting, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    database.execute(BREAK)
    start_worker(MDS_HELD_PROBE_S="1")
    send_to(QUEUE, bars[:10])
    send_to(BACKFILL_QUEUE, bars[10:20])
    queues = held_queue("bars"), held_queue("bars", BACKFILL_QUEUE)
    wait_until(lambda: waiting(queues[1]) == 10 and waiting(queues[0]) >= 9)
    database.execute(MEND)
    wait_until(lambda: stored() == bars[:20], timeout_s=30)
    wait_until(lambda: waiting(*queues) == 0)
