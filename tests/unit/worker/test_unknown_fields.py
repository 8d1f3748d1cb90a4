"""Counts of unknown fields that cannot be stored are kept, and stored with the next ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres import unknown_fields as counts
from market_data_store.wire.seen import Seen
from market_data_store.worker import unknown_fields
from market_data_store.worker.unknown_fields import heard, store

Stored = dict[str, dict[str, Seen]]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Stored]]:
    """What is stored, by whom it is asked: no timer runs in the test."""
    found: list[Stored] = []
    monkeypatch.setattr(unknown_fields, "_FIRST_S", 3_600.0)
    monkeypatch.setattr(unknown_fields, "_INTERVAL_S", 3_600.0)
    monkeypatch.setattr(unknown_fields, "settings", lambda: type("S", (), {"require_database_url": lambda _: "x"})())
    monkeypatch.setattr(unknown_fields, "connect", lambda url: nullcontext())
    monkeypatch.setattr(counts, "add", lambda connection, seen: found.append(seen))
    yield found
    store()
    timer = unknown_fields._timer
    if timer is not None:
        timer.cancel()


def test_what_is_heard_is_stored_once(stored: list[Stored]) -> None:
    heard("bars", {})
    store()
    assert stored == []
    heard("bars", {"lots": Seen(2, {"integer"})})
    heard("bars", {"lots": Seen(1, {"text"}), "note": Seen(1, {"text"})})
    heard("ticks", {"lots": Seen(1, {"integer"})})
    store()
    store()
    assert stored == [
        {
            "bars": {"lots": Seen(3, {"integer", "text"}), "note": Seen(1, {"text"})},
            "ticks": {"lots": Seen(1, {"integer"})},
        }
    ]


def test_what_cannot_be_stored_is_counted_on(
    stored: list[Stored], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(url: str) -> Any:
        raise DatabaseUnavailable("cannot connect")

    heard("bars", {"lots": Seen(2, {"integer"})})
    with monkeypatch.context() as patch:
        patch.setattr(unknown_fields, "connect", away)
        store()
        heard("bars", {"lots": Seen(1, {"integer"})})
        store()
    assert caplog.text.count("the counts of unknown fields cannot be stored: cannot connect; trying again") == 1
    assert stored == []
    store()
    assert stored == [{"bars": {"lots": Seen(3, {"integer"})}}]


def test_what_was_heard_before_is_not_changed(stored: list[Stored]) -> None:
    mine = Seen(1, {"integer"})
    heard("bars", {"lots": mine})
    heard("bars", {"lots": Seen(1, {"text"})})
    store()
    assert mine == Seen(1, {"integer"})
