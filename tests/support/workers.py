"""pytest-celery's node API on local processes: real workers to read, kill and restart where there is no Docker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import psutil
from pytest_celery import CeleryTestWorker, CeleryWorkerContainer

from market_data_store.local import end_with_parent
from market_data_store.local.processes import worker_command

T = TypeVar("T")


def until(condition: Callable[[], T], what: str = "", *, timeout_s: float = 20.0) -> T:
    """The first true value of the condition, which is asked again and again."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what or condition}"
        time.sleep(0.01)
    return value


class _Process:
    """As much of docker-py's `Container` as pytest-celery touches, on a process and its children."""

    # No network of its own, no ports to wait for.
    attrs: Mapping[str, Any] = {"NetworkSettings": {"Networks": {}, "Ports": {}}}

    def __init__(self, command: list[str], environment: Mapping[str, str], directory: Path) -> None:
        self.id = self.name = uuid4().hex[:12]
        self.log = directory / f"{self.name}.log"
        self._command = [part.replace("%h", self.id) for part in command]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
        self._start()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *self._command],
                cwd=self.log.parent,  # no `.env` here
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),
            )

    @property
    def status(self) -> str:
        return "running" if self.popen.poll() is None else "exited"

    def reload(self) -> None:
        """`status` is never stale."""

    def logs(self) -> bytes:
        """Since the last start: an earlier "ready." must not pass for this one's."""
        return self.log.read_bytes()[self._log_start :]

    def kill(self, signal: str | int | None = None) -> None:
        """SIGKILL hits the children too, as a container dies whole; any other signal is for the parent."""
        number = _number(signal or "SIGKILL")
        if number is _number("SIGKILL"):
            try:
                os.killpg(self.popen.pid, number)  # also when children have outlived the parent
            except ProcessLookupError:
                pass
            self.popen.wait(10)
        else:
            self.popen.send_signal(number)

    def restart(self, timeout: float) -> None:
        self.popen.terminate()
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        self.kill()
        self._start()


def _number(name: str | int) -> signal.Signals:
    return signal.Signals[name] if isinstance(name, str) else signal.Signals(name)


class _WorkerContainer(CeleryWorkerContainer):
    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        """The Procfile's, with two processes and the name that the node goes by."""
        return [*worker_command(concurrency=2), "--hostname", f"{cls.worker_name()}@%h", *args]

    @classmethod
    def worker_queue(cls) -> str:
        return "store.write"

    def _wait_ready(self, timeout: int = 30) -> bool:
        # Stock: a look each second, also at a process that has ended.
        until(lambda: self.ready_prompt in self.logs() or self.status == "exited", "ready", timeout_s=timeout)
        assert self.status == "running", self.logs()
        return True


class Worker(CeleryTestWorker):
    """A `celery -A market_data_store.app worker` of two processes, with these variables in its environment.

    `module` is that of another application.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        directory: Path,
        app: Any = None,
        *,
        pool: str = "prefork",
        module: str = "market_data_store.app",
    ) -> None:
        command = _WorkerContainer.command(f"--pool={pool}")
        command[command.index("market_data_store.app")] = module
        self._process = _Process(command, environment, directory)
        super().__init__(_WorkerContainer(self._process), app)

    @property
    def pid(self) -> int:
        """Of the parent, which talks to the broker."""
        return self._process.popen.pid

    @property
    def pool_pids(self) -> set[int]:
        """Of the children, which talk to Postgres."""
        return {child.pid for child in psutil.Process(self.pid).children()}

    def wait_for_log(self, log: str, message: str = "", timeout: float = 30) -> None:
        until(lambda: log in self.logs(), message or f"the worker logs {log!r}", timeout_s=timeout)

    def stop(self, timeout_s: float = 25.0) -> None:
        """Warm shutdown, within the time that a PaaS gives (Heroku kills after 30 s)."""
        self.kill("SIGTERM")
        assert self._process.popen.wait(timeout_s) == 0

    def whole_log(self) -> str:
        """Of all its starts."""
        return self._process.log.read_text(errors="replace")


@contextmanager
def running(command: list[str], environment: Mapping[str, str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m` this, killed at the end of the block if it has not ended; its log lies in the directory."""
    process = _Process(command, environment, directory)
    try:
        yield process.popen
    finally:
        process.kill()
