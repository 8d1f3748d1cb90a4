"""The web process, as gunicorn serves it, and the processes that a store has besides."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from market_data_core.telemetry import HealthStatus

from market_data_store.local import end_with_parent, free_port
from support.workers import until

TOKEN = "t0ken-of-the-tests"
APPLICATION = "market_data_store.service.app:create_app()"


class Web:
    """A running web process."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log
        self.client = httpx.Client(base_url=url, timeout=10)

    def health(self, path: str = "/health") -> HealthStatus:
        """Any answer of a health endpoint is a HealthStatus, with details that are strings."""
        return HealthStatus.model_validate_json(self.client.get(path).text, strict=True)

    def states(self) -> dict[str, str]:
        return {component.name: component.state for component in self.health().components}

    def admin(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"}, **options)


@contextmanager
def python(
    directory: Path, name: str, *command: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`python -m ...`, ended cleanly."""
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent(signal.SIGKILL),
        )
    try:
        yield process, log
        if process.poll() is None:
            process.terminate()
            assert process.wait(25) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@contextmanager
def monitor(directory: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real `mds monitor`, ended cleanly."""
    name = f"monitor-{time.monotonic_ns()}"
    with python(directory, name, "market_data_store", "monitor", **environment) as (process, _):
        yield process


@contextmanager
def serving(directory: Path, **environment: str) -> Iterator[Web]:
    """The web process with these variables, on a port of its own; ready to answer."""
    port = free_port()
    settings = {"ADMIN_TOKEN": TOKEN, "APP_PORT": str(port), "MDS_HOST": "127.0.0.1", **environment}
    command = ("gunicorn", "-c", "python:market_data_store.service.gunicorn_conf", APPLICATION)
    with python(directory, "web", *command, **settings) as (process, log):
        web = Web(process, f"http://127.0.0.1:{port}", log)
        with web.client:
            until(lambda: _answers(web), f"web: {log.read_text()}", timeout_s=60)
            yield web


def _answers(web: Web) -> bool:
    assert web.process.poll() is None, web.log.read_text()
    try:
        return web.client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
