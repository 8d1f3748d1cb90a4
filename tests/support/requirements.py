"""What a test needs that the package does not install."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, NoReturn

import pytest

from support import pgbouncer, rabbitmq


def missing(reason: str, details: str = "") -> NoReturn:
    """Skip the test for this reason; in CI, where nothing may be missing, it fails, with the details."""
    if os.environ.get("CI") == "true":
        pytest.fail(details or reason)
    pytest.skip(reason)


def required_module(name: str) -> Any:
    """The module, or the test is `missing` it."""
    try:
        return import_module(name)
    except ImportError:
        missing(f"{name} is not installed; pip install -e '.[dev]'")


def require_rabbitmq() -> None:
    """RabbitMQ is installed, or the test is `missing` it."""
    if not rabbitmq.available():
        missing("rabbitmq-server is not installed; on Debian: apt-get install rabbitmq-server")


def require_pgbouncer() -> None:
    """PgBouncer is installed, or the test is `missing` it."""
    if not pgbouncer.available():
        missing("pgbouncer is not installed; on Debian: apt-get install pgbouncer")
