"""What flows, who works, and which feeds have stopped, in /status.json of real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.brokers import slow_on_rabbitmq
from support.databases import Connection
from support.fixtures.store import Bar, Send, StartWorker
from support.waiting import wait_until
from support.web import serving

from market_data_store.config import feeds
from market_data_store.status import stored
from market_data_store.status.database import DatabaseReader
from market_data_store.status.freshness import FeedName, Rules

OUTCOMES = ("written", "unchanged", "stale", "superseded", "rejected")


def bar(symbol: str, ts: datetime, **fields: Any) -> Bar:
    names = {"provider": "p", "symbol": symbol, "interval": "1m", "ts": ts.isoformat()}
    return names | dict.fromkeys(("open", "high", "low", "close"), 1.0) | fields


@slow_on_rabbitmq
def test_the_status_says_what_flows_who_works_and_what_has_stopped(
    broker_url: str,
    redis_url: str,
    database_url: str,
    send: Send,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    now = datetime.now(UTC)
    servers = {"BROKER_URL": broker_url, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    limits = {"MDS_SYMBOL_GROUPS": "futures=ES*", "MDS_FRESHNESS": "bars=10m"}
    start_worker()
    with serving(tmp_path, **servers, **limits) as web:

        def shown() -> dict[str, Any]:
            status: dict[str, Any] = web.client.get("/status.json").json()
            return status

        wait_until(lambda: shown()["flow"]["rows_per_s"]["written"] == 0.0, "the worker has answered twice")
        quiet = shown()
        assert quiet["flow"]["latency_ms"] == {"p50": None, "p99": None}
        (worker,) = quiet["worker_list"]
        assert worker.keys() >= {
            "name",
            "version",
            "since_ts",
            "lanes",
            "processes",
            "holds",
            "rows_per_s",
            "rss_bytes",
        }
        assert (worker["lanes"], worker["holds"], worker["trouble"]) == (["live", "backfill"], 0, None)
        assert worker["version"] == quiet["version"]
        assert time.time() - 600 < worker["since_ts"] < time.time()
        assert worker["rss_bytes"] > 20_000_000 * worker["processes"]

        rows = [bar("ESZ4", now - timedelta(minutes=n)) for n in range(1, 6)]
        old = [bar("AAPL", now - timedelta(hours=1))]
        send([*rows, *old, bar("AAPL", now, open="x")])
        wait_until(lambda: (shown()["flow"]["latency_ms"]["p99"] or 0) > 0, "it has flowed")
        busy = shown()
        assert busy["flow"]["rows_per_s"]["written"] > 0 < busy["flow"]["rows_per_s"]["rejected"]
        assert 0 < busy["flow"]["latency_ms"]["p50"] <= busy["flow"]["latency_ms"]["p99"] < 60_000
        assert [len(point) for point in busy["flow"]["history"]] == [8] * len(busy["flow"]["history"])
        assert busy["flow"]["history"][-1][0] <= busy["ts"]
        assert busy["worker_list"][0]["rows_per_s"] > 0

        wait_until(lambda: shown()["feeds_total"] == 2, "both feeds are seen", timeout_s=30)
        stopped, going = shown()["feeds"]
        assert (stopped["dataset"], stopped["provider"], stopped["group"]) == ("bars", "p", "other")
        assert (stopped["stopped"], stopped["limit_s"]) == (True, 600.0)
        assert 3_590 < stopped["age_s"] < 3_700
        assert (going["group"], going["stopped"]) == ("futures", False)
        assert 55 < going["age_s"] < 160
        wait_until(lambda: shown()["stored"]["bars"]["rows"] == 6, "the rows are estimated", timeout_s=30)


@pytest.fixture
def reader(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabaseReader]:
    """Looks each time anew, in portions of three keys."""
    for name, value in (("_REST_S", 0.0), ("_REST_TIMES", 0.0), ("_MOST", 3)):
        monkeypatch.setattr(stored, name, value)
    rules = Rules(feeds.groups("fut=ES*|NQ*"), feeds.limits("bars=5m,bars:late=1h"))
    reader = DatabaseReader(database_url, rules=rules)
    yield reader
    reader.close()


def test_feeds_are_found_in_portions_and_their_minutes_are_counted(
    database: Connection, reader: DatabaseReader
) -> None:
    database.execute(
        "INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at) "
        "SELECT provider, symbol, '1m', date_trunc('minute', now()) - minutes * interval '1 minute' - age, 1, 1, 1, 1, "
        "now() FROM (VALUES ('going', interval '0'), ('late', '6 minutes'), ('gone', '30 days')) AS p (provider, age), "
        "unnest(ARRAY['ES1', 'ES2', 'NQ1', 'BTC']) AS symbol, generate_series(2, 40) AS minutes"
    )
    looks = 0
    while len((found := reader.read()).feeds.every) < 6:
        looks += 1
        assert looks < 10
    assert looks >= 3  # 12 keys
    states = {feed.name[1:]: (feed.is_stopped, feed.limit_s) for feed in found.feeds.every}
    assert states == {
        ("going", "fut"): (False, 300.0),
        ("going", "other"): (False, 300.0),
        ("late", "fut"): (False, 3_600.0),
        ("late", "other"): (False, 3_600.0),
        ("gone", "fut"): (True, 300.0),
        ("gone", "other"): (True, 300.0),
    }
    assert [feed.name.provider for feed in found.feeds.every[:2]] == ["gone", "gone"]
    sparks = {feed.name: feed.spark for feed in reader.read().feeds.every}
    assert set(sparks[FeedName("bars", "gone", "fut")] or [None]) == {0}
    known = sparks[FeedName("bars", "going", "fut")] or []
    assert len(known) == 15
    assert set(known[:12]) == {3}
    assert sparks[FeedName("bars", "late", "other")][:6] == [1] * 6  # type: ignore[index]

    database.execute("DELETE FROM bars_ohlcv WHERE provider = 'gone'")
    while len(reader.read().feeds.every) > 4:
        looks += 1
        assert looks < 20


def test_a_newer_row_is_seen_before_the_round_ends(database: Connection, reader: DatabaseReader) -> None:
    insert = (
        "INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at) "
        "SELECT 'p', 'S' || n, '1m', now() - %s * interval '1 minute' - n * interval '1 second', 1, 1, 1, 1, now() "
        "FROM generate_series(%s, 6) AS n"
    )
    database.execute(insert, [30, 0])
    while not (found := reader.read()).feeds.every:
        pass
    assert found.feeds.every[0].is_stopped
    reader.read()  # the first three keys of the next round
    database.execute(insert + " LIMIT 1", [1, 0])  # the key that had the newest row, which that round has passed
    assert not reader.read().feeds.every[0].is_stopped
