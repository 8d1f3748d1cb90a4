"""A store of the size at which the page must stay usable: rows by SQL, and what many workers would say."""

from __future__ import annotations

import math
from typing import Any

import psycopg

SERIES, LETTERS, WORKERS, FEEDS = 5_000, 100_000, 200, 100

_BARS = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, volume, enqueued_at)
    SELECT 'polygon', 'S' || lpad(n::text, 4, '0'), '1m', date_trunc('minute', now()) - minute * interval '1 minute',
        100 + sin(minute / 20.0), 100.1 + sin(minute / 20.0), 99.9 + sin(minute / 20.0), 100 + sin((minute - 1) / 20.0),
        minute, now()
    FROM generate_series(1, %(series)s) AS n, generate_series(0, CASE n WHEN 1 THEN 299 ELSE 1 END) AS minute
"""
_TICKS = """
    INSERT INTO tick_data (provider, symbol, ts, seq, price, enqueued_at)
    SELECT 'binance', 'BTC-USD', now() - second * interval '1 second', second, 60000 + 50 * sin(second / 15.0), now()
    FROM generate_series(0, 299) AS second
"""
_LETTERS = """
    INSERT INTO dead_letters
        (task_id, position, content_hash, dataset, reason, pattern, row, enqueued_at, job, file, line)
    SELECT 'task-' || n / 500, n %% 500, n, 'bars', format(pattern, n), format(pattern, '…'),
        json_build_object('symbol', 'S' || n, 'interval', '1m', 'ts', 'never', 'close', n), now(), 7, 'bars.csv', n + 2
    FROM generate_series(1, %(letters)s) AS n
    CROSS JOIN LATERAL (SELECT (ARRAY[
        'provider: missing (key column); give it in the row or in defaults',
        'close: %%s is not a number; send a JSON number',
        'ts: %%s is not a time; send ISO 8601'
    ])[1 + n %% 3]) AS reasons (pattern)
"""


def fill(database: psycopg.Connection[Any], *, series: int = SERIES, letters: int = LETTERS) -> None:
    """Store series of bars, one of ticks, and dead letters of three reasons."""
    database.execute(_BARS, {"series": series})
    database.execute(_TICKS)
    database.execute(_LETTERS, {"letters": letters})
    database.execute("ANALYZE bars_ohlcv, tick_data, dead_letters")


def flow(now: float) -> dict[str, Any]:
    """What flowed in the last 15 minutes."""
    history = []
    for step in range(450, -1, -1):
        wave = 1 + 0.4 * math.sin(step / 40)
        rejected = 40.0 if 200 < step < 240 else 0.0
        rates = [9_000 * wave, 900 * wave, 200 * (step < 120), 20.0, rejected]
        history.append([now - 2 * step, *rates, 30 + 20 * wave, 90 + 150 * wave])
    newest = history[-1]
    outcomes = ("written", "unchanged", "stale", "superseded", "rejected")
    return {
        "rows_per_s": dict(zip(outcomes, newest[1:6], strict=True)),
        "latency_ms": {"p50": newest[6], "p99": newest[7]},
        "history": history,
    }


def lane(now: float, capacity: int) -> list[list[Any]]:
    """The depth and the level of a lane in the last 15 minutes: it filled once."""
    points: list[list[Any]] = []
    for step in range(450, -1, -1):
        share = 0.9 * math.exp(-(((step - 220) / 40) ** 2)) + 0.05
        level = "hard" if share >= 0.8 else "soft" if share > 0.5 else "ok"
        points.append([now - 2 * step, round(capacity * share), level])
    return points


def workers(now: float, number: int = WORKERS) -> list[dict[str, Any]]:
    """What so many workers say of themselves."""
    return [
        {
            "name": f"worker{n:03}@machine-{n % 8}",
            "version": "0.5.0",
            "since_ts": now - 3_600 - n,
            "lanes": ["live", "backfill"] if n % 2 else ["live"],
            "processes": 8,
            "holds": n % 5 * 100,
            "rows_per_s": 50.0 + n,
            "rss_bytes": 400_000_000 + n * 1_000_000,
            "trouble": "has had messages and committed none for 45 s" if n == 17 else None,
        }
        for n in range(number)
    ]


def feeds(now: float, number: int = FEEDS) -> list[dict[str, Any]]:
    """Feeds, of which the first has stopped."""
    names = [("bars", "polygon"), ("ticks", "binance"), ("quotes", "databento"), ("bars", "ibkr")]
    return [
        {
            "dataset": names[n % 4][0],
            "provider": names[n % 4][1],
            "group": None if n < 4 else f"group {n}",
            "newest_ts": now - (700 if n == 0 else n / 3),
            "age_s": 700.0 if n == 0 else n / 3,
            "limit_s": 300.0,
            "stopped": n == 0,
            "spark": [0 if n == 0 and minute > 3 else 200 + 90 * ((minute * (n + 3)) % 7) for minute in range(15)],
        }
        for n in range(number)
    ]


def document(status: dict[str, Any]) -> dict[str, Any]:
    """The status with all of this in it, and the headline and health that fit to it."""
    now = status["ts"]
    queue, backfill = status["queue"], status["backfill"]
    trouble = f"{WORKERS} workers; worker017@machine-1 has had messages and committed none for 45 s"
    stopped = "bars of polygon has stopped: its newest row is 720 s old, its limit is 300 s"
    components = [
        {**each, "state": "degraded", "details": {"alive": str(WORKERS), "error": trouble}}
        if each["name"] == "workers"
        else {**each, "state": "healthy", "details": {"last": "ok"}}
        if each["name"] == "feedback"
        else each
        for each in status["health"]["components"]
    ]
    return {
        **status,
        "headline": f"degraded: {trouble}; {stopped}",
        "severity": "warning",
        "headline_cause": "workers_in_trouble",
        "since_ts": now - 45,
        "help": "docs/troubleshooting.md#workers-are-in-trouble",
        "health": {**status["health"], "components": components},
        "workers": WORKERS,
        "queue": {**queue, "workers": WORKERS},
        "backfill": {**backfill, "workers": WORKERS, "problem": None},
        "events": [
            {"ts": now - ago, "level": level, "reason": None, "queue_size": size, "capacity": queue["capacity"]}
            for ago, level, size in ((4, "ok", 0), (395, "ok", 3_980), (440, "soft", 6_450), (500, "hard", 8_020))
        ],
        "flow": flow(now),
        "worker_list": workers(now),
        "feeds": feeds(now),
        "feeds_total": 140,
        "history": lane(now, queue["capacity"])[:-1] + status["history"][-1:],
        "backfill_history": [[ts, depth // 2, "ok"] for ts, depth, _ in lane(now, backfill["capacity"])],
        "unknown": [{"dataset": "bars", "name": "vwap2", "kinds": ["number"], "count": 4_711, "last_ts": now - 9}],
    }
