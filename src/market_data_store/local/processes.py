"""The store's processes on one machine (`mds up`): embedded servers where no URLs are set, and the store itself.

Owns the environment of each process, and the order in which they end: a server ends after the processes that use it.
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
from functools import partial
from pathlib import Path
from typing import IO

from market_data_store.config import Settings
from market_data_store.connections.addresses import is_loopback, own_url
from market_data_store.errors import MarketDataStoreError
from market_data_store.local import end_with_parent, start_postgres, start_valkey
from market_data_store.local.directory import EmbeddedServer
from market_data_store.local.passwords import Passwords, passwords_in, write_in
from market_data_store.local.ports import Ports
from market_data_store.postgres import schema

#: A PaaS kills after 30 s. What is still running shortly before is killed here; its messages are not acknowledged.
STOP_TIMEOUT_S = 25.0


Log = Callable[[str, str], None]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of the store that was started here."""

    name: str
    popen: subprocess.Popen[str]

    def wait(self) -> None:
        """Wait for the process to end after SIGTERM; kill it after `STOP_TIMEOUT_S`."""
        try:
            self.popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


@dataclass(frozen=True, kw_only=True)
class Running:
    """The servers and processes that are running."""

    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    #: URLs of the embedded servers, by the name of their setting.
    urls: dict[str, str] = field(default_factory=dict, repr=False)
    processes: list[Process] = field(default_factory=list)
    #: Those of the embedded servers, of web and of Flower, where the settings have none.
    passwords: Passwords
    #: The embedded servers.
    servers: list[EmbeddedServer] = field(default_factory=list)

    def bound_logs(self) -> None:
        """Keep the logs of the embedded servers from growing without end."""
        for server in self.servers:
            server.bound_log()

    def ended(self) -> Process | None:
        """Return a process that has ended by itself, if any."""
        return next((process for process in self.processes if process.popen.poll() is not None), None)


@contextmanager
def servers(settings: Settings, ports: Ports) -> Iterator[Running]:
    """Provide the servers that the settings name, or embedded ones, migrated. Raises `ServerStartError`."""
    passwords = passwords_in(settings.home)
    with ExitStack() as stack:
        urls = {}
        embedded = []
        database_url, broker_url = settings.database_url, settings.broker_url
        if not database_url:
            postgres = stack.enter_context(
                start_postgres(
                    settings.home / "postgres", password=passwords.postgres, choose=partial(ports.port, "postgres")
                )
            )
            database_url = urls["DATABASE_URL"] = postgres.url
            embedded.append(postgres)
        if not broker_url:
            valkey = stack.enter_context(
                start_valkey(settings.home / "valkey", password=passwords.valkey, choose=partial(ports.port, "valkey"))
            )
            broker_url = urls["BROKER_URL"] = valkey.url
            embedded.append(valkey)
        schema.upgrade(settings.admin_database_url or database_url)
        yield Running(
            database_url=database_url, broker_url=broker_url, urls=urls, servers=embedded, passwords=passwords
        )


@contextmanager
def processes(
    running: Running, commands: Mapping[str, Sequence[str]], log: Log, settings: Settings, **ports: int
) -> Iterator[Running]:
    """Run `python -P -m ...` commands on these servers, and pass each line of their output to `log(name, line)`.

    `commands` is keyed by process name. The processes listen on MDS_HOST, by default 127.0.0.1; `ports` has those of
    web (`web_port`), Flower (`flower_port`) and the monitor's metrics (`metrics_port`). MDS_ENV defaults to development
    where only this machine reaches them. Web and Flower get passwords that the store has made if the settings have
    none.
    """
    host, flower = listening_host(settings), ports.get("flower_port", 0)
    is_chosen = "environment" in settings.model_fields_set or not is_loopback(host)
    environment = {
        **os.environ,
        "MDS_ENV": settings.environment if is_chosen else "development",
        "DATABASE_URL": running.database_url,
        "BROKER_URL": running.broker_url,
        "MDS_HOST": host,
        "PORT": str(ports.get("web_port", 0)),
    }
    theirs = {
        "web": {
            "ADMIN_TOKEN": settings.own_admin_token or running.passwords.admin_token,
            "MDS_FLOWER_URL": settings.flower_url or (own_url(host, flower) if flower else ""),
        },
        "monitor": {"MDS_MONITOR_METRICS_PORT": str(ports.get("metrics_port", 0))},
        "flower": {"FLOWER_BASIC_AUTH": settings.flower_basic_auth or running.passwords.flower},
    }
    # All are asked to end before the first is waited for: together they take only as long as the slowest.
    with ExitStack() as waiting, ExitStack() as telling:
        for name, command in commands.items():
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", *command],
                env=environment | theirs.get(name, {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches only the owner, which ends them in order
                preexec_fn=end_with_parent(signal.SIGTERM),
            )
            process = Process(name=name, popen=popen)
            waiting.callback(process.wait)
            telling.callback(popen.terminate)
            running.processes.append(process)
            assert popen.stdout is not None  # noqa: S101  # for mypy: stdout=PIPE
            threading.Thread(target=_forward, args=(name, popen.stdout, log), daemon=True).start()
        yield running


def listening_host(settings: Settings) -> str:
    """Return the address that the processes listen on."""
    return settings.host or "127.0.0.1"


def _forward(name: str, lines: IO[str], log: Log) -> None:
    for line in lines:
        try:
            log(name, line.rstrip("\n"))
        except OSError:  # nobody reads; a process whose output is not taken would stop at its next line
            continue


def worker_command(*, concurrency: int | None = None) -> list[str]:
    """Return the arguments of `python -m` for the worker, as in the Procfile."""
    command = ["celery", "-A", "market_data_store.app", "worker", "--without-gossip"]
    return [*command, "--without-mingle", *([f"--concurrency={concurrency}"] if concurrency else [])]


def web_command() -> list[str]:
    """Return the arguments of `python -m` for the web process, as in the Procfile."""
    configuration = "python:market_data_store.service.gunicorn_conf"
    return ["gunicorn", "-c", configuration, "market_data_store.service.app:create_app()"]


def wait_until(ready: Callable[[], bool], running: Running, what: str, *, timeout_s: float = 60.0) -> None:
    """Poll until `ready`; raise `MarketDataStoreError` if a process ends first or the time runs out.

    `what` completes the error message, as in "60 s passed before a worker was ready".
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        if ended := running.ended():
            raise MarketDataStoreError(f"{ended.name} ended with status {ended.popen.returncode} before {what}")
        if time.monotonic() > deadline:
            raise MarketDataStoreError(f"{timeout_s:.0f} s passed before {what}")
        time.sleep(0.05)


@contextmanager
def announced(home: Path, running: Running) -> Iterator[None]:
    """Let other commands in this directory find the servers while they run (see `config`)."""
    path = home / "env"
    write_in(home, path, f"DATABASE_URL={running.database_url}\nBROKER_URL={running.broker_url}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
