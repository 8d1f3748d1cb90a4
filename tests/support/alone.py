"""Tests that measure, with the mark `alone`: no other test of the session runs beside them, whatever `-n` says."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Each test shares a lock with those of xdist's other processes, and one that is alone has it to itself."""
    with _lock_of_session(item.config).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


def _lock_of_session(config: pytest.Config) -> Path:
    session = getattr(config, "workerinput", {}).get("testrunuid", "single")
    return Path(tempfile.gettempdir()) / f"market-data-store-tests-{session}.lock"
