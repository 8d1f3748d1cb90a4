"""A dataset of a user's own, as the tests declare it: every kind of column, and a key with an exact number."""

from __future__ import annotations

from typing import Any

from market_data_store.config.declarations import Declaration
from market_data_store.datasets import Dataset
from market_data_store.datasets.declared import declared

FUNDING = """
[funding]
table = "funding_rates"
key = ["provider", "symbol", "ts", "level"]

[funding.columns]
provider = "text"
symbol = { kind = "text", aliases = ["ticker"] }
ts = { kind = "timestamptz", aliases = ["time", "fundingTime"] }
level = "numeric(20,4)"
rate = { kind = "numeric(38,18)", required = true, aliases = ["fundingRate"] }
bids = "double[]"
tags = "text[]"
raw = "jsonb"
day = "date"
next_at = "timestamptz"
settled = "boolean"
trades = "bigint"
mark = "double"
order = "text"
"""

#: The next version: two columns more, and a wider number.
FUNDING_2 = (
    FUNDING.replace("numeric(20,4)", "numeric(22,6)")
    + """index_price = "numeric(20,10)"
venue = "text"
"""
)

ROW: dict[str, Any] = {
    "provider": "binance",
    "symbol": "BTCUSDT",
    "ts": "2024-01-02T08:00:00Z",
    "level": "1.5",
    "rate": "0.000123456789012345",
    "bids": [1.5, -0.0, None, 5e-324, 1e18],
    "tags": ["a", 'b "c", d'],
    "raw": {"lots": [1, 2.5, None], "x": "é"},
    "day": "2024-01-02",
    "next_at": "2024-01-02T16:00:00.000001Z",
    "settled": True,
    "trades": 7,
    "mark": 0.1,
    "order": "first",
}


def datasets(*texts: str) -> dict[str, Dataset]:
    """What these texts declare."""
    return dict(declared([Declaration(f"{number}.toml", text) for number, text in enumerate(texts, 1)]))


def funding(text: str = FUNDING) -> Dataset:
    """The dataset of a version of the declaration."""
    return datasets(text)["funding"]


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Rows with different keys."""
    return [{**ROW, "level": f"{number}.25", **changes} for number in range(count)]
