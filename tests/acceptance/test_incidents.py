"""Incidents of a real store: page, `mds status`, an alert and the log name each cause in time, and are quiet after it.

The alerts are those of grafana/alerts.yml in a real Prometheus, without their `for` and with windows of seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.incidents import Incident, Store, play, started
from support.troubles import (
    broken_producer,
    broker_down,
    database_full,
    database_read_only,
    dataset_held,
    disk_of_broker_full,
    memory_of_broker_full,
    no_worker,
    worker_stalled,
    wrong_clock,
)

from market_data_store.causes import Cause

#: Seconds of an incident in `.ci/run`, which the whole suite can afford, and in the soak.
SHORT_S, LONG_S = 18.0, 600.0
#: The most lines of a process about an incident of at most a minute, and of ten minutes.
MOST_LINES = {SHORT_S: 15, LONG_S: 60}

INCIDENTS = {
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
        memory_of_broker_full, Cause.BROKER_TAKES_NO_WRITE, "BrokerTakesNoWrite", by="worker"
    ),
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
    seen = play(store, INCIDENTS[name], lasts_s)
    assert max(seen.lines.values()) <= MOST_LINES[lasts_s], store.records()
