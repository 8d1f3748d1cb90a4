"""The store's processes on one machine: servers of their own where none are given, and a worker (`mds up`).

Owns who is started with which environment, and that all of it ends, in order: what uses a server before the server.
"""

from __future__ import annotations

import os
import re
import signal
import socket
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
from market_data_store.errors import ConfigurationError, MarketDataStoreError
from market_data_store.local import end_with_parent, start_postgres, start_valkey
from market_data_store.postgres import schema

#: A PaaS kills after 30 s; what is left by then is killed here first, and nothing of it is acknowledged.
STOP_TIMEOUT_S = 25.0
#: Flower's own default.
FLOWER_PORT = 5555

# What examples have where a password belongs.
_PLACEHOLDER = re.compile(r"|password|secret|change[-_ ]?(me|it)|<.*>", re.IGNORECASE)

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


def flower_command() -> list[str]:
    """Flower; it wants `flower_environment`."""
    return ["celery", "-A", "market_data_store.app", "flower"]


def flower_environment(settings: Settings, *, port: int | None = None) -> dict[str, str]:
    """This process's environment with Flower's settings; variables, since everybody can read a command line.

    Raises `ConfigurationError` where Flower would be open to all, unless in development: there its page and its API,
    on this machine, need no password, and can change nothing.
    """
    environment = dict(os.environ)
    # Whatever is there: Kubernetes sets FLOWER_PORT to tcp://... beside a service `flower`, and Flower reads it.
    environment["FLOWER_PORT"] = str(port or settings.port or FLOWER_PORT)
    environment["FLOWER_ADDRESS"] = settings.bind_host
    environment.setdefault("FLOWER_MAX_TASKS", "10000")  # some 20 MB; Flower's default is ten times that
    environment.setdefault("FLOWER_TASKS_COLUMNS", "name,args,state,result,received,runtime,worker,uuid")
    if settings.rabbitmq_management_url:
        environment.setdefault("FLOWER_BROKER_API", settings.rabbitmq_management_url.rstrip("/") + "/api/")
    pairs = settings.flower_basic_auth
    if settings.environment == "production" and not all(map(_is_own, pairs.split(","))):
        raise ConfigurationError(
            "FLOWER_BASIC_AUTH is not user:password with a password of your own; set it (in ASCII), "
            "or MDS_ENV=development to run Flower without"
        )
    if pairs:
        environment["FLOWER_BASIC_AUTH"] = pairs  # it may come from `.env`
    else:
        environment.pop("FLOWER_BASIC_AUTH", None)  # empty, it lets nobody in
        environment["FLOWER_UNAUTHENTICATED_API"] = "true"
        # Any page that is open in a browser on this machine can call the API.
        environment.setdefault("FLOWER_READ_ONLY", "true")
    return environment


def _is_own(pair: str) -> bool:
    user, _, password = pair.partition(":")
    # Flower compares with hmac.compare_digest, which knows ASCII alone.
    return bool(user) and pair.isascii() and not _PLACEHOLDER.fullmatch(password)


def require_free(port: int, option: str) -> None:
    """Raises `MarketDataStoreError` when something listens on the port already; 0 is none."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise MarketDataStoreError(f"port {port}: {error.strerror}; choose another with {option}") from error


def accepts(port: int) -> bool:
    """Whether something listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


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
