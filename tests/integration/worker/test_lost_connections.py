"""A lost connection to the broker counts no turn of the message that a worker has in hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import redis
from support.brokers import Broker
from support.databases import Connection
from support.fixtures.store import Bar, Send, StartWorker, Stored
from support.waiting import wait_until

from market_data_store.local import free_port
from market_data_store.protocol import AGAIN_QUEUE

pytestmark = pytest.mark.slow


@pytest.fixture
def broker_url(broker: Broker) -> str:
    """The broker that the test stops."""
    return broker.url


def away() -> str:
    """A Postgres that does not answer."""
    return f"postgresql://nobody@127.0.0.1:{free_port()}/away"


def is_written(start_worker: StartWorker, bars: list[Bar], stored: Stored, database: Connection) -> None:
    """A worker with a Postgres finds the message, and it is not a dead letter."""
    start_worker(MDS_VISIBILITY_TIMEOUT_S="5")
    wait_until(lambda: stored() == bars[:1], timeout_s=40)
    assert database.execute("SELECT FROM dead_letters").rowcount == 0


def test_restarts_of_the_broker_during_an_outage_of_postgres_count_no_turn(
    broker: Broker, start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    worker = start_worker(DATABASE_URL=away(), MDS_RETRY_DEADLINE_S="2")
    send(bars[:1])
    for _ in range(4):
        for log in ("goes back to the broker", "trying again"):  # so the worker has the message in hand again
            worker.wait_for_log(log)
            worker.forget_log()
        broker.stop()
        broker.start()
        worker.wait_for_log("Connected to")
        worker.forget_log()
    # The first to go back is of before the restart, whose message the broker has by itself.
    for log in ("goes back to the broker", "trying again", "goes back to the broker"):
        worker.wait_for_log(log)
        worker.forget_log()
    worker.stop()
    is_written(start_worker, bars, stored, database)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_connections_that_are_cut_during_an_outage_of_postgres_count_no_turn(
    broker: Broker, start_worker: StartWorker, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    worker = start_worker(DATABASE_URL=away())
    send(bars[:1])
    worker.wait_for_log("trying again")
    with redis.Redis.from_url(broker.url) as client:
        for _ in range(5):
            before = client.zrange("unacked_index", 0, -1, withscores=True)
            client.client_kill_filter(_type="normal", skipme=True)
            wait_until(partial(_taken_again, client, before), "the worker takes it again", timeout_s=60)
    worker.stop()
    is_written(start_worker, bars, stored, database)


def _taken_again(client: Any, before: Any) -> bool:
    """Whether the one message is in a worker's hands since another moment."""
    now = client.zrange("unacked_index", 0, -1, withscores=True)
    return len(now) == 1 and now != before and not client.llen(AGAIN_QUEUE)
