"""Messages as feeds and libraries document them, from send_task to `mds export`: every field comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK
from support.processes import mds
from support.workers import Worker

Row = dict[str, Any]


class Case(NamedTuple):
    """A row as sent, what the columns hold of it, and which fields are in its metadata."""

    dataset: str
    defaults: Row
    row: Row
    columns: Row
    kept: tuple[str, ...]


CASES = {
    # Its own example has two times that differ.
    "ccxt, trade": Case(
        "ticks",
        {"provider": "ccxt", "venue": "binance"},
        {
            "info": {"id": 12345, "flags": [1.5, None]},
            "id": "12345-67890:09876/54321",
            "timestamp": 1_502_962_946_216,
            "datetime": "2017-08-17 12:42:48.000",
            "symbol": "ETH/BTC",
            "order": "12345-67890:09876/54321",
            "type": "limit",
            "side": "buy",
            "takerOrMaker": "taker",
            "price": 0.06917684,
            "amount": 1.5,
            "cost": 0.10376526,
            "fee": {"cost": 0.0015, "currency": "ETH", "rate": 0.002},
        },
        {
            "symbol": "ETH/BTC",
            "ts": "2017-08-17T09:42:26.216+00:00",
            "price": 0.06917684,
            "trade_id": "12345-67890:09876/54321",
            "side": "buy",
            "venue": "binance",
        },
        ("info", "datetime", "order", "type", "takerOrMaker", "amount", "cost", "fee"),
    ),
    "Coinbase, match": Case(
        "ticks",
        {"provider": "coinbase", "symbol": "BTC-USD"},
        {
            "type": "match",
            "trade_id": 10,
            "sequence": 50,
            "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
            "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1",
            "time": "2014-11-07T08:19:27.028459Z",
            "product_id": "BTC-USD",
            "size": "5.23512",
            "price": "400.23",
            "side": "sell",
        },
        {
            "ts": "2014-11-07T08:19:27.028459+00:00",
            "seq": 50,
            "trade_id": "10",
            "size": 5.23512,
            "price": 400.23,
            "side": "sell",
        },
        ("type", "maker_order_id", "taker_order_id", "product_id"),
    ),
    "Coinbase, ticker": Case(
        "quotes",
        {"provider": "coinbase", "symbol": "ETH-USD"},
        {
            "type": "ticker",
            "sequence": 37_475_248_783,
            "product_id": "ETH-USD",
            "price": "1285.22",
            "volume_24h": "245532.79269678",
            "best_bid": "1285.04",
            "best_bid_size": "0.46688654",
            "best_ask": "1285.27",
            "side": "buy",
            "time": "2022-10-19T23:28:22.061769Z",
            "trade_id": 370_843_401,
            "last_size": "11.4396987",
        },
        {"ts": "2022-10-19T23:28:22.061769+00:00", "seq": 37_475_248_783},
        (
            *("type", "product_id", "price", "volume_24h", "best_bid", "best_bid_size", "best_ask", "side", "trade_id"),
            "last_size",
        ),
    ),
    "cryptofeed, trade": Case(
        "ticks",
        {"provider": "cryptofeed"},
        {
            "exchange": "COINBASE",
            "symbol": "BTC-USD",
            "side": "buy",
            "amount": 0.1,
            "price": 19_500.25,
            "id": "21854734",
            "type": None,
            "timestamp": 1_666_222_102.061769,
            "receipt_timestamp": 1_666_222_102.125,
        },
        {
            "venue": "COINBASE",
            "symbol": "BTC-USD",
            "side": "buy",
            "price": 19_500.25,
            "trade_id": "21854734",
            "ts": "2022-10-19T23:28:22.061769+00:00",
            "received_at": "2022-10-19T23:28:22.125+00:00",
        },
        ("amount",),
    ),
    "cryptofeed, L1 book": Case(
        "quotes",
        {"provider": "cryptofeed"},
        {
            "exchange": "FTX",
            "symbol": "BTC-USD",
            "bid_price": 19_500.0,
            "bid_size": 1.5,
            "ask_price": 19_500.5,
            "ask_size": 2,
            "timestamp": 1_666_222_102.5,
            "receipt_timestamp": 1_666_222_102.75,
        },
        {
            "venue": "FTX",
            "symbol": "BTC-USD",
            "bid": 19_500.0,
            "bid_size": 1.5,
            "ask": 19_500.5,
            "ask_size": 2,
            "ts": "2022-10-19T23:28:22.5+00:00",
            "received_at": "2022-10-19T23:28:22.75+00:00",
        },
        (),
    ),
    "cryptofeed, candle": Case(
        "bars",
        {"provider": "cryptofeed"},
        {
            "exchange": "BINANCE",
            "symbol": "BTC-USDT",
            "start": 1_666_222_080.0,
            "stop": 1_666_222_139.999,
            "interval": "1m",
            "trades": 142,
            "open": 19_500.0,
            "close": 19_501.0,
            "high": 19_502.0,
            "low": 19_499.0,
            "volume": 12.5,
            "closed": True,
            "timestamp": 1_666_222_140.0,
            "receipt_timestamp": 1_666_222_140.25,
        },
        {
            "symbol": "BTC-USDT",
            "interval": "1m",
            "open": 19_500.0,
            "close": 19_501.0,
            "high": 19_502.0,
            "low": 19_499.0,
            "volume": 12.5,
            "final": True,
            "ts": "2022-10-19T23:29:00+00:00",
        },
        ("exchange", "start", "stop", "trades", "receipt_timestamp"),
    ),
}


@on_redis
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_field_comes_back(
    case: Case, producer: Celery, worker: Worker, database: Connection, database_url: str, tmp_path: Path
) -> None:
    arguments = [case.dataset, [case.row]]
    result = producer.send_task(TASK, args=arguments, kwargs={"defaults": case.defaults}, queue=QUEUE)
    assert result.get(timeout=20)["written"] == 1
    exported = mds(tmp_path, "export", case.dataset, "-", DATABASE_URL=database_url)
    assert exported.returncode == 0, exported
    (row,) = [json.loads(line) for line in exported.stdout.splitlines()]
    assert {name: row[name] for name in case.columns} == case.columns
    assert (row["metadata"] or {}) == {name: case.row[name] for name in case.kept}
    # Every field that has a value is either a column's or in the metadata.
    sent = {name for name, value in case.row.items() if value is not None}
    assert len(sent) - len(case.kept) <= len(case.columns)


@on_redis
def test_the_same_message_again_changes_nothing(producer: Celery, worker: Worker, database: Connection) -> None:
    def sent(case: Case) -> Row:
        options = {"kwargs": {"defaults": case.defaults}, "queue": QUEUE}
        found: Row = producer.send_task(TASK, args=[case.dataset, [case.row]], **options).get(timeout=20)
        return found

    case = CASES["Coinbase, match"]
    assert sent(case)["written"] == 1
    assert sent(case)["unchanged"] == 1
