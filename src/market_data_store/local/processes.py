"""The store's processes on one machine: servers of their own where none are given, and a worker (`mds up`).

Owns who is started with which environment, and that all of it ends, in order: what uses a server before the server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from market_data_store.config import Settings
from market_data_store.errors import MarketDataStoreError
from market_data_store.local import end_with_parent, start_postgres, start_valkey
from market_data_store.postgres import schema

#: A PaaS kills after 30 s; what is left by then is killed here first, and nothing of it is acknowledged.
STOP_TIMEOUT_S = 25.0


Log = Callable[[str, str], None]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A started process of ours."""

    name: str
    popen: subprocess.Popen[str]

    def wait(self) -> None:
        """Wait for its end after SIGTERM; kill it after `STOP_TIMEOUT_S`."""
        try:
            self.popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


@dataclass(frozen=True, kw_only=True)
class Running:
    """What `started` started."""

    database_url: str
    broker_url: str
    #: Name and URL, to be shown: embedded servers first.
    urls: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def ended(self) -> Process | None:
        """A process that has ended by itself, if any."""
        return next((process for process in self.processes if process.popen.poll() is not None), None)


@contextmanager
def servers(settings: Settings) -> Iterator[Running]:
    """The servers that the settings name, or embedded ones; migrated. Raises `ServerStartError`."""
    with ExitStack() as stack:
        urls = {}
        database_url, broker_url = settings.database_url, settings.broker_url
        if not database_url:
            postgres = stack.enter_context(start_postgres(settings.home / "postgres"))
            database_url = urls["DATABASE_URL"] = postgres.url
        if not broker_url:
            valkey = stack.enter_context(start_valkey(settings.home / "valkey"))
            broker_url = urls["BROKER_URL"] = valkey.url
        schema.upgrade(settings.admin_database_url or database_url)
        yield Running(database_url=database_url, broker_url=broker_url, urls=urls)


@contextmanager
def processes(
    running: Running, commands: Mapping[str, Sequence[str]], log: Log, settings: Settings, *, web_port: int = 0
) -> Iterator[Running]:
    """Run `python -m ...` commands by name on these servers, each line of theirs going to `log(name, line)`.

    In development, unless MDS_ENV says otherwise, and on 127.0.0.1 alone.
    """
    environment = {
        **os.environ,
        "MDS_ENV": settings.environment if "environment" in settings.model_fields_set else "development",
        "DATABASE_URL": running.database_url,
        "BROKER_URL": running.broker_url,
        "MDS_HOST": "127.0.0.1",
        "PORT": str(web_port),
    }
    # All are told to end before one is waited for: together they take as long as the slowest.
    with ExitStack() as waiting, ExitStack() as telling:
        for name, command in commands.items():
            popen = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for the owner, who ends them in order
                preexec_fn=end_with_parent(signal.SIGTERM),
            )
            process = Process(name=name, popen=popen)
            waiting.callback(process.wait)
            telling.callback(popen.terminate)
            running.processes.append(process)
            assert popen.stdout is not None  # noqa: S101  # for mypy: stdout=PIPE
            threading.Thread(target=_forward, args=(name, popen.stdout, log), daemon=True).start()
        yield running


def _forward(name: str, lines: IO[str], log: Log) -> None:
    for line in lines:
        log(name, line.rstrip("\n"))


def worker_command(*, concurrency: int | None = None) -> list[str]:
    """The worker, as in the Procfile."""
    command = ["celery", "-A", "market_data_store.app", "worker", "--loglevel=INFO", "--without-gossip"]
    return [*command, "--without-mingle", *([f"--concurrency={concurrency}"] if concurrency else [])]


def web_command() -> list[str]:
    """The web process, as in the Procfile."""
    configuration = "python:market_data_store.service.gunicorn_conf"
    return ["gunicorn", "-c", configuration, "market_data_store.service.app:create_app()"]


def wait_until(ready: Callable[[], bool], running: Running, what: str, *, timeout_s: float = 60.0) -> None:
    """Poll; raises `MarketDataStoreError` when a process ends before, or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if ended := running.ended():
            raise MarketDataStoreError(f"{ended.name} ended with status {ended.popen.returncode} before {what}")
        if time.monotonic() > deadline:
            raise MarketDataStoreError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.05)


@contextmanager
def announced(home: Path, running: Running) -> Iterator[None]:
    """Let other commands in this directory find the servers, for as long as they run (see `config`)."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "env"
    path.write_text(f"DATABASE_URL={running.database_url}\nBROKER_URL={running.broker_url}\n")
    path.chmod(0o600)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
