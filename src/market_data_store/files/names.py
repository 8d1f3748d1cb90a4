"""Which column of a file is which field, by its name: without regard to case, spaces and punctuation.

The names are those of exchanges, vendors and libraries. The first of a field's names that a file has wins, if the
column's cells are such as the field takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from market_data_store.datasets import Dataset
from market_data_store.wire.fields import fields_of

#: `1. open`, as Alpha Vantage numbers its names.
_NUMBERED = re.compile(r"\d+\. *(?=\D)")

_TIMES = (
    "ts timestamp timestamputc datetimeutc utcdatetime datetime utctime gmttime tsevent windowstart opentime "
    "starttime openat startsat timestampms tsms unixtimestamp unixtime unix epoch epochtime tsutc quoteunixtime "
    "datetimegmt timeutc timegmt eventtime tradetime transacttime transactiontime exectime "
    "executedat createdat time "
    "t date tradedate tradingdate pricedate quotedate businessdate bizdate timestampdate "
    "localtime datum fecha data 日付 日時 日期 时间"
)
_BARS = {
    "open": (
        "open o openprice openingprice priceopen opening openbid bidopen eröffnung erster apertura "
        "ouverture abertura 始値 开盘 开盘价 开盘价元"
    ),
    "high": (
        "high h hi highprice highestprice pricehigh maxprice dayhigh bidhigh hoch máximo maximo "
        "haut plushaut máxima 高値 最高 最高价"
    ),
    "low": (
        "low l lo lowprice lowestprice pricelow minprice daylow bidlow tief mínimo minimo bas "
        "plusbas mínima 安値 最低 最低价"
    ),
    "close": (
        "close c closeprice closingprice priceclose bidclose closelast schluss schlusskurs cierre "
        "clôture cloture fechamento 終値 收盘 收盘价"
    ),
    "volume": (
        "volume v vol volumebase basevolume volumebtc volumeeth tradedvolume totalvolume sharevolume totalshares "
        "ttltrdqnty totaltradedquantity totaltradedqty tottrdqty tradedqty qty quantity size amount "
        "volumen stück 出来高 成交量 "
        "tickvolume tickvol realvolume"
    ),
    "vwap": "vwap vw weightedaverage weightedaverageprice volumeweightedaverageprice avgprice averageprice 均价",
    "trade_count": (
        "tradecount tradescount n transactions numberoftrades numtrades nooftrades notrades nbrtrades trades "
        "tradesdone totaltrades count barcount 成交笔数"
    ),
}
_TRADES = {
    "price": "price p px tradeprice lastprice execprice executionprice rate last close 価格 成交价",
    "size": "size s sz qty quantity tradesize tradeqty lastsize lastqty amount volume vol v basevolume 成交量",
    "bid": "bid bidprice bestbid bidpx",
    "ask": "ask askprice bestask askpx offer offerprice",
    "trade_id": "tradeid id tid aggtradeid aggregatetradeid aggregateid execid executionid transactionid trdmatchid",
    "seq": "seq sequence sequencenumber seqnum seqno",
    "side": "side takerside aggressorside takersidetype aggressor",
    "venue": "venue exchange market ex exchangeid",
    "conditions": "conditions conditioncodes saleconditions cond",
    "received_at": "receivedat receipttimestamp receivetimestamp localtimestamp tsrecv",
}
_QUOTES = {
    "bid": "bid bidprice bestbid bidpx bp bidpx00 bestbidprice b",
    "ask": "ask askprice bestask askpx ap offer offerprice askpx00 bestaskprice a",
    "last": "last lastprice price",
    "bid_size": "bidsize bidqty bidamount bidvolume bestbidsize bestbidqty bidsz bs bidsz00",
    "ask_size": "asksize askqty askamount askvolume bestasksize bestaskqty asksz as asksz00 offersize",
    "volume": "volume vol",
    "seq": "seq sequence sequencenumber seqnum seqno",
    "venue": "venue exchange market ex",
    "received_at": "receivedat receipttimestamp receivetimestamp localtimestamp tsrecv",
}
_OPTIONS = {
    "expiry": "expiry expiration expirationdate expirydate expiredate expdate expdt exdate expir maturity",
    "strike": "strike strikeprice strk exerciseprice",
    "option_type": "optiontype right type putcall callput callputflag cp cpflag optionright kind",
    "bid": "bid bidprice bestbid",
    "ask": "ask askprice bestask offer",
    "last": "last lastprice lasttradedprice price",
    "volume": "volume vol",
    "open_interest": "openinterest oi openint",
    "implied_volatility": "impliedvolatility iv impliedvol impvol markiv midiv",
    "delta": "delta",
    "gamma": "gamma",
    "theta": "theta",
    "vega": "vega",
    "spot": "spot underlyingprice underlyinglast underlying underlyingmidprice spotprice",
}
_FUNDAMENTALS = {
    "ts": "ts asof timestamp date fiscaldateending reportdate reporteddate perioddate periodending period datadate",
    "total_assets": "totalassets assets",
    "total_liabilities": "totalliabilities totalliab liabilities",
    "net_income": "netincome netincomeloss",
    "eps": "eps reportedeps epsdiluted dilutedeps",
}
_NEWS = {
    "ts": "ts publishedat timestamp published publishdate pubdate datetime timepublished date time createdat",
    "id": "id newsid articleid uuid guid",
    "title": "title headline",
    "symbol": "symbol ticker",
    "url": "url link articleurl",
    "sentiment_score": "sentimentscore sentiment overallsentimentscore",
}
_SIGNALS = {
    "name": "name signal signalname indicator factor",
    "value": "value val",
    "score": "score",
}
_INSTRUMENT = {
    "provider": "provider vendor source",
    "symbol": (
        "symbol ticker sym instrument instrumentname instrumentid tradingsymbol pair currencypair coin stockcode "
        "code security securityid s 代码 股票代码"
    ),
}
_OF_DATASET: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "bars": {**_INSTRUMENT, "interval": "interval timeframe resolution", "ts": _TIMES, **_BARS},
        "ticks": {**_INSTRUMENT, "ts": _TIMES, **_TRADES},
        "quotes": {**_INSTRUMENT, "ts": _TIMES, **_QUOTES},
        "options": {**_INSTRUMENT, "ts": _TIMES, **_OPTIONS},
        "fundamentals": {**_INSTRUMENT, **_FUNDAMENTALS},
        "news": {"provider": _INSTRUMENT["provider"], **_NEWS},
        "signals": {**_INSTRUMENT, "ts": _TIMES, **_SIGNALS},
    }
)
#: Any of them may be the close of a bar where no column has that name; two of them are asked about.
CLOSE_OR = ("last", "lastprice", "settle", "settlement", "settlementprice", "settleprice", "price", "mid", "value")
#: The date and the time of day in two columns.
DATES = ("date", "tradedate", "tradingdate", "day", "dt", "yyyymmdd", "ymd")
CLOCKS = ("time", "timeofday", "clock", "hour", "hms", "hhmmss", "hhmm", "tod", "tradetime")


def plain(name: str) -> str:
    """Return a name without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", _NUMBERED.sub("", name.strip())).lower()


def is_export(names: Sequence[str]) -> bool:
    """Return whether a file with these columns is one of the store's own exports, whose cells are what was stored."""
    return "metadata" in names


def names_for(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return for each field the plain names under which a file may have it, the best first."""
    known = _OF_DATASET.get(dataset.name, {})
    found = {}
    for f in fields_of(dataset):
        own = [plain(name) for name in f.names]
        listed = known.get(f.name, "").split()
        found[f.name] = tuple(dict.fromkeys(listed + own if listed else own))
    return found
