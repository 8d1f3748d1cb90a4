"""Counts what a writer asks of Postgres."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements that this thread sends in this block, in their order; a list of rows counts once for each row."""
    sent: list[str] = []
    thread = threading.get_ident()
    execute, executemany, copy = psycopg.Cursor.execute, psycopg.Cursor.executemany, psycopg.Cursor.copy

    def note(query: Any, times: int = 1) -> None:
        if threading.get_ident() == thread:
            sent.extend([str(query)] * times)

    def noting_execute(self: psycopg.Cursor[Any], query: Any, *args: Any, **options: Any) -> Any:
        note(query)
        return execute(self, query, *args, **options)

    def noting_executemany(self: psycopg.Cursor[Any], query: Any, rows: Any, **options: Any) -> None:
        rows = list(rows)
        note(query, len(rows))
        executemany(self, query, rows, **options)

    def noting_copy(self: psycopg.Cursor[Any], query: Any, *args: Any, **options: Any) -> Any:
        note(query)
        return copy(self, query, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", noting_execute)
        patch.setattr(psycopg.Cursor, "executemany", noting_executemany)
        patch.setattr(psycopg.Cursor, "copy", noting_copy)
        yield sent
