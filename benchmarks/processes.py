"""Processes that a run starts: their output, their end, and the CPU time and memory that they use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from market_data_store.errors import MarketDataStoreError
from market_data_store.local import end_with_parent

ROOT = Path(__file__).parents[1]
#: The caller's variables that would change what is measured.
_KEPT_OUT = ("MDS_", "BROKER_URL", "DATABASE_URL", "REDIS_URL", "CELERY_", "PYTHONPATH", "CLOUDAMQP_URL")


def environment(**variables: str) -> dict[str, str]:
    """Return the caller's environment, without settings of the store and of Celery, plus these variables."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_KEPT_OUT)}
    return {**own, "PYTHONPATH": str(ROOT), **variables}


class Process:
    """A process in its own session. Its output goes to a file; `kill` also kills its children."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=log.parent,  # no `.env` here
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is still running."""
        return self._popen.poll() is None

    def until_logged(self, text: str, timeout_s: float = 60.0) -> None:
        """Wait until the output has this text; raise `MarketDataStoreError` with the end of the output if not."""
        deadline = time.monotonic() + timeout_s
        while text not in (output := self.log.read_text(errors="replace")):
            if not self.is_running or time.monotonic() > deadline:
                raise MarketDataStoreError(f"no {text!r} in {self.log}, which ends with:\n{output[-2_000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the process and everything that it started; idempotent."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._popen.wait()


@contextmanager
def running(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[Process]:
    """Run a process during a block."""
    process = Process(command, env, log)
    try:
        yield process
    finally:
        process.kill()


def answer(command: Sequence[str], env: Mapping[str, str], timeout_s: float = 600.0, cwd: Path | None = None) -> Any:
    """Run a program, and return the JSON in the last line of its output; raise `MarketDataStoreError` if it fails."""
    return json.loads(output(command, env, timeout_s, cwd).splitlines()[-1])


def output(command: Sequence[str], env: Mapping[str, str], timeout_s: float = 600.0, cwd: Path | None = None) -> str:
    """Run a program, and return its output; raise `MarketDataStoreError`, with the end of its errors, if it fails."""
    done = subprocess.run(
        list(command), env=dict(env), cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise MarketDataStoreError(f"{' '.join(command[1:4])} ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    return done.stdout


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children, and of theirs."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def cpu_s(pid: int, *, with_children: bool) -> float:
    """Return the CPU seconds that a process has used; `with_children` adds its children, including ended ones."""
    process = psutil.Process(pid)
    times = process.cpu_times()
    total = float(times.user + times.system)
    if with_children:
        total += times.children_user + times.children_system
        for child in process.children(recursive=True):
            try:
                used = child.cpu_times()
                total += used.user + used.system
            except psutil.NoSuchProcess:
                pass  # the child ended meanwhile
    return total


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in MB, or 0 if the process has ended."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0
