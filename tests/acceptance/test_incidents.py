"""Incidents of a real store: page, `mds status`, an alert and the log name each cause in time, and are quiet after it.

The alerts are those of grafana/alerts.yml in a real Prometheus, without their `for` and with windows of seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from support.incidents import CAPACITY, Incident, Store, is_quiet, play, started, told
from support.prometheus import rules
from support.troubles import (
    broken_producer,
    broker_down,
    database_down,
    database_full,
    database_read_only,
    dataset_held,
    disk_of_broker_full,
    feed_stopped,
    memory_of_broker_full,
    no_worker,
    worker_stalled,
    wrong_clock,
)

from market_data_store.causes import Cause
from market_data_store.local import free_port
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE

#: Seconds of an incident in `.ci/run`, which the whole suite can afford, and in the soak.
SHORT_S, LONG_S = 18.0, 600.0
#: The most lines of a process about an incident of at most a minute, and of ten minutes.
MOST_LINES = {SHORT_S: 15, LONG_S: 60}

INCIDENTS = {
    "Postgres is down": Incident(database_down, Cause.DATABASE_DOWN, "DatabaseDown", by="monitor"),
    "a feed has stopped": Incident(feed_stopped, Cause.FEED_STOPPED, "FeedStopped", status=0),
    "Postgres is read-only": Incident(
        database_read_only, Cause.DATABASE_READ_ONLY, "DatabaseTakesNoWrite", by="monitor"
    ),
    "Postgres is full": Incident(database_full, Cause.DATABASE_FULL, "DatabaseFull", by="monitor"),
    "the broker is down": Incident(broker_down, Cause.BROKER_DOWN, "BrokerUnreachable", by="monitor"),
    "no worker": Incident(no_worker, Cause.NO_WORKERS, "NoWorkers", by="monitor"),
    "a worker is stalled": Incident(worker_stalled, Cause.WORKERS_STALLED, "WorkersInTrouble", by="worker"),
    "a dataset is held": Incident(dataset_held, Cause.DATASET_HELD, "DatasetHeld", by="worker"),
    "a producer is broken": Incident(broken_producer, Cause.LETTERS_GROW, "RowsRejected", status=0),
    "a clock is wrong": Incident(wrong_clock, Cause.CLOCK_WRONG, "ClockWrong", by="monitor", status=0),
    "the disk of the broker is full": Incident(
        disk_of_broker_full, Cause.BROKER_TAKES_NO_WRITE, "BrokerTakesNoWrite", by="monitor"
    ),
    "the memory of the broker is full": Incident(
        memory_of_broker_full, Cause.BROKER_TAKES_NO_WRITE, "BrokerTakesNoWrite", by="monitor"
    ),
}


#: What fires beside the alert of an incident, as it has a cause of its own.
BESIDE = {"Postgres is read-only": {"WritesRetried"}}
#: Those of the other causes, below.
OTHERS = {
    "FeedbackNotDelivered",
    "LettersKept",
    "MonitorAbsent",
    "NoBackfillWorkers",
    "NotMessages",
    "NothingWritten",
    "OldestMessage",
    "QueueFull",
    "RetentionFailed",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all incidents, which come in turn."""
    with started(tmp_path_factory.mktemp("incidents")) as found:
        yield found


@pytest.mark.parametrize(
    "lasts_s", [pytest.param(SHORT_S, marks=pytest.mark.slow), pytest.param(LONG_S, marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("name", INCIDENTS)
def test_an_incident_is_named_in_time_and_quiet_after_its_end(name: str, lasts_s: float, store: Store) -> None:
    seen = play(store, INCIDENTS[name], lasts_s, beside=BESIDE.get(name, set()))
    assert max(seen.lines.values()) <= MOST_LINES[lasts_s], store.records()


def fires(store: Store, *alerts: str) -> None:
    """Each of these alerts fires, by now or in some seconds."""
    store.wait(lambda: {*alerts} <= store.prometheus.firing().keys(), lambda: f"{alerts}: {told(store)}", 40)


@pytest.mark.slow
def test_more_comes_than_is_written(store: Store) -> None:
    with worker_stalled(store):
        for _ in range(2 * CAPACITY):  # the worker's parent goes on taking some
            store.producer.send(1.0)
        fires(store, "QueueFull", "NothingWritten", "OldestMessage")
        assert store.status()["headline"].startswith("hard: ")


@pytest.mark.slow
def test_nobody_takes_history(store: Store) -> None:
    with no_worker(store):
        store.producer.send(1.0, queue=BACKFILL_QUEUE)
        fires(store, "NoBackfillWorkers")


@pytest.mark.slow
def test_something_else_pushes_to_the_queue(store: Store) -> None:
    with store.redis() as server:
        server.lpush(QUEUE, "no message")
        fires(store, "NotMessages")
        server.delete("unacked_malformed")


@pytest.mark.slow
def test_a_letter_is_kept_for_a_day(store: Store) -> None:
    with store.database() as database:
        database.execute("DELETE FROM dead_letters")
        store.producer.send("high")
        store.wait(lambda: letters(database) == 1, lambda: told(store), 30)
        database.execute("UPDATE dead_letters SET created_at = created_at - interval '25 hours'")
        fires(store, "LettersKept")
        database.execute("DELETE FROM dead_letters")


def letters(database: psycopg.Connection[Any]) -> int:
    return int(database.execute("SELECT count(*) FROM dead_letters").fetchall()[0][0])


@pytest.mark.slow
def test_no_monitor_runs_and_then_one_that_can_do_little(store: Store) -> None:
    store.monitor.end()
    fires(store, "MonitorAbsent")
    away = f"http://127.0.0.1:{free_port()}/feedback"
    receiver = {"MDS_FB_ENABLE_HTTP_BROADCAST": "true", "MDS_FB_HTTP_ENDPOINT": away}
    retention = {"MDS_RETENTION_DAYS": "quotes=3650", "MDS_RETENTION_AUTO": "1"}
    with store.database() as database:
        database.execute("ALTER TABLE quotes RENAME COLUMN ts TO moment")
        try:
            with store.monitoring("other-monitor", **receiver, **retention):
                fires(store, "RetentionFailed", "FeedbackNotDelivered")
        finally:
            database.execute("ALTER TABLE quotes RENAME COLUMN moment TO ts")
            store.monitor.start()
    store.wait(lambda: is_quiet(store), lambda: told(store), 60)


def test_each_alert_is_fired_by_its_cause() -> None:
    by_incidents = {incident.alert for incident in INCIDENTS.values()}.union(*BESIDE.values())
    assert by_incidents | OTHERS == {rule["alert"] for rule in rules()}
