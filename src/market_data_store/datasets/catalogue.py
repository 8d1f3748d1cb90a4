"""The built-in datasets: for each, its table, key, aliases and limits, in one place.

A new dataset needs one entry here and one migration; the decoder and the writer follow from the declaration.
Columns are listed in the order in which they are copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sqlalchemy import Column
from sqlalchemy.dialects.postgresql import DATE

from market_data_store.datasets.declaration import (
    Dataset,
    Rule,
    code_column,
    conditions_column,
    count_column,
    declare,
    final_column,
    metadata_column,
    nanos_column,
    number_column,
    provider_column,
    received_column,
    seq_column,
    symbol_column,
    text_column,
    ts_column,
    venue_column,
)

BUILT_IN: Mapping[str, Dataset] = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            declare(
                "bars",
                "bars_ohlcv",
                provider_column(),
                symbol_column(),
                text_column("interval", key=True, aliases=("timeframe", "resolution")),
                ts_column(),
                number_column("open", "open_price", nullable=False),
                number_column("high", "high_price", nullable=False),
                number_column("low", "low_price", nullable=False),
                number_column("close", "close_price", nullable=False),
                number_column("volume"),
                number_column("vwap"),
                count_column("trade_count"),
                added=(final_column(), metadata_column(later=True)),
                # market-data-pipeline's: the first is the same in all rows, the second differs at every attempt.
                ignored=("tenant_id", "idempotency_key"),
            ),
            declare(
                "ticks",
                "tick_data",
                provider_column(),
                symbol_column(),
                ts_column(),
                seq_column("price", "size", "bid", "ask"),
                number_column("price", "last_price", nullable=False),
                number_column("size", "quantity", "qty"),
                number_column("bid"),
                number_column("ask"),
                added=(
                    code_column("trade_id", "id", "tid"),
                    code_column("side", "taker_side", "aggressor_side"),
                    venue_column(),
                    conditions_column(),
                    received_column(),
                    nanos_column(),
                    metadata_column(later=True),
                ),
            ),
            declare(
                "quotes",
                "quotes",
                provider_column(),
                symbol_column(),
                ts_column(),
                seq_column("bid", "ask", "last", "bid_size", "ask_size", "volume"),
                number_column("bid", "bid_price"),
                number_column("ask", "ask_price"),
                number_column("last", "last_price"),
                number_column("bid_size"),
                number_column("ask_size"),
                number_column("volume"),
                added=(venue_column(), received_column(), nanos_column(), metadata_column(later=True)),
            ),
            declare(
                "options",
                "options_snap",
                provider_column(),
                symbol_column(),
                Column("expiry", DATE, primary_key=True, info={"rule": Rule(aliases=("expiration",))}),
                number_column("strike", key=True),
                text_column("option_type", key=True, aliases=("right",), letters="CP"),
                # Core's OptionSnapshot has no time, so the time of enqueueing fills it.
                ts_column(enqueued_at=True),
                number_column("bid"),
                number_column("ask"),
                number_column("last"),
                count_column("volume"),
                count_column("open_interest", "oi"),
                number_column("implied_volatility", "iv"),
                number_column("delta"),
                number_column("gamma"),
                number_column("theta"),
                number_column("vega"),
                number_column("spot", "underlying_price"),
                added=(metadata_column(later=True),),
            ),
            declare(
                "fundamentals",
                "fundamentals",
                provider_column(),
                symbol_column(),
                ts_column("asof", "as_of"),
                number_column("total_assets"),
                number_column("total_liabilities"),
                number_column("net_income"),
                number_column("eps"),
                metadata_column(),
            ),
            declare(
                "news",
                "news",
                provider_column(),
                ts_column("published_at"),
                text_column("id", key=True, aliases=("news_id",), content_hash=("title", "url")),
                text_column("title", aliases=("headline",)),
                text_column("symbol", nullable=True, trimmed=True, aliases=("ticker",)),
                text_column("url", nullable=True),
                number_column("sentiment_score", "sentiment"),
                metadata_column(),
            ),
            declare(
                "signals",
                "signals",
                provider_column(),
                symbol_column(),
                ts_column(),
                text_column("name", key=True),
                number_column("value"),
                number_column("score"),
                metadata_column(),
            ),
        )
    }
)
