"""What a process calls itself at the servers."""

from __future__ import annotations

import sys

import pytest

from market_data_store.connections.names import process_name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/venv/bin/celery", "-A", "market_data_store.app", "worker", "--concurrency=2"], "mds-worker"),
        (["/venv/site-packages/celery/__main__.py", "-A", "market_data_store.app", "flower"], "mds-flower"),
        (["/venv/bin/celery", "-A", "market_data_store.app", "inspect", "ping"], "mds-celery"),
        (["/venv/bin/gunicorn", "-c", "python:conf", "app:create_app()"], "mds-web"),
        (["/venv/site-packages/gunicorn/__main__.py", "app:create_app()"], "mds-web"),
        (["/venv/bin/mds", "monitor"], "mds-monitor"),
        (["/venv/bin/mds", "dead-letters", "list"], "mds-dead-letters"),
        (["/venv/site-packages/market_data_store/__main__.py", "status", "--watch"], "mds-status"),
        (["/home/me/poller.py"], "mds-client"),
        (["-c"], "mds-client"),
        ([""], "mds-client"),
    ],
)
def test_a_process_is_called_by_what_it_does(words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", words)
    assert process_name() == expected
