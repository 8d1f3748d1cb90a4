"""The endpoints of series: find one by its names, and read its newest rows with how they can be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

import msgspec
import psycopg
from flask import Response
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from market_data_store.config import Settings
from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import InvalidMessage
from market_data_store.postgres.connection import connect
from market_data_store.postgres.named_series import named
from market_data_store.postgres.selection import NAMES
from market_data_store.postgres.series import newest_rows
from market_data_store.service.guard import Answer, Guard, problem
from market_data_store.service.texts import Text
from market_data_store.wire.fields import fields_of

#: Series, or contracts of options, among which a request searches: 20,000 take about 0.3 s.
_MOST = 20_000
#: Seconds after which Postgres cancels a request's statement.
_TIMEOUT_S = 5
_CANDLES = ("open", "high", "low", "close")
#: What is drawn as lines: the first of these of which a dataset has all.
_LINES = (("price",), ("bid", "ask"), ("last",), ("close",), ("value",), ("rate",))
#: Exact numbers become texts, because a browser would round them.
_encode = msgspec.json.Encoder(decimal_format="string").encode


class Found(BaseModel):
    """The names of a series; null where the dataset's key has none."""

    provider: str
    symbol: str | None
    interval: str | None
    newest: datetime


class SeriesAnswer(BaseModel):
    """Series in the order of the key."""

    series: list[Found]
    more: bool = Field(description="Whether there may be others; give `search`, or a larger `limit`.")


class Search(BaseModel):
    """Which series to list."""

    dataset: Text
    provider: Text | None = None
    search: Text = Field(default="", description="A part of one of the names, in upper or lower case.")
    limit: int = Field(default=100, ge=1, le=1_000)


class OneSeries(BaseModel):
    """Which series to read, and how many of its newest rows."""

    dataset: Text
    provider: Text
    symbol: Text | None = None
    interval: Text | None = None
    limit: int = Field(default=300, ge=1, le=2_000)


class Drawing(BaseModel):
    """How the rows can be drawn over `ts`."""

    kind: Literal["candles", "lines"]
    fields: list[str]


class RowsAnswer(BaseModel):
    """The newest rows, newest first, as `mds export` writes them."""

    rows: list[dict[str, Any]] = Field(description="Exact numbers are texts.")
    drawing: Drawing | None = Field(description="Null for a dataset that has nothing to draw.")


def create_series(settings: Settings, guard: Guard) -> APIBlueprint:
    """Make the blueprint of the series' endpoints, which are the admin's unless `MDS_OPEN_SERIES` is set."""
    series = guard.blueprint("series", "series", is_open=settings.open_series)

    @series.get("/series", responses={"200": SeriesAnswer})
    def found(query: Search) -> Answer:
        """List a dataset's series by name."""
        dataset = _dataset(query.dataset)
        with _connection(settings) as connection:
            criteria = {"provider": query.provider or None}
            several, more = named(connection, dataset, criteria, query.search, limit=query.limit, most=_MOST)
        listed = [Found(provider=s.provider, symbol=s.symbol, interval=s.interval, newest=s.last) for s in several]
        return SeriesAnswer(series=listed, more=more).model_dump(mode="json")

    @series.get("/series/rows", responses={"200": RowsAnswer})
    def rows(query: OneSeries) -> Answer:
        """Read the newest rows of a series."""
        dataset = _dataset(query.dataset)
        criteria = {name: value for name in NAMES if (value := getattr(query, name)) is not None}
        with _connection(settings) as connection:
            newest = newest_rows(connection, dataset, criteria, query.limit)
        drawn = _drawing(dataset)
        body = _encode({"rows": newest, "drawing": None if drawn is None else drawn.model_dump()})
        return Response(body, mimetype="application/json")

    @series.errorhandler(psycopg.errors.QueryCanceled)
    def too_slow(_: Exception) -> Response:
        return problem(f"Postgres took more than {_TIMEOUT_S} s; use `mds series` and `mds head`", 503)

    return series


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise InvalidMessage(f"dataset: {name[:80]!r} is unknown; use one of {', '.join(DATASETS)}")
    return DATASETS[name]


def _drawing(dataset: Dataset) -> Drawing | None:
    names = {field.name for field in fields_of(dataset)}
    if names.issuperset(_CANDLES):
        return Drawing(kind="candles", fields=list(_CANDLES))
    lines = next((each for each in _LINES if names.issuperset(each)), None)
    return None if lines is None else Drawing(kind="lines", fields=list(lines))


@contextmanager
def _connection(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with connect(settings.require_database_url()) as connection, connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = {_TIMEOUT_S * 1_000}")
        yield connection
