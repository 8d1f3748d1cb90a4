"""Incidents of a real store, each caused by its real cause, and what an operator sees of it: page, status, alert, log.

The processes and servers are started once. An incident is a block in which something is wrong; `play` sees it through
from its beginning until all is quiet again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psycopg
import redis
from celery import Celery

from market_data_store.causes import Cause, help_of
from market_data_store.local import EmbeddedServer, free_port, start_postgres, start_valkey
from market_data_store.postgres import schema
from market_data_store.protocol import ENQUEUED_AT_HEADER, QUEUE, TASK
from support.processes import MDS, Process, mds, running
from support.prometheus import Prometheus, scraping
from support.waiting import wait_until
from support.web import FLOWER, Web, serving, wait_until_served
from support.workers import Worker

#: An operator sees a cause within these seconds of its start, and nothing of it so many seconds after its end.
LIMIT_S = 15.0
#: Seconds between two rows of the producer.
_PACE_S = 0.2
#: What the producer does without while the broker is away or full.
_DEADLINES = {"socket_connect_timeout": 1.0, "socket_timeout": 1.0}
QUOTA_BYTES = 64_000_000
CAPACITY = 500
#: The feed of the producer has stopped when its newest row is older.
FRESH_S = 4.0
_JSON = {"MDS_LOG_FORMAT": "json", "MDS_LOG_LEVEL": "info"}
_SETTINGS = {
    **_JSON,
    "MDS_DATABASE_QUOTA_BYTES": str(QUOTA_BYTES),
    "MDS_RETRY_DEADLINE_S": "5",
    "MDS_FRESHNESS": f"signals={FRESH_S:.0f}s",
    "MDS_QUEUE_CAPACITY": str(CAPACITY),
}


@dataclass
class Producer:
    """Sends a row now and then, of the dataset signals; what cannot be sent is left out."""

    celery: Celery
    value: Any = 1.0
    is_sending: bool = True
    sent: int = 0
    _due: float = field(default=0.0)

    def step(self) -> None:
        """Send a row, if it is time."""
        now = time.monotonic()
        if not self.is_sending or now < self._due:
            return
        self._due = now + _PACE_S
        self.send(self.value)

    def send(self, value: Any, *, dataset: str = "signals", queue: str = QUEUE) -> None:
        row = {"provider": "p", "symbol": "S", "name": "n", "ts": time.time(), "value": value}
        self.sent += 1
        with (
            suppress(Exception),  # the broker is away
            self.celery.connection_for_write(transport_options=_DEADLINES) as connection,
        ):
            headers = {ENQUEUED_AT_HEADER: time.time()}  # as StoreClient has it
            options: dict[str, Any] = {"connection": connection, "retry": False, "ignore_result": True}
            options["headers"] = headers
            self.celery.send_task(TASK, args=[dataset, [row]], queue=queue, **options)


class Store:
    """Worker, web, monitor and Flower on a Postgres and a Valkey of their own, a producer, and a Prometheus."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.postgres = start_postgres(directory / "postgres")
        self.valkey = start_valkey(directory / "valkey")
        stack.callback(lambda: self.valkey.stop())
        stack.callback(lambda: self.postgres.stop())
        schema.upgrade(self.postgres.url)
        urls = {"DATABASE_URL": self.postgres.url, "BROKER_URL": self.valkey.url, "REDIS_URL": self.valkey.url}
        self.settings = {**urls, **_SETTINGS}
        self.metrics_port, worker_port, flower_port = free_port(), free_port(), free_port()
        self.worker = Worker({**self.settings, "MDS_WORKER_METRICS_PORT": str(worker_port)}, directory)
        stack.callback(self.worker.container.kill)
        self.web: Web = stack.enter_context(serving(directory, **self.settings))
        self.monitor = stack.enter_context(self.monitoring("monitor"))
        flower = (*MDS, "flower", "--port", str(flower_port))
        self.flower = stack.enter_context(
            running(*flower, directory=directory, name="flower", environment={**self.settings, **FLOWER})
        )
        targets = [self.web.url.removeprefix("http://"), *(f"127.0.0.1:{p}" for p in (worker_port, self.metrics_port))]
        self.prometheus: Prometheus = stack.enter_context(scraping(directory, targets))
        self.worker.ready()
        wait_until_served(self.flower, f"http://127.0.0.1:{flower_port}/healthcheck")
        celery = stack.enter_context(Celery("producer", broker=self.valkey.url, set_as_current=False))
        self.producer = Producer(celery)

    def monitoring(self, name: str, **settings: str) -> AbstractContextManager[Process]:
        """A monitor, whose metrics are scraped."""
        environment = {**self.settings, "MDS_MONITOR_METRICS_PORT": str(self.metrics_port), **settings}
        return running(*MDS, "monitor", directory=self.directory, name=name, environment=environment)

    @property
    def processes(self) -> Mapping[str, Process]:
        return {"worker": self.worker.process, "web": self.web.process, "monitor": self.monitor, "flower": self.flower}

    def database(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.postgres.url, autocommit=True)

    def redis(self) -> Any:
        return redis.Redis.from_url(self.valkey.url, decode_responses=True)

    def status(self) -> dict[str, Any]:
        """The document that the page shows."""
        found: dict[str, Any] = self.web.client.get("/status.json").json()
        return found

    def printed_status(self) -> CompletedProcess[str]:
        """What `mds status` prints, while the producer goes on."""
        with ThreadPoolExecutor(1) as executor:
            done = executor.submit(mds, self.directory, "status", **self.settings)
            self.wait(done.done, lambda: "mds status", 120)
            return done.result()

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """What each process has logged since `forget_logs`."""
        return {
            name: [json.loads(line) for line in process.whole_text().splitlines()]
            for name, process in self.processes.items()
        }

    def forget_logs(self) -> None:
        for process in self.processes.values():
            process.forget_log()

    def wait(self, condition: Callable[[], Any], what: Callable[[], str], timeout_s: float) -> float:
        """Wait while the producer sends; return after how many seconds the condition was true."""
        began = time.monotonic()

        def step() -> Any:
            self.producer.step()
            return condition()

        wait_until(step, what, timeout_s=timeout_s)
        return time.monotonic() - began


@contextmanager
def started(directory: Path) -> Iterator[Store]:
    """The store, without any trouble."""
    with ExitStack() as stack:
        store = Store(directory, stack)
        store.wait(lambda: is_quiet(store), lambda: told(store), 60)
        yield store


def is_quiet(store: Store) -> bool:
    """Whether nothing is wrong on the page, and no alert fires."""
    return store.status()["headline_cause"] is None and not store.prometheus.firing()


def told(store: Store) -> str:
    """What is wrong, for the message of an assertion."""
    status = store.status()
    lines = "\n".join(f"{name}: {line}" for name, found in store.records().items() for line in found[-25:])
    return f"{status['headline']} ({status['headline_cause']}), alerts {[*store.prometheus.firing()]}\n{lines}"


Trouble = Callable[[Store], AbstractContextManager[None]]


@dataclass(frozen=True)
class Incident:
    """Something that is wrong, and what names it."""

    trouble: Trouble
    cause: Cause
    #: The alert that fires.
    alert: str
    #: A process that names the cause in its log.
    by: str = "web"
    #: The exit code of `mds status`.
    status: int = 1


@dataclass
class Seen:
    """After how many seconds each place named the cause, and was quiet again; how many lines each process logged."""

    named: dict[str, float] = field(default_factory=dict)
    quiet: dict[str, float] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


def play(store: Store, incident: Incident, lasts_s: float, *, beside: Set[str] = frozenset()) -> Seen:
    """Let the incident last for so many seconds; asserts that it is named in time, and quiet in time after its end.

    `beside` are more alerts that fire while it lasts.
    """
    store.wait(lambda: is_quiet(store), lambda: told(store), 60)
    store.forget_logs()
    seen, address = Seen(), help_of(incident.cause)
    with incident.trouble(store):
        began = time.monotonic()
        _wait_for_each(store, _naming(store, incident, address), seen.named, began)
        seen.named["mds status"] = time.monotonic() - began  # when it is started: it takes a while by itself
        printed = store.printed_status()
        assert address in printed.stdout, (printed.stdout, told(store))
        assert printed.stdout.splitlines()[0].removeprefix("status").strip() != "", printed.stdout
        assert printed.returncode == incident.status, printed.stdout
        assert seen.named["mds status"] <= LIMIT_S, seen
        fired: set[str] = set()

        def has_lasted() -> bool:
            fired.update(store.prometheus.firing())
            return time.monotonic() - began >= lasts_s and fired >= beside

        store.wait(has_lasted, lambda: f"{beside} beside {fired}", lasts_s + 30)
    ended = time.monotonic()
    _wait_for_each(store, _quieting(store, incident), seen.quiet, ended)
    seen.quiet["mds status"] = time.monotonic() - ended
    printed = store.printed_status()
    assert printed.returncode == 0, printed.stdout
    assert "\nhelp " not in printed.stdout, printed.stdout
    seen.lines = {name: len(found) for name, found in store.records().items()}
    return seen


def _wait_for_each(
    store: Store, places: Mapping[str, Callable[[], bool]], after: dict[str, float], since: float
) -> None:
    """Wait until each place has said it, and note after how many seconds it did."""

    def all_have() -> bool:
        for name in places.keys() - after.keys():
            if places[name]():
                after[name] = time.monotonic() - since
        return not places.keys() - after.keys()

    store.wait(all_have, lambda: f"missed in {places.keys() - after.keys()}: {told(store)}", LIMIT_S)


def _naming(store: Store, incident: Incident, address: str) -> dict[str, Callable[[], bool]]:
    def page() -> bool:
        status = store.status()
        return (status["headline_cause"], status["help"]) == (incident.cause.value, address) and bool(
            status["since_ts"]
        )

    def alert() -> bool:
        return store.prometheus.firing().get(incident.alert, {}).get("runbook_url") == address

    def log() -> bool:
        lines = store.records()[incident.by]
        return any((line.get("cause"), line.get("help")) == (incident.cause.value, address) for line in lines)

    return {"page": page, "alert": alert, "log": log}


def _quieting(store: Store, incident: Incident) -> dict[str, Callable[[], bool]]:
    def log() -> bool:
        over = [line for line in store.records()[incident.by] if line.get("event") == "trouble_over"]
        return any(line.get("cause") == incident.cause.value for line in over)

    return {
        "page": lambda: store.status()["headline_cause"] is None,
        "alerts": lambda: not store.prometheus.firing(),
        "log": log,
    }


def server_is_stopped(store: Store, name: str, start: Callable[..., EmbeddedServer]) -> Iterator[None]:
    server: EmbeddedServer = getattr(store, name)
    server.stop()
    try:
        yield
    finally:
        setattr(store, name, start(store.directory / name, port=server.port))
