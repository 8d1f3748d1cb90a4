"""What the processes log: every line in the one format, and few of them while a server is away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from support.processes import MDS, Process, mds, running
from support.waiting import wait_until
from support.web import FLOWER, Web, monitor, serving, wait_until_served
from support.workers import Worker

from market_data_store.local import EmbeddedServer, free_port, start_postgres, start_valkey
from market_data_store.postgres import schema
from market_data_store.protocol import QUEUE, TASK

pytestmark = pytest.mark.slow

#: Seconds for which a server is away: long enough for what is said less and less often to be said again.
AWAY_S = 33.0
#: The most lines of a process about an outage of a minute.
MOST_LINES = 15
RECORD = {"time", "level", "process", "logger", "message"}
JSON = {"MDS_LOG_FORMAT": "json", "MDS_LOG_LEVEL": "info"}


class Store:
    """Worker, web, monitor and Flower, which log as JSON, and a producer of a row at a time."""

    def __init__(self, directory: Path, stack: ExitStack, servers: dict[str, str]) -> None:
        variables = {**servers, **JSON}
        self.worker = Worker(variables, directory)
        stack.callback(self.worker.container.kill)
        self.web: Web = stack.enter_context(serving(directory, **variables))
        self.monitor: Process = stack.enter_context(monitor(directory, **variables))
        port = free_port()
        flower = (*MDS, "flower", "--port", str(port))
        self.flower = stack.enter_context(
            running(*flower, directory=directory, name="flower", environment={**variables, **FLOWER})
        )
        self.worker.ready()
        wait_until_served(self.flower, f"http://127.0.0.1:{port}/healthcheck")
        self.producer = stack.enter_context(Celery("producer", broker=servers["BROKER_URL"], set_as_current=False))
        self.sent = 0

    def send(self) -> None:
        """Send the next row, over a connection of its own."""
        row = {"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9 + self.sent, "value": self.sent}
        with self.producer.connection_for_write() as connection:
            options: dict[str, Any] = {"connection": connection, "retry": False, "ignore_result": True}
            self.producer.send_task(TASK, args=["signals", [row]], queue=QUEUE, **options)
        self.sent += 1

    @property
    def processes(self) -> dict[str, Process]:
        return {"worker": self.worker.process, "web": self.web.process, "monitor": self.monitor, "flower": self.flower}

    def forget_logs(self) -> None:
        for process in self.processes.values():
            process.forget_log()

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """What each process has logged; every line is a record."""
        return {name: records(process.whole_text()) for name, process in self.processes.items()}


def records(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert [each for each in found if each.keys() < RECORD] == []
    return found


@contextmanager
def started(tmp_path: Path) -> Iterator[tuple[Store, EmbeddedServer, EmbeddedServer]]:
    """The store on a Postgres and a Valkey, each of which ends when the caller stops it."""
    with (
        start_postgres(tmp_path / "postgres") as postgres,
        start_valkey(tmp_path / "valkey") as valkey,
        ExitStack() as stack,
    ):
        schema.upgrade(postgres.url)
        servers = {"DATABASE_URL": postgres.url, "BROKER_URL": valkey.url, "MDS_RETRY_DEADLINE_S": "5"}
        yield Store(tmp_path, stack, servers), postgres, valkey


def stored(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as database:
        return int(database.execute("SELECT count(*) FROM signals").fetchall()[0][0])


def away(began: float) -> bool:
    return time.monotonic() - began > AWAY_S


def are_few(store: Store, *, of: str, by: tuple[str, ...]) -> None:
    """Few lines, none with a traceback, and those processes name the trouble when it begins and when it is over."""
    found = store.records()
    counts = {name: len(lines) for name, lines in found.items()}
    assert max(counts.values()) <= MOST_LINES, json.dumps(found, indent=1)
    for name, lines in found.items():
        assert [line for line in lines if "traceback" in line] == [], name
        assert [line for line in lines if line["message"].rstrip().endswith(":")] == [], "an empty reason"
        if name in by:
            events = [line.get("event") for line in lines]
            assert {"trouble", "trouble_over"} <= {*events}, (name, lines)
            assert of in str(lines), (name, lines)


def test_an_outage_of_postgres_is_a_few_lines_of_each_process(tmp_path: Path) -> None:
    with started(tmp_path) as (store, postgres, _):
        store.send()
        wait_until(lambda: stored(postgres.url) == 1)
        store.forget_logs()
        postgres.stop()
        began = time.monotonic()
        while not away(began):
            store.send()
            wait_until(lambda: store.web.client.get("/status.json").status_code == 200)
        with start_postgres(tmp_path / "postgres", port=postgres.port):
            wait_until(lambda: stored(postgres.url) == store.sent, store.worker.whole_log, timeout_s=30)
            wait_until(lambda: store.web.states()["database"] == "healthy")
            wait_until(lambda: "trouble_over" in store.web.log_text())
            are_few(store, of="onnect", by=("worker", "web"))


def test_an_outage_of_the_broker_is_a_few_lines_of_each_process(tmp_path: Path) -> None:
    with started(tmp_path) as (store, postgres, valkey):
        store.send()
        wait_until(lambda: stored(postgres.url) == 1)
        store.forget_logs()
        valkey.stop()
        began = time.monotonic()
        wait_until(lambda: away(began), timeout_s=2 * AWAY_S)
        with start_valkey(tmp_path / "valkey", port=valkey.port):
            store.send()
            wait_until(lambda: stored(postgres.url) == 2, store.worker.whole_log, timeout_s=30)
            wait_until(lambda: store.web.states()["broker"] == "healthy")
            for process in (store.worker.process, store.web.process, store.monitor):
                wait_until(lambda process=process: "trouble_over" in process.text(), process.said)  # type: ignore[misc]
            are_few(store, of="Connection refused", by=("worker", "web", "monitor"))


def test_all_that_mds_up_prints_is_json(tmp_path: Path) -> None:
    command = (*MDS, "up", "--web-port", str(free_port()), "--flower-port", str(free_port()), "--verbose")
    with running(*command, directory=tmp_path, environment=JSON, name="up") as up:
        up.wait_for_text("Ready; Ctrl-C stops everything.", timeout_s=90)
        file = tmp_path / "one.csv"
        file.write_text("ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n2024-01-01T00:00:01Z,A,p,n,x\n")
        loaded = mds(tmp_path, "load", str(file), "--dataset", "signals")
        assert "dead letters  1" in loaded.stdout, loaded
        up.wait_for_text("rows rejected", timeout_s=20)
        assert mds(tmp_path, "migrate", **JSON).returncode == 0
        up.end(60)
    found = records(up.whole_text())
    assert {each["process"].partition("/")[0] for each in found} == {"up", "worker", "monitor", "web", "flower"}
    (rejected,) = (each for each in found if each.get("event") == "rejected")
    assert "dead letter 1: value: " in rejected["message"]


def test_what_release_says_is_json(tmp_path: Path) -> None:
    refused = mds(tmp_path, "migrate", **JSON, MDS_BATCH_ROWS="many", MDS_QUEUE_CAPACITY="0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert [(each["level"], each["message"].partition("=")[0]) for each in records(refused.stderr)] == [
        ("error", "MDS_BATCH_ROWS"),
        ("error", "MDS_QUEUE_CAPACITY"),
    ]
    away_url = f"postgresql://nobody@127.0.0.1:{free_port()}/away"
    failed = mds(tmp_path, "migrate", "--wait", "0", **JSON, DATABASE_URL=away_url)
    (line,) = records(failed.stderr)
    assert line["message"].startswith("cannot connect to ")
