"""Tables as frames of polars and pandas, which the reader has installed; the store needs neither."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from market_data_store.errors import MarketDataStoreError

if TYPE_CHECKING:
    import pandas
    import polars


def to_polars(table: pa.Table) -> polars.DataFrame:
    """Return a table as a frame of polars; no value changes."""
    frame: polars.DataFrame = _package("polars").from_arrow(table)
    return frame


def to_pandas(table: pa.Table) -> pandas.DataFrame:
    """Return a table as a frame of pandas, with a dtype for each type that holds all of its values.

    Integers and booleans get the dtypes that have nulls of their own (`Int64`, `Int32`, `boolean`), since a plain
    column with a null would make doubles of them. Doubles are `float64`, in which a null is NaN; times are
    `datetime64[us, UTC]`.
    """
    pd = _package("pandas")
    types = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    # Dates too: from year 1 to 9999, as datetime64 of nanoseconds they could not be.
    frame: pandas.DataFrame = table.to_pandas(types_mapper=types.get, date_as_object=True)
    return frame


def _package(name: str) -> Any:
    try:
        return import_module(name)  # here, because only who asks for a frame needs it
    except ModuleNotFoundError as error:
        raise MarketDataStoreError(f"{name} is not installed; run `pip install {name}`") from error
