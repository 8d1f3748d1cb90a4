"""The web process, as gunicorn serves it, and the monitor beside it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from market_data_core.telemetry import HealthStatus

from market_data_store.local import free_port
from support.processes import MDS, PYTHON, Process, ending_cleanly
from support.waiting import wait_until

TOKEN = "t0ken-of-the-tests"
#: Flower's user and password, and its setting.
OPERATOR = ("operator", "of-these-tests-only")
FLOWER = {"FLOWER_BASIC_AUTH": ":".join(OPERATOR)}
APPLICATION = "market_data_store.service.app:create_app()"
#: Else httpx would load one for each call, which takes longer than an answer.
_TRUST = ssl.create_default_context()


class Web:
    """A running web process."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=10, verify=_TRUST)

    def log_text(self) -> str:
        return self.process.whole_text()

    def health(self, path: str = "/health") -> HealthStatus:
        """Any answer of a health endpoint is a HealthStatus, with details that are strings."""
        return HealthStatus.model_validate_json(self.client.get(path).text, strict=True)

    def states(self) -> dict[str, str]:
        return {component.name: component.state for component in self.health().components}

    def admin(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"}, **options)


def monitor(directory: Path, **environment: str) -> AbstractContextManager[Process]:
    """A real `mds monitor`, ended cleanly."""
    name = f"monitor-{time.monotonic_ns()}"
    return ending_cleanly(*MDS, "monitor", directory=directory, name=name, environment=environment)


@contextmanager
def serving(directory: Path, application: str = APPLICATION, **environment: str) -> Iterator[Web]:
    """The web process with these variables, on a port of its own; ready to answer, and ended cleanly."""
    port = free_port()
    settings = {"ADMIN_TOKEN": TOKEN, "APP_PORT": str(port), "MDS_HOST": "127.0.0.1", **environment}
    command = (PYTHON, "-m", "gunicorn", "-c", "python:market_data_store.service.gunicorn_conf", application)
    with ending_cleanly(*command, directory=directory, name=f"web-{port}", environment=settings) as process:
        web = Web(process, f"http://127.0.0.1:{port}")
        with web.client:
            wait_until_served(process, f"{web.url}/healthz")
            yield web


def get(url: str, timeout_s: float = 30.0, auth: tuple[str, str] | None = None) -> httpx.Response:
    return httpx.get(url, timeout=timeout_s, verify=_TRUST, auth=auth)


def is_served(url: str) -> bool:
    """Whether there is an answer of 200."""
    try:
        return get(url).status_code == 200
    except httpx.TransportError:
        return False


def wait_until_served(process: Process, url: str, *, timeout_s: float = 60.0) -> None:
    """Wait until the process answers there with 200; fails at once when it has ended."""
    wait_until(lambda: is_served(url) or not process.is_running, lambda: process.said(url), timeout_s=timeout_s)
    assert process.is_running, process.said(url)
