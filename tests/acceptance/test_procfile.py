"""The Procfile as a platform runs it: every process type at once, stopped in the middle of work."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from socket import create_server

import psutil
import pytest
import redis
from celery import Celery
from honcho.environ import parse_procfile
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, StartWorker
from support.ports import free_ports
from support.processes import run, running
from support.waiting import wait_until
from support.web import is_served

from market_data_store.local import free_port

pytestmark = pytest.mark.slow

PROCFILE = Path(__file__).parents[2] / "Procfile"
HONCHO = str(Path(sys.executable).with_name("honcho"))
#: What `release` is not one of: it ends by itself, at which honcho ends the others.
TYPES = ["web", "worker", "monitor", "flower"]
STREAM = "mdp:mdp.telemetry.feedback"
#: A PaaS gives 30 s.
STOP_S = 25.0
PATIENCE_S = 90.0


@pytest.fixture
def environment(broker_url: str, database_url: str) -> dict[str, str]:
    """As a platform sets it, with its spelling of a Postgres URL."""
    return {
        "DATABASE_URL": database_url.replace("postgresql://", "postgres://"),
        "BROKER_URL": broker_url,
        "MDS_ENV": "development",
        # What a killed worker held comes back after this on Redis.
        "MDS_VISIBILITY_TIMEOUT_S": "10",
        # honcho's own variable, for its output to be there when it is looked for.
        "PYTHONUNBUFFERED": "1",
    }


class Platform:
    """Processes and where they listen."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.urls = {name: f"http://127.0.0.1:{ports[name]}" for name in ("web", "flower")}

    def wait_until_ready(self) -> None:
        for url in (f"{self.urls['web']}/readyz", f"{self.urls['flower']}/healthcheck"):
            wait_until(partial(is_served, url), url, timeout_s=PATIENCE_S)


@contextmanager
def rows_being_sent(producer: Celery) -> Iterator[list[int]]:
    """The numbers of the rows that the broker took; more and more of them until the block ends."""
    taken: list[int] = []
    stop = threading.Event()

    def send() -> None:
        for first in itertools.count(0, 20):
            if stop.wait(0.01):
                return
            numbers = range(first, first + 20)
            rows = [{"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9 + n, "value": n} for n in numbers]
            producer.send_task(TASK, args=["signals", rows], queue=QUEUE, ignore_result=True)
            taken.extend(numbers)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()


def stored(database: Connection) -> set[int]:
    return {int(value) for (value,) in database.execute("SELECT value FROM signals").fetchall()}


def free_base_port() -> int:
    """Such that honcho's ports, a hundred apart, are free for web and Flower."""
    while True:
        base = free_port()
        try:
            create_server(("127.0.0.1", base + 100 * TYPES.index("flower"))).close()
        except (OSError, OverflowError):
            continue
        return base


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_honcho_runs_the_procfile_and_stopping_it_loses_nothing(
    environment: dict[str, str],
    producer: Celery,
    database: Connection,
    broker_url: str,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    honcho = [HONCHO, "start", "-f", str(PROCFILE), "-d", str(tmp_path)]
    release = run(*honcho, "release", directory=tmp_path, environment=environment)
    assert "-> 0010" in release.stdout, release
    base = free_base_port()
    platform = Platform({"web": base, "flower": base + 100 * TYPES.index("flower")})
    with running(*honcho, "-p", str(base), *TYPES, directory=tmp_path, environment=environment) as manager:
        platform.wait_until_ready()
        processes = manager.descendants()
        listening = {c.laddr.ip for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        with redis.Redis.from_url(broker_url) as client:
            wait_until(lambda: client.xlen(STREAM), "the monitor publishes", timeout_s=PATIENCE_S)
        with rows_being_sent(producer) as taken:
            wait_until(lambda: len(stored(database)) > 1_000, "rows are written", timeout_s=PATIENCE_S)
            manager.send_signal(signal.SIGTERM)
            assert manager.wait(STOP_S) == 143  # honcho's for SIGTERM
        _, alive = psutil.wait_procs(processes, timeout=STOP_S)
        assert not alive, manager.said()
    start_worker(MDS_VISIBILITY_TIMEOUT_S="10")
    wait_until(lambda: stored(database) == set(taken), "every row that was taken is stored", timeout_s=PATIENCE_S)


def test_every_process_ends_within_a_platforms_grace_period(
    environment: dict[str, str], producer: Celery, database: Connection, start_worker: StartWorker, tmp_path: Path
) -> None:
    """SIGTERM goes to all at once, children and shells too, as on Heroku; no one kills."""
    commands = parse_procfile(PROCFILE.read_text()).processes
    assert [*commands] == ["release", *TYPES]
    ports = dict(zip(TYPES, free_ports(len(TYPES)), strict=True))
    with ExitStack() as stack:
        # As a shell's, since each is a line with variables in it.
        started = {
            name: stack.enter_context(
                running(
                    "sh",
                    "-c",
                    commands[name],
                    directory=tmp_path,
                    name=name,
                    environment={"PORT": str(ports[name]), **environment},
                )
            )
            for name in TYPES
        }
        Platform(ports).wait_until_ready()
        # A shell that stays beside its command ends at once; what counts is the command.
        processes = {name: [psutil.Process(p.pid), *p.descendants()] for name, p in started.items()}
        with rows_being_sent(producer) as taken:
            wait_until(lambda: len(stored(database)) > 1_000, "rows are written", timeout_s=PATIENCE_S)
            told = time.monotonic()
            for process in started.values():
                os.killpg(process.pid, signal.SIGTERM)
            took: dict[str, float] = {}
            while len(took) < len(TYPES) and time.monotonic() < told + STOP_S:
                for name, process in started.items():
                    # An ended shell that nobody asks after stays as a zombie.
                    if not process.is_running and not any(each.is_running() for each in processes[name]):
                        took.setdefault(name, time.monotonic() - told)
                time.sleep(0.05)
        assert took.keys() == set(TYPES), [process.said() for process in started.values()]
    start_worker(MDS_VISIBILITY_TIMEOUT_S="10")
    wait_until(lambda: stored(database) == set(taken), "every row that was taken is stored", timeout_s=PATIENCE_S)
