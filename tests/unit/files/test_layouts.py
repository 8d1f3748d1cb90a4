"""Each vendor's layout: a small file as the vendor writes it, and the rows that it becomes."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.files import Row, planned, stored

from market_data_store.errors import InvalidMessage
from market_data_store.files.layouts import known
from market_data_store.files.options import Undecided


@dataclass(frozen=True)
class Case:
    """A file, and what its first row becomes; the reader is given or recognised."""

    text: str
    dataset: str
    first: Row
    rows: int = 1
    #: The layout that must be recognised, or given.
    recognised: str | None = None
    given: dict[str, Any] = field(default_factory=dict)
    name: str = "file.csv"
    metadata: Row = field(default_factory=dict)


def ohlcv(ts: str, *values: float, **more: Any) -> Row:
    return {"ts": ts, **dict(zip(("open", "high", "low", "close", "volume"), values, strict=False)), **more}


KLINE = "0.1,0.4,0.05,0.3,100.5,{},30.1,7,50.2,15.0,0"
BINANCE = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
DAY = "2024-01-02T00:00:00"
CASES = {
    "binance klines without header": Case(
        f"1704153600000,{KLINE.format(1704153659999)}\n1704153660000,{KLINE.format(1704153719999)}\n",
        "bars",
        ohlcv(DAY, 0.1, 0.4, 0.05, 0.3, 100.5, trade_count=7),
        2,
        "binance-klines",
    ),
    "binance klines in microseconds": Case(
        f"1704153600000000,{KLINE.format(1704153659999999)}\n",
        "bars",
        ohlcv(DAY, 0.1, 0.4, 0.05, 0.3, 100.5, trade_count=7),
        1,
        "binance-klines",
    ),
    "binance futures klines": Case(
        f"{BINANCE}\n1704153600000,{KLINE.format(1704153659999)}\n",
        "bars",
        ohlcv(DAY, 0.1, 0.4, 0.05, 0.3, 100.5, trade_count=7),
        1,
        "binance-klines",
        metadata={"quote_volume": "30.1", "close_time": "1704153659999"},
    ),
    "binance trades": Case(
        "28457,42000.1,0.5,21000.05,1704153600123,True,True\n28458,42000.2,0.1,4200.02,1704153600124,False,True\n",
        "ticks",
        {"ts": f"{DAY}.123000", "price": 42000.1, "size": 0.5, "seq": 28457, "trade_id": "28457"},
        2,
        "binance-trades",
    ),
    "binance futures trades": Case(
        "id,price,qty,quote_qty,time,is_buyer_maker\n1,42000.1,0.5,21000.05,1704153600123,true\n",
        "ticks",
        {"ts": f"{DAY}.123000", "price": 42000.1, "size": 0.5, "seq": 1},
        1,
        "binance-trades",
    ),
    "binance futures trades without header": Case(
        "1,42000.1,0.5,21000.05,1704153600123,true\n",
        "ticks",
        {"ts": f"{DAY}.123000", "price": 42000.1, "size": 0.5, "seq": 1},
        1,
        "binance-futures-trades",
    ),
    "binance aggregated trades": Case(
        "26129,0.01633102,4.70443515,27781,27781,1704153600123,true,true\n",
        "ticks",
        {"ts": f"{DAY}.123000", "price": 0.01633102, "size": 4.70443515, "seq": 26129},
        1,
        "binance-agg-trades",
    ),
    "kraken ohlcvt": Case(
        "1704153600,42000.1,42100.0,41900.0,42050.5,12.5,80\n",
        "bars",
        ohlcv(DAY, 42000.1, 42100.0, 41900.0, 42050.5, 12.5, trade_count=80),
        given={"reader": "kraken-ohlcvt"},
    ),
    "kraken, from its api": Case(
        '{"error":[],"result":{"XXBTZUSD":[[1704153600,"2","5","1","3","2.5","7",4]],"last":1704153540}}',
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, vwap=2.5, trade_count=4),
        given={"reader": "kraken-ohlc-rest"},
        name="file.json",
    ),
    "kraken trades": Case(
        "1704153600,90.5,1.5\n1704153600,90.5,1.5\n",
        "ticks",
        {"ts": DAY, "price": 90.5, "size": 1.5},
        2,
        given={"reader": "kraken-trades"},
    ),
    "kraken trades with fractions": Case(
        "1704153600.1234,90.5,1.5\n",
        "ticks",
        {"ts": f"{DAY}.123400", "price": 90.5, "size": 1.5},
        given={"reader": "kraken-trades"},
    ),
    "coinbase candles": Case(
        "[[1704153600,41900,42100,42000.1,42050.5,12.5]]",
        "bars",
        ohlcv(DAY, 42000.1, 42100.0, 41900.0, 42050.5, 12.5),
        given={"reader": "coinbase-candles"},
        name="file.json",
    ),
    "coinbase trades": Case(
        json.dumps(
            [{"trade_id": 74, "side": "sell", "size": "0.01", "price": "10.0", "time": "2024-01-02T00:00:00.5Z"}],
        ),
        "ticks",
        {"ts": f"{DAY}.500000", "price": 10.0, "size": 0.01, "seq": 74, "side": "sell"},
        1,
        "coinbase-trades",
        name="file.json",
    ),
    "bitstamp ohlc": Case(
        json.dumps(
            {
                "data": {
                    "pair": "BTC/USD",
                    "ohlc": [
                        {"high": "5", "timestamp": "1704153600", "volume": "2", "low": "1", "close": "3", "open": "2"}
                    ],
                }
            }
        ),
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 2.0),
        name="file.json",
    ),
    "bitstamp transactions": Case(
        json.dumps([{"date": "1704153600", "tid": "31", "price": "10", "type": "0", "amount": "0.5"}]),
        "ticks",
        {"ts": DAY, "price": 10.0, "size": 0.5, "seq": 31},
        1,
        "bitstamp-transactions",
        name="file.json",
    ),
    "bitfinex candles": Case(
        "[[1704153600000,2,3,5,1,7.5]]",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.5),
        given={"reader": "bitfinex-candles"},
        name="file.json",
    ),
    "ccxt ohlcv": Case(
        "[[1704153600000,2,5,1,3,7.5],[1704153660000,3,3,3,3,0]]",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.5),
        2,
        given={"reader": "ccxt-ohlcv"},
        name="file.json",
    ),
    "ccxt ohlcv in a frame": Case(
        ",timestamp,open,high,low,close,volume\n0,1704153600000,2,5,1,3,7.5\n1,1704153660000,3,3,3,3,0\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.5),
        2,
    ),
    "ccxt trades": Case(
        json.dumps(
            {
                "id": "a1",
                "timestamp": 1704153600123,
                "datetime": "2024-01-02T00:00:00.123Z",
                "symbol": "BTC/USDT",
                "side": "buy",
                "price": 10.5,
                "amount": 0.25,
                "fee": None,
                "info": {"m": [1]},
            }
        )
        + "\n",
        "ticks",
        {"ts": f"{DAY}.123000", "price": 10.5, "size": 0.25, "trade_id": "a1", "symbol": "BTC/USDT"},
        1,
        "ccxt-trades",
        given={"symbol": None},
        name="file.ndjson",
        metadata={"info": {"m": [1]}},
    ),
    "cryptofeed trades": Case(
        "exchange,symbol,side,amount,price,id,timestamp,receipt_timestamp\n"
        "COINBASE,BTC-USD,buy,0.1,10.5,77,1704153600.123456,1704153600.5\n",
        "ticks",
        {
            "ts": f"{DAY}.123456",
            "received_at": f"{DAY}.500000",
            "price": 10.5,
            "size": 0.1,
            "seq": 77,
            "venue": "COINBASE",
            "symbol": "BTC-USD",
        },
        1,
        "cryptofeed-trades",
        given={"symbol": None},
    ),
    "cryptofeed candles": Case(
        "exchange,symbol,start,stop,interval,trades,open,close,high,low,volume,closed,timestamp,receipt_timestamp\n"
        "BINANCE,BTC-USD,1704153600.0,1704153660.0,1m,9,2,3,5,1,7,True,1704153660.1,1704153660.2\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, trade_count=9, final=True),
        1,
        "cryptofeed-candles",
        given={"symbol": None, "interval": None},
    ),
    "yahoo": Case(
        "Date,Open,High,Low,Close,Adj Close,Volume\n2024-01-02,2,5,1,3,2.9,1000\n"
        "2024-01-03,null,null,null,null,null,null\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 1000.0),
        1,
        "yahoo",
        metadata={"Adj Close": "2.9"},
    ),
    "yfinance, several tickers": Case(
        "Price,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume\nTicker,A,B,A,B,A,B,A,B,A,B\nDate,,,,,,,,,,\n"
        "2024-01-02,3,30,5,50,1,10,2,20,7,70\n2024-01-03,4,,5,,1,,2,,7,\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, symbol="A"),
        3,
        given={"symbol": None},
    ),
    "yfinance, one ticker with a zone": Case(
        "Price,Close,High,Low,Open,Volume\nTicker,A,A,A,A,A\nDatetime,,,,,\n2024-01-02 09:30:00-05:00,3,5,1,2,7\n",
        "bars",
        ohlcv("2024-01-02T14:30:00", 2.0, 5.0, 1.0, 3.0, 7.0, symbol="A"),
        given={"symbol": None},
    ),
    "stooq": Case(
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        "AAPL.US,D,20240102,000000,2,5,1,3,7,0\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, symbol="AAPL.US"),
        1,
        "stooq",
        given={"symbol": None},
        name="aapl.us.txt",
    ),
    "histdata bars": Case(
        "20240101 190000;2;5;1;3;0\n20240101 190100;3;3;3;3;0\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 0.0),
        2,
        "histdata-bars",
    ),
    "histdata ticks": Case(
        "20240101 190000123,1.1,1.2,0\n20240101 190000623,1.1,1.3,0\n",
        "quotes",
        {"ts": f"{DAY}.123000", "bid": 1.1, "ask": 1.2},
        2,
        "histdata-ticks",
    ),
    "dukascopy": Case(
        "Gmt time,Open,High,Low,Close,Volume\n02.01.2024 00:00:00.000,2,5,1,3,7.5\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.5),
        1,
        "dukascopy",
    ),
    "dukascopy in local time": Case(
        "Local time,Open,High,Low,Close,Volume\n02.01.2024 02:00:00.000 GMT+0200,2,5,1,3,7.5\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.5),
        1,
        "dukascopy-local",
    ),
    "dukascopy ticks": Case(
        "Time (EET),Ask,Bid,AskVolume,BidVolume\n2024.01.02 02:00:00.250,1.2,1.1,3.5,4.5\n",
        "quotes",
        {"ts": f"{DAY}.250000", "bid": 1.1, "ask": 1.2, "bid_size": 4.5, "ask_size": 3.5},
        1,
        "dukascopy-ticks",
    ),
    "metatrader 4": Case(
        "2024.01.02,00:00,2,5,1,3,7\n2024.01.02,00:01,3,3,3,3,7\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0),
        2,
        "mt4",
    ),
    "metatrader 5": Case(
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        "2024.01.02\t00:00:00\t2\t5\t1\t3\t7\t0\t9\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0),
        1,
        "mt5",
    ),
    "metatrader 5, days": Case(
        "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n2024.01.02\t2\t5\t1\t3\t7\t0\t9\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0),
        1,
        "mt5-daily",
    ),
    "metatrader 5, ticks": Case(
        "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n2024.01.02\t00:00:00.123\t1.1\t1.2\t\t\t6\n",
        "quotes",
        {"ts": f"{DAY}.123000", "bid": 1.1, "ask": 1.2},
        1,
        "mt5-ticks",
    ),
    "metatrader 5, python": Case(
        ",time,open,high,low,close,tick_volume,spread,real_volume\n0,1704153600,2,5,1,3,7,9,0\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0),
        1,
        "mt5-rates",
        metadata={"spread": "9", "real_volume": "0"},
    ),
    "interactive brokers": Case(
        "date,open,high,low,close,volume,average,barCount\n20240102  09:30:00 US/Eastern,2,5,1,3,7,2.5,4\n",
        "bars",
        ohlcv("2024-01-02T14:30:00", 2.0, 5.0, 1.0, 3.0, 7.0, vwap=2.5, trade_count=4),
        1,
        "ib-bars",
    ),
    "alpaca bars": Case(
        json.dumps(
            {
                "bars": [{"t": "2024-01-02T00:00:00Z", "o": 2, "h": 5, "l": 1, "c": 3, "v": 7, "n": 4, "vw": 2.5}],
                "symbol": "X",
                "next_page_token": None,
            }
        ),
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, vwap=2.5, trade_count=4),
        name="file.json",
    ),
    "alpaca trades": Case(
        json.dumps({"t": "2024-01-02T00:00:00.123456789Z", "x": "V", "p": 2.5, "s": 7, "c": ["@"], "i": 52, "z": "C"}),
        "ticks",
        {"ts": f"{DAY}.123456", "nanos": 789, "price": 2.5, "size": 7.0, "venue": "V", "conditions": ["@"]},
        1,
        "alpaca-trades",
        name="file.ndjson",
    ),
    "alpaca quotes": Case(
        json.dumps(
            {"t": "2024-01-02T00:00:00Z", "ax": "V", "ap": 2.5, "as": 3, "bx": "V", "bp": 2.4, "bs": 4, "c": ["R"]}
        ),
        "quotes",
        {"ts": DAY, "bid": 2.4, "ask": 2.5, "bid_size": 4.0, "ask_size": 3.0},
        1,
        "alpaca-quotes",
        name="file.ndjson",
    ),
    "polygon aggregates": Case(
        json.dumps(
            {"results": [{"v": 7, "vw": 2.5, "o": 2, "c": 3, "h": 5, "l": 1, "t": 1704153600000, "n": 4}], "count": 1}
        ),
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, vwap=2.5, trade_count=4),
        name="file.json",
    ),
    "polygon flat files": Case(
        "ticker,volume,open,close,high,low,window_start,transactions\nBRK.A,7,2,3,5,1,1704153600000000000,4\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, trade_count=4, symbol="BRK.A"),
        1,
        "polygon-flat-aggs",
        given={"symbol": None},
    ),
    "polygon trades": Case(
        "ticker,conditions,correction,exchange,id,participant_timestamp,price,sequence_number,sip_timestamp,size\n"
        'A,"12,37",0,11,52,1704153600000000001,2.5,9,1704153600000000789,7\n'
        "A,,0,12,52,1704153600000000001,2.6,9,1704153600000000789,7\n",
        "ticks",
        {"ts": DAY, "nanos": 789, "price": 2.5, "size": 7.0, "trade_id": "52", "venue": "11"},
        2,
        "polygon-trades",
        given={"symbol": None},
    ),
    "polygon quotes": Case(
        "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,participant_timestamp,"
        "sequence_number,sip_timestamp\nA,11,2.5,3,12,2.4,4,1704153600000000001,9,1704153600000000789\n",
        "quotes",
        {"ts": DAY, "nanos": 789, "bid": 2.4, "ask": 2.5, "seq": 9},
        1,
        "polygon-quotes",
        given={"symbol": None},
    ),
    "databento ohlcv, fixed point": Case(
        "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume\n"
        "1704153600000000000,32,1,5,4500000000000,4510250000000,4490000000000,4505000000000,7\n",
        "bars",
        ohlcv(DAY, 4500.0, 4510.25, 4490.0, 4505.0, 7.0),
        1,
        "databento-ohlcv",
    ),
    "databento ohlcv, pretty": Case(
        "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol\n"
        "2024-01-02T00:00:00.000000000Z,32,1,5,4500.000000000,4510.250000000,4490.000000000,4505.000000000,7,ESH4\n",
        "bars",
        ohlcv(DAY, 4500.0, 4510.25, 4490.0, 4505.0, 7.0, symbol="ESH4"),
        1,
        "databento-ohlcv",
        given={"symbol": None},
    ),
    "databento trades": Case(
        "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags,ts_in_delta,sequence\n"
        "1704153600000001000,1704153600000000789,0,1,5,T,B,0,4500250000000,2,0,100,77\n",
        "ticks",
        {"ts": DAY, "nanos": 789, "price": 4500.25, "size": 2.0, "seq": 77, "side": "B"},
        1,
        "databento-trades",
    ),
    "databento top of book": Case(
        "ts_recv,ts_event,publisher_id,bid_px_00,ask_px_00,bid_sz_00,ask_sz_00,sequence\n"
        "1704153600000001000,1704153600000000000,1,4500250000000,4500500000000,3,4,77\n",
        "quotes",
        {"ts": DAY, "bid": 4500.25, "ask": 4500.5, "bid_size": 3.0, "ask_size": 4.0, "seq": 77},
        1,
        "databento-mbp-1",
    ),
    "tardis trades": Case(
        "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
        "bitmex,XBTUSD,1704153600145000,1704153600307160,ccc3c1fa,sell,8531.5,2152\n"
        "bitmex,XBTUSD,1704153600145000,1704153600307160,b46c84da,sell,8531.5,2152\n",
        "ticks",
        {"ts": f"{DAY}.145000", "received_at": f"{DAY}.307160", "price": 8531.5, "size": 2152.0, "side": "sell"},
        2,
        "tardis-trades",
        given={"symbol": None},
        metadata={"exchange": "bitmex", "local_timestamp": "1704153600307160", "side": "sell"},
    ),
    "tardis quotes": Case(
        "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"
        "bitmex,XBTUSD,1704153600145000,1704153600307160,3,8532,8531.5,4\n",
        "quotes",
        {"ts": f"{DAY}.145000", "bid": 8531.5, "ask": 8532.0, "bid_size": 4.0, "ask_size": 3.0},
        1,
        "tardis-quotes",
        given={"symbol": None},
    ),
    "tardis options": Case(
        "exchange,symbol,timestamp,local_timestamp,type,strike_price,expiration,open_interest,last_price,bid_price,"
        "mark_iv,underlying_price,delta\n"
        "deribit,B-P,1704153600145000,1704153600307160,put,9875,1704412800000000,12,0.0295,0.0205,62.89,9756.36,-0.6\n",
        "options",
        {
            "ts": f"{DAY}.145000",
            "expiry": "2024-01-05",
            "strike": 9875.0,
            "option_type": "P",
            "last": 0.0295,
            "bid": 0.0205,
            "implied_volatility": 62.89,
            "open_interest": 12,
            "spot": 9756.36,
        },
        1,
        "tardis-options",
        given={"symbol": None},
    ),
    "kaiko trades": Case(
        "id,exchange,symbol,date,price,amount,sell\n4311670,qn,btcaud,1704153600000,847.16235,3,true\n",
        "ticks",
        {"ts": DAY, "price": 847.16235, "size": 3.0, "seq": 4311670, "symbol": "btcaud"},
        1,
        "kaiko-trades",
        given={"symbol": None},
        metadata={"sell": "true", "exchange": "qn"},
    ),
    "kaiko ohlcv": Case(
        "timestamp,open,high,low,close,volume,price,count\n1704153600000,2,5,1,3,7,2.5,4\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, vwap=2.5, trade_count=4),
        1,
        "kaiko-ohlcv",
    ),
    "alpha vantage": Case(
        json.dumps(
            {
                "Meta Data": {"2. Symbol": "IBM", "6. Time Zone": "US/Eastern"},
                "Time Series (5min)": {
                    "2024-01-02 09:35:00": {
                        "1. open": "2",
                        "2. high": "5",
                        "3. low": "1",
                        "4. close": "3",
                        "5. volume": "7",
                    },
                    "2024-01-02 09:30:00": {
                        "1. open": "2",
                        "2. high": "5",
                        "3. low": "1",
                        "4. close": "4",
                        "5. volume": "7",
                    },
                },
            }
        ),
        "bars",
        ohlcv("2024-01-02T14:35:00", 2.0, 5.0, 1.0, 3.0, 7.0),
        2,
        "alphavantage",
        name="file.json",
    ),
    "alpha vantage as csv": Case(
        "timestamp,open,high,low,close,volume\n2024-01-02 09:30:00,2,5,1,3,7\n",
        "bars",
        ohlcv("2024-01-02T14:30:00", 2.0, 5.0, 1.0, 3.0, 7.0),
        given={"reader": "alphavantage-csv"},
    ),
    "tiingo": Case(
        "date,close,high,low,open,volume,adjClose,adjHigh,adjLow,adjOpen,adjVolume,divCash,splitFactor\n"
        "2024-01-02,3,5,1,2,7,1.5,2.5,0.5,1,14,0.0,1.0\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0),
        1,
        "tiingo",
        metadata={"adjClose": "1.5", "divCash": "0.0"},
    ),
    "finnhub": Case(
        json.dumps(
            {"c": [3, 4], "h": [5, 6], "l": [1, 2], "o": [2, 3], "t": [1704153600, 1704153660], "v": [7, 8], "s": "ok"}
        ),
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0),
        2,
        given={"reader": "finnhub"},
        name="file.json",
    ),
    "oanda": Case(
        json.dumps(
            {
                "instrument": "EUR_USD",
                "candles": [
                    {
                        "complete": True,
                        "volume": 7,
                        "time": "2024-01-02T00:00:00.000000000Z",
                        "mid": {"o": "2", "h": "5", "l": "1", "c": "3"},
                    }
                ],
            }
        ),
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, final=True),
        1,
        "oanda-candles",
        name="file.json",
    ),
    "oanda, bid": Case(
        json.dumps({"time": "1704153600.000000000", "volume": 7, "bid": {"o": "2", "h": "5", "l": "1", "c": "3"}}),
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0),
        given={"reader": "oanda-candles-bid"},
        name="file.ndjson",
    ),
    "lean, days": Case(
        "20240102 00:00,25000,50000,10000,30000,7\n",
        "bars",
        ohlcv("2024-01-02T05:00:00", 2.5, 5.0, 1.0, 3.0, 7.0),
        given={"reader": "lean-daily"},
    ),
    "lean, minutes": Case(
        "34200000,25000,50000,10000,30000,7\n34260000,25000,50000,10000,30000,7\n",
        "bars",
        ohlcv("2024-01-02T14:30:00", 2.5, 5.0, 1.0, 3.0, 7.0),
        2,
        given={"reader": "lean-minute"},
        name="20240102_trade.csv",
    ),
    "quandl": Case(
        "ticker,date,open,high,low,close,volume,ex-dividend,split_ratio,adj_open,adj_high,adj_low,adj_close,adj_volume\n"
        "A,2024-01-02,2,5,1,3,7,0.0,1.0,1,2.5,0.5,1.5,14\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, symbol="A"),
        1,
        "quandl-wiki",
        given={"symbol": None},
    ),
    "finam": Case(
        "<TICKER>;<PER>;<DATE>;<TIME>;<OPEN>;<HIGH>;<LOW>;<CLOSE>;<VOL>\nSBER;5;20240102;100500;2;5;1;3;7\n",
        "bars",
        ohlcv("2024-01-02T07:05:00", 2.0, 5.0, 1.0, 3.0, 7.0, symbol="SBER"),
        1,
        "finam",
        given={"symbol": None, "time_zone": "Europe/Moscow"},
    ),
    "cryptodatadownload": Case(
        "https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,close,Volume BTC,Volume USD\n"
        "1704153600000,2024-01-02 00:00:00,BTC/USD,2,5,1,3,7,21\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, symbol="BTC/USD"),
        1,
        "cryptodatadownload",
        given={"symbol": None},
        metadata={"Volume USD": "21", "date": "2024-01-02 00:00:00"},
    ),
    "investing.com": Case(
        '"Date","Price","Open","High","Low","Vol.","Change %"\n"01/16/2024","3","2","5","1","1.5M","-0.12%"\n'
        '"01/02/2024","1,003.5","1,002","1,005","1,001","","0.12%"\n',
        "bars",
        ohlcv("2024-01-16T00:00:00", 2.0, 5.0, 1.0, 3.0, 1_500_000.0),
        2,
        "investing",
        metadata={"Change %": "-0.12%"},
    ),
    "nasdaq": Case(
        'Date,Close/Last,Volume,Open,High,Low\n01/16/2024,$3.00,"7,000",$2.00,$5.00,$1.00\n',
        "bars",
        ohlcv("2024-01-16T00:00:00", 2.0, 5.0, 1.0, 3.0, 7_000.0),
        1,
        "nasdaq",
    ),
    "nse": Case(
        "SYMBOL, SERIES, DATE1, PREV_CLOSE, OPEN_PRICE, HIGH_PRICE, LOW_PRICE, LAST_PRICE, CLOSE_PRICE, AVG_PRICE, "
        "TTL_TRD_QNTY, TURNOVER_LACS, NO_OF_TRADES, DELIV_QTY, DELIV_PER\n"
        "A, EQ, 02-Jan-2024, 2.1, 2, 5, 1, 3.1, 3, 2.5, 7, 0.1, 4, -, -\n",
        "bars",
        ohlcv(DAY, 2.0, 5.0, 1.0, 3.0, 7.0, vwap=2.5, trade_count=4, symbol="A"),
        1,
        "nse-bhavcopy",
        given={"symbol": None},
        metadata={"SERIES": "EQ", "PREV_CLOSE": "2.1"},
    ),
    "hyperliquid": Case(
        json.dumps(
            {
                "coin": "BTC",
                "side": "A",
                "px": "10.5",
                "sz": "0.5",
                "time": 1704153600000,
                "tid": 3,
                "users": ["a", "b"],
            }
        ),
        "ticks",
        {"ts": DAY, "price": 10.5, "size": 0.5, "seq": 3, "symbol": "BTC"},
        1,
        "hyperliquid-trades",
        given={"symbol": None},
        name="file.ndjson",
        metadata={"users": ["a", "b"]},
    ),
    "optionsdx": Case(
        "[QUOTE_UNIXTIME], [EXPIRE_DATE], [UNDERLYING_LAST], [C_IV], [C_BID], [C_ASK], [C_LAST], [C_VOLUME], [STRIKE], "
        "[P_BID], [P_ASK], [P_LAST], [P_IV], [P_VOLUME]\n"
        "1704153600, 2024-01-05, 450.5, 0.4, 1.5, 1.6, 1.55, 3.000000, 310.0, 0.0, 0.01, 0.03, 0.5, \n",
        "options",
        {
            "ts": DAY,
            "expiry": "2024-01-05",
            "strike": 310.0,
            "option_type": "C",
            "bid": 1.5,
            "volume": 3,
            "spot": 450.5,
        },
        2,
        "optionsdx",
    ),
    "a chain with call and put in a row": Case(
        "Call_Last,Call_Bid,Call_Ask,Call_Vol,Call_OI,Strike,Put_Last,Put_Bid,Put_Ask,Put_Vol,Put_OI\n"
        '-,97.35,99.65,0,"66,572",180.00,0.02,0.01,0.01,0,847\n,,,,,,,,,,\n',
        "options",
        {"ts": DAY, "strike": 180.0, "option_type": "C", "bid": 97.35, "open_interest": 66_572},
        2,
        "chain-wide",
        given={"set": {"expiry": "2024-01-05", "ts": "2024-01-02T00:00:00Z"}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_vendors_file_becomes_its_rows(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    file = tmp_path / case.name
    file.write_text(case.text, encoding="utf-8")
    given = {"provider": "p", "symbol": "X", **({"interval": "1m"} if case.dataset == "bars" else {}), **case.given}
    plan = planned(file, case.dataset, **{option: value for option, value in given.items() if value is not None})
    if case.recognised is not None:
        assert plan.layout is not None
        assert plan.layout.name == case.recognised
    rows, reasons = stored(plan)
    assert len(rows) == case.rows, (rows, reasons)
    assert {name: rows[0].get(name) for name in case.first} == case.first
    metadata = json.loads(rows[0].get("metadata", "{}"))
    assert {name: metadata.get(name) for name in case.metadata} == case.metadata


def test_every_layout_has_a_file() -> None:
    tried = {case.recognised or case.given.get("reader") for case in CASES.values()}
    # The names of Alpaca's and Polygon's bars are the same, and known without a layout, as are Bitstamp's.
    assert known().keys() - tried == {"alpaca-bars", "polygon-aggs", "bitstamp-ohlc"}


@pytest.mark.parametrize("reader", ["alpaca-bars", "polygon-aggs"])
def test_a_reader_can_be_given_where_two_have_the_same_columns(reader: str, tmp_path: Path) -> None:
    file = tmp_path / "file.ndjson"
    file.write_text('{"t": 1704153600000, "o": 2, "h": 5, "l": 1, "c": 3, "v": 7, "n": 4, "vw": 2.5}\n')
    rows, _ = stored(planned(file, "bars", provider="p", symbol="X", interval="1m", reader=reader))
    assert (rows[0]["vwap"], rows[0]["trade_count"]) == (2.5, 4)


def test_bitstamps_records_are_found_by_its_reader(tmp_path: Path) -> None:
    case = CASES["bitstamp ohlc"]
    file = tmp_path / case.name
    file.write_text(case.text)
    plan = planned(file, "bars", provider="p", symbol="X", interval="1m", reader="bitstamp-ohlc")
    assert stored(plan)[0][0]["close"] == 3.0


def test_a_file_in_a_zip_names_its_day(tmp_path: Path) -> None:
    file = tmp_path / "trade.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("20240102_spy_minute_trade.csv", CASES["lean, minutes"].text)
    plan = planned(file, "bars", provider="p", symbol="X", interval="1m", reader="lean-minute")
    assert len(stored(plan)[0]) == 2


def test_a_day_that_stands_nowhere_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "trade.csv"
    file.write_text(CASES["lean, minutes"].text)
    with pytest.raises(Undecided, match="in the file's name"):
        planned(file, "bars", provider="p", symbol="X", interval="1m", reader="lean-minute")


def test_a_users_own_layout_is_read(tmp_path: Path) -> None:
    own, file = tmp_path / "own.toml", tmp_path / "file.csv"
    own.write_text(
        '[house]\ntitle = "Ours"\ndataset = "bars"\nneeds = ["Zeit", "Erster"]\nzone = "Europe/Berlin"\n'
        'map = { ts = "Zeit", open = "Erster", high = "Hoch", low = "Tief", close = "Letzter" }\n'
    )
    file.write_text("Zeit,Erster,Hoch,Tief,Letzter\n2024-01-02 01:00,2,5,1,3\n")
    plan = planned(file, "bars", provider="p", symbol="X", interval="1m", layouts=own)
    assert plan.layout is not None
    assert plan.layout.name == "house"
    (row,) = stored(plan)[0]
    assert (row["ts"], row["open"], row["close"]) == (DAY, 2.0, 3.0)


@pytest.mark.parametrize("text", ["[x]\ndataset = 'nothing'\n", "no toml", "[x]\ndataset = 'bars'\nwrong = 1\n"])
def test_a_wrong_file_of_layouts_is_refused(text: str, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(InvalidMessage, match="not a file of layouts"):
        known(own)
