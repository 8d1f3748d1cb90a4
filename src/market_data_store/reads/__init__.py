"""Reads for users of the data: rows, and whole tables for pyarrow, polars and pandas.

`bars`, `ticks` and `latest_prices` return dicts on a connection of the caller's (`connect(url)`). `table` and
`bars_table` return a `pyarrow.Table`, which `to_polars` and `to_pandas` convert; they find the database themselves.
"""

from __future__ import annotations

from market_data_store.postgres.connection import connect
from market_data_store.reads.frames import to_pandas, to_polars
from market_data_store.reads.rows import Row, bars, latest_prices, ticks
from market_data_store.reads.tables import bars_table, table

__all__ = [
    "Row",
    "bars",
    "bars_table",
    "connect",
    "latest_prices",
    "table",
    "ticks",
    "to_pandas",
    "to_polars",
]
