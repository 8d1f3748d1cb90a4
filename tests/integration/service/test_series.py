"""The endpoints of series, on real servers."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from support.web import Web, serving

BARS = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, volume, enqueued_at)
    SELECT 'p', 'S' || n, '1m', timestamptz '2026-01-02 00:00Z' + minute * interval '1 minute',
        1, 3, 0.5, 2, minute, now()
    FROM generate_series(1, %s) AS n, generate_series(0, %s) AS minute
"""


def test_series_are_found_by_a_part_of_their_names(web: Web, database: psycopg.Connection[Any]) -> None:
    database.execute(BARS, [30, 2])
    found = web.admin("GET", "/series?dataset=bars&search=s2&limit=50").json()
    assert [each["symbol"] for each in found["series"]] == ["S2", *(f"S{n}" for n in range(20, 30))]
    assert found["series"][0] == {
        "provider": "p",
        "symbol": "S2",
        "interval": "1m",
        "newest": "2026-01-02T00:02:00Z",
    }
    assert not found["more"]
    first = web.admin("GET", "/series?dataset=bars&provider=p&limit=3").json()
    assert ([each["symbol"] for each in first["series"]], first["more"]) == (["S1", "S10", "S11"], True)
    assert web.admin("GET", "/series?dataset=bars&limit=3").json() == first
    assert not web.admin("GET", "/series?dataset=bars&limit=30").json()["more"]
    assert web.admin("GET", "/series?dataset=bars&provider=q").json() == {"series": [], "more": False}
    assert web.admin("GET", "/series?dataset=news").json() == {"series": [], "more": False}
    for wrong in ("dataset=nothing", "dataset=bars&limit=0", "dataset=bars&search=%00", ""):
        assert web.admin("GET", f"/series?{wrong}").status_code == 422, wrong
    assert web.client.get("/series?dataset=bars").status_code == 401


def test_the_newest_rows_of_a_series_say_how_they_are_drawn(web: Web, database: psycopg.Connection[Any]) -> None:
    database.execute(BARS, [3, 9])
    answer = web.admin("GET", "/series/rows?dataset=bars&provider=p&symbol=S2&interval=1m&limit=4").json()
    assert answer["drawing"] == {"kind": "candles", "fields": ["open", "high", "low", "close"]}
    assert [row["volume"] for row in answer["rows"]] == [9, 8, 7, 6]
    assert {row["symbol"] for row in answer["rows"]} == {"S2"}
    tick = "INSERT INTO tick_data (provider, symbol, ts, seq, price, enqueued_at) VALUES ('p', 'S', now(), 1, 7, now())"
    database.execute(tick)
    ticks = web.admin("GET", "/series/rows?dataset=ticks&provider=p&symbol=S").json()
    assert (ticks["drawing"], ticks["rows"][0]["price"]) == ({"kind": "lines", "fields": ["price"]}, 7)
    news = web.admin("GET", "/series/rows?dataset=news&provider=p").json()
    assert news == {"rows": [], "drawing": None}
    for wrong in ("dataset=bars", "dataset=ticks&provider=p&interval=1m", "dataset=x&provider=p"):
        assert web.admin("GET", f"/series/rows?{wrong}").status_code == 422, wrong
    assert web.client.get("/series/rows?dataset=bars&provider=p").status_code == 401


def test_a_setting_opens_the_series_and_nothing_else(
    redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    servers = {"DATABASE_URL": database_url, "BROKER_URL": redis_url, "MDS_OPEN_SERIES": "true"}
    with serving(tmp_path_factory.mktemp("open"), **servers) as web:
        assert web.client.get("/series?dataset=bars").json() == {"series": [], "more": False}
        assert web.client.get("/status.json").json()["open_series"] is True
        assert web.client.get("/dead-letters").status_code == 401
