"""The declarations that come with the package take what feeds send, and lose nothing of it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from support.decoding import decode_rows

from market_data_store.config.declarations import declaration_in, shipped
from market_data_store.datasets import DATASETS as REGISTRY
from market_data_store.datasets import Dataset
from market_data_store.datasets.declared import declared
from market_data_store.wire.fields import fields_of

DATASETS: dict[str, Dataset] = dict(declared([declaration_in(name) for name in shipped()]))
AT = "2020-06-30T00:00:00.123456Z"

#: By dataset, messages as their feeds document them, with the fields that have columns.
MESSAGES: list[tuple[str, dict[str, Any], set[str]]] = [
    (  # Tardis, trade
        "trades",
        {
            **{"type": "trade", "symbol": "XBTUSD", "exchange": "bitmex", "id": "282a0445-0e3a-abeb-f403-11003204ea1b"},
            **{"price": 7996, "amount": 50, "side": "sell", "timestamp": AT, "localTimestamp": AT},
        },
        {"symbol", "venue", "price", "amount", "side", "ts", "received_at", "seq"},
    ),
    (  # cryptofeed, Trade.to_dict
        "trades",
        {
            **{"exchange": "COINBASE", "symbol": "BTC-USD", "side": "buy", "amount": "0.00123456", "price": "9136.53"},
            **{"id": "94764382", "type": None, "timestamp": 1593475200.123, "receipt_timestamp": 1593475200.2},
        },
        {"symbol", "venue", "price", "amount", "side", "ts", "received_at", "seq"},
    ),
    (  # Hyperliquid, WsTrade
        "trades",
        {
            **{
                "coin": "BTC",
                "side": "A",
                "px": "94102.0",
                "sz": "0.00012",
                "time": 1736193600123,
                "tid": 118906512037719,
            },
            **{"hash": "0xab", "users": ["0x1", "0x2"]},
        },
        {"symbol", "price", "amount", "side", "ts", "seq"},
    ),
    (  # Tardis, book_snapshot_2_50ms
        "book_snapshots",
        {
            **{"type": "book_snapshot", "symbol": "XBTUSD", "exchange": "bitmex", "name": "book_snapshot_2_50ms"},
            **{"depth": 2, "interval": 50, "bids": [{"price": 7633.5, "amount": 1906067}]},
            **{"asks": [{"price": 7634, "amount": 1467849}], "timestamp": AT, "localTimestamp": AT},
        },
        {"symbol", "venue", "depth", "bids", "asks", "ts", "received_at", "seq"},
    ),
    (  # cryptofeed, OrderBook.to_dict
        "book_snapshots",
        {
            **{"exchange": "COINBASE", "symbol": "BTC-USD", "book": {"bid": {"9136.5": "1.2"}, "ask": {"9137": "3"}}},
            **{"delta": None, "timestamp": AT, "receipt_timestamp": 1593475200.2, "sequence_number": 7},
        },
        {"symbol", "venue", "book", "ts", "received_at", "seq"},
    ),
    (  # Arrays of a depth
        "book_snapshots",
        {
            **{"symbol": "BTC-USD", "ts": AT, "depth": 2, "bid_prices": [2.0, 1.0], "bid_sizes": [1.0, 5.0]},
            **{"ask_prices": [3.0, 4.0], "ask_sizes": [2.5, 0.1]},
        },
        {"symbol", "ts", "depth", "bid_prices", "bid_sizes", "ask_prices", "ask_sizes", "seq"},
    ),
    (  # Tardis, book_change
        "book_deltas",
        {
            **{"type": "book_change", "symbol": "XBTUSD", "exchange": "bitmex", "isSnapshot": False, "bids": []},
            **{"asks": [{"price": 7985, "amount": 283318}], "timestamp": AT, "localTimestamp": AT},
        },
        {"symbol", "venue", "is_snapshot", "bids", "asks", "ts", "received_at", "seq"},
    ),
    (  # Tardis, derivative_ticker
        "funding",
        {
            **{"type": "derivative_ticker", "symbol": "BTC-PERPETUAL", "exchange": "deribit", "lastPrice": 7987.5},
            **{"openInterest": 84129491, "fundingRate": -0.00001568, "indexPrice": 7989.28, "markPrice": 7987.56},
            **{"timestamp": AT, "localTimestamp": AT},
        },
        {"symbol", "venue", "last_price", "open_interest", "rate", "index_price", "mark_price", "ts", "received_at"},
    ),
    (  # cryptofeed, Funding.to_dict
        "funding",
        {
            **{"exchange": "BITMEX", "symbol": "BTC-USD-PERP", "mark_price": None, "rate": "0.0001"},
            **{"next_funding_time": 1593504000.0, "predicted_rate": "0.0002", "timestamp": AT, "receipt_timestamp": AT},
        },
        {"symbol", "venue", "rate", "funding_at", "predicted_rate", "ts", "received_at"},
    ),
    (
        "open_interest",
        {"exchange": "OKX", "symbol": "BTC-USDT", "open_interest": "12.5", "timestamp": AT, "receipt_timestamp": AT},
        {"symbol", "venue", "open_interest", "ts", "received_at"},
    ),
    (  # Tardis, liquidations
        "liquidations",
        {
            **{"symbol": "XBTUSD", "exchange": "bitmex", "id": "a-b", "side": "buy", "price": 7996, "amount": 50},
            **{"timestamp": AT, "localTimestamp": AT},
        },
        {"symbol", "venue", "side", "price", "amount", "ts", "received_at", "seq"},
    ),
    (
        "splits",
        {"ticker": "AAPL", "execution_date": "2020-08-31", "split_from": 1, "split_to": 4},
        {"symbol", "ts", "denominator", "numerator"},
    ),
    (
        "dividends",
        {
            **{"ticker": "AAPL", "ex_dividend_date": "2021-11-05", "cash_amount": 0.22, "dividend_type": "CD"},
            **{"declaration_date": "2021-10-28", "record_date": "2021-11-08", "pay_date": "2021-11-11", "frequency": 4},
        },
        {"symbol", "ts", "amount", "kind", "announced_on", "recorded_on", "paid_on", "frequency"},
    ),
    (  # Tardis, an instrument
        "instruments",
        {
            **{"id": "XBTUSD", "symbol": "XBTUSD", "exchange": "bitmex", "baseCurrency": "BTC", "quoteCurrency": "USD"},
            **{"type": "perpetual", "availableSince": "2019-03-30T00:00:00.000Z", "priceIncrement": 0.5},
        },
        {"instrument_id", "symbol", "venue", "base", "quote", "type", "ts", "tick_size"},
    ),
]


def values(dataset: Dataset, row: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a row."""
    found = decode_rows(dataset, json.dumps([row]).encode(), {"provider": "p"}, 0)
    assert not found.rejects, found.rejects
    return {f.name: column[0] for f, column in zip(fields_of(dataset), found.columns, strict=True)}


@pytest.mark.parametrize(("name", "row", "columns"), MESSAGES)
def test_a_message_of_a_feed_is_stored_whole(name: str, row: dict[str, Any], columns: set[str]) -> None:
    dataset = DATASETS[name]
    stored = values(dataset, row)
    assert {field for field, value in stored.items() if value is not None} - {"provider", "metadata"} == columns
    kept = json.loads(stored["metadata"] or "{}")
    known = {alias for f in fields_of(dataset) for alias in f.names}
    others = {field: value for field, value in row.items() if value is not None and field not in known}
    assert {field: kept.get(field) for field in others} == others
    if isinstance(row.get("id"), str) and not row["id"].isdigit() and "seq" in stored:
        assert kept["id"] == row["id"]


def test_prices_lose_no_digit() -> None:
    price = "12345678901234567890.123456789012345678"
    row = {"symbol": "x", "ts": AT, "price": price, "amount": 0.1}
    stored = values(DATASETS["trades"], row)
    assert stored["price"] == Decimal(price)
    assert stored["amount"] == Decimal("0.1")


def test_two_books_of_one_moment_are_two() -> None:
    row = {"symbol": "x", "ts": AT, "bids": [{"price": 1.5, "amount": 2}]}
    other = {**row, "bids": [{"price": 1.5, "amount": 3}]}
    book = DATASETS["book_snapshots"]
    assert values(book, row)["seq"] == values(book, row)["seq"] != values(book, other)["seq"]


def test_none_is_on_by_itself() -> None:
    assert not DATASETS.keys() & set(REGISTRY)
