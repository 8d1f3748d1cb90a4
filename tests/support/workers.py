"""pytest-celery's node API on local processes: real workers to read, kill and restart where there is no Docker."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from celery import Celery
from pytest_celery import CeleryTestWorker, CeleryWorkerContainer

from market_data_store.local.processes import worker_command
from market_data_store.protocol import LANES, QUEUE
from support.processes import END_S, PYTHON, Process
from support.waiting import wait_until


class _Container(Process):
    """As much of docker-py's `Container` as pytest-celery touches, on a process and its children."""

    # No network of its own, no ports to wait for.
    attrs: Mapping[str, Any] = {"NetworkSettings": {"Networks": {}, "Ports": {}}}

    def __init__(self, command: list[str], environment: Mapping[str, str], directory: Path) -> None:
        super().__init__(PYTHON, "-m", *command, directory=directory, environment=environment, start=False)
        self.name = self.id
        self.command = [part.replace("%h", self.id) for part in self.command]
        self.start()

    @property
    def status(self) -> str:
        return "running" if self.is_running else "exited"

    def reload(self) -> None:
        """`status` is never stale."""

    def logs(self) -> bytes:
        return self.text().encode()

    def kill(self, signal: str | int | None = None) -> None:
        """SIGKILL hits the children too, as a container dies whole; any other signal is for the parent."""
        number = _number(signal or "SIGKILL")
        if number is _number("SIGKILL"):
            super().kill()
        else:
            self.send_signal(number)

    def restart(self, timeout: float = END_S) -> None:
        super().restart(timeout)


def _number(name: str | int) -> signal.Signals:
    return signal.Signals[name] if isinstance(name, str) else signal.Signals(name)


class _WorkerContainer(CeleryWorkerContainer):
    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        """The Procfile's, with two processes and the name that the node goes by.

        Version 0.4 says that it is ready at `--loglevel=INFO`; here the option has no effect.
        """
        return [*worker_command(concurrency=2), "--loglevel=INFO", "--hostname", f"{cls.worker_name()}@%h", *args]

    @classmethod
    def worker_queue(cls) -> str:
        return QUEUE

    def _wait_ready(self, timeout: int = 30) -> bool:
        # Stock: a look each second, also at a process that has ended.
        wait_until(lambda: self.ready_prompt in self.logs() or self.status == "exited", "ready", timeout_s=timeout)
        assert self.status == "running", self.logs()
        return True


class Worker(CeleryTestWorker):
    """A `celery -A market_data_store.app worker` of two processes, with these variables in its environment.

    It logs what is otherwise said less and less often (MDS_LOG_LEVEL=debug).

    `module` is that of another application; `queues` are those that it consumes, if not all.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        directory: Path,
        app: Any = None,
        *,
        pool: str = "prefork",
        module: str = "market_data_store.app",
        queues: str = "",
    ) -> None:
        command = _WorkerContainer.command(f"--pool={pool}", *([f"--queues={queues}"] if queues else []))
        command[command.index("market_data_store.app")] = module
        self._process = _Container(command, {"MDS_LOG_LEVEL": "debug", **environment}, directory)
        super().__init__(_WorkerContainer(self._process), app)

    @property
    def process(self) -> Process:
        """The parent, with the log of all."""
        return self._process

    @property
    def pid(self) -> int:
        """Of the parent, which talks to the broker."""
        return self._process.pid

    @property
    def pool_pids(self) -> set[int]:
        """Of the children, which talk to Postgres."""
        return {child.pid for child in psutil.Process(self.pid).children()}

    def wait_for_log(self, log: str, message: str = "", timeout: float = 30) -> None:
        wait_until(lambda: log in self.logs(), message or f"the worker logs {log!r}", timeout_s=timeout)

    def stop(self, timeout_s: float = END_S) -> None:
        """Warm shutdown, within the time that a PaaS gives (Heroku kills after 30 s)."""
        self._process.end(timeout_s)

    def whole_log(self) -> str:
        """Of all its starts."""
        return self._process.whole_text()

    def forget_log(self) -> None:
        """What it has logged so far is no concern of the case that begins."""
        self._process.forget_log()


def stop_consuming(producer: Celery, worker: Worker) -> None:
    """Order a worker, which was started with MDS_REMOTE_CONTROL, to take no more messages; returns when it does not.

    It answers the order before it follows it.
    """
    named = {"destination": [worker.hostname()], "timeout": 20.0, "limit": 1}
    for queue in LANES.values():
        assert producer.control.cancel_consumer(queue, reply=True, **named)
    wait_until(lambda: producer.control.inspect(**named).active_queues() == {worker.hostname(): []}, "it has stopped")


@contextmanager
def working(directory: Path, *, module: str = "market_data_store.app", **environment: str) -> Iterator[Worker]:
    """A worker that is ready, killed at the end of the block."""
    worker = Worker(environment, directory, module=module)
    try:
        worker.ready()
        yield worker
    finally:
        worker.container.kill()
