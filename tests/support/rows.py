"""Rows that are complete, and what becomes of them when they are decoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Column

from market_data_store.datasets import DATASETS, Rule
from market_data_store.wire.moments import microseconds
from support.decoding import DecodedRows, decode_rows

Row = dict[str, Any]
#: The two ways by which a message's rows come: as JSON text, and as objects.
Send = Callable[[list[Any]], bytes | list[Any]]

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
NOW = microseconds(datetime(2024, 1, 2, 14, 30, tzinfo=UTC))

BAR: Row = {
    "provider": "ibkr",
    "symbol": "aapl",
    "interval": "1m",
    "ts": "2024-01-02T14:30:00Z",
    "open": 1.0,
    "high": 2.0,
    "low": 0.5,
    "close": 1.5,
}
TICK: Row = {"provider": "ibkr", "symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "price": 1.5}
OPTION: Row = {
    "provider": "ibkr",
    "symbol": "AAPL",
    "ts": "2024-01-02T14:30:00Z",
    "expiry": "2024-01-19",
    "strike": 190,
    "option_type": "C",
}
SIGNAL: Row = {"provider": "ibkr", "symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "name": "momentum"}
NEWS: Row = {"provider": "ibkr", "ts": "2024-01-02T14:30:00Z", "title": "Up"}
QUOTE: Row = {"provider": "ibkr", "symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "bid": 1.0, "ask": 2.0}
FUNDAMENTAL: Row = {"provider": "ibkr", "symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "eps": 1.0}
COMPLETE = {
    "bars": BAR,
    "ticks": TICK,
    "quotes": QUOTE,
    "options": OPTION,
    "fundamentals": FUNDAMENTAL,
    "news": NEWS,
    "signals": SIGNAL,
}


def as_text(given_rows: list[Any]) -> bytes:
    return json.dumps(given_rows).encode()


def as_objects(given_rows: list[Any]) -> list[Any]:
    return given_rows


both_ways = pytest.mark.parametrize("send", [as_text, as_objects])


def decode(name: str, given_rows: bytes | list[Any], /, **defaults: Any) -> DecodedRows:
    return decode_rows(DATASETS[name], given_rows, defaults, NOW)


def stored(decoded: DecodedRows) -> list[Row]:
    """The valid rows as dicts of what goes to Postgres."""
    columns = [str(c.name) for c in decoded.dataset.columns]
    return [dict(zip(columns, values, strict=True)) for values in zip(*decoded.columns, strict=True)]


def only(decoded: DecodedRows) -> Row:
    assert decoded.rejects == []
    (row,) = stored(decoded)
    return row


def reason(name: str, row: Any, send: Send = as_text) -> str:
    """Of a message whose middle row is this one: the reason for which it, and it alone, is rejected."""
    good = COMPLETE[name]
    decoded = decode(name, send([good, row, good]))
    (reject,) = decoded.rejects
    assert reject.position == 1
    assert list(decoded.positions) == [0, 2]
    assert decoded.sent == 3
    return reject.reason


def rule(column: Column[Any]) -> Rule:
    found = column.info["rule"]
    assert isinstance(found, Rule)
    return found


AWARE = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)


def refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")
