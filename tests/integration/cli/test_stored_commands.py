"""`mds series`, `mds head` and `mds datasets`: what a reader sees, and what a program gets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.databases import Connection

from market_data_store.cli.main import cli
from market_data_store.config import settings
from market_data_store.datasets import DATASETS

FILL = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at)
    SELECT 'CME', CASE WHEN i < 3 THEN E'A\\x1b[31m' ELSE '漢字' END, '1m',
        timestamptz '2024-01-01Z' + i * interval '1 minute', i / 3.0, 1, 1, 1, now() FROM generate_series(0, 3) AS i;
    INSERT INTO news (provider, ts, id, title, symbol, metadata, enqueued_at)
    VALUES ('p', '2024-01-01Z', '1', 'Up "again"', 'AAPL', '{"a": [1.5, null]}', now())
"""
Mds = Callable[..., Result]


@pytest.fixture
def mds_(database: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mds]:
    database.execute(FILL)
    monkeypatch.setenv("DATABASE_URL", database_url)
    settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(cli, arguments, prog_name="mds", catch_exceptions=False)
    settings.cache_clear()


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_series_are_listed_one_a_line(mds_: Mds) -> None:
    everything = [
        "dataset  provider  symbol     interval  first                 last                  rows",
        "bars     CME       A\\x1b[31m  1m        2024-01-01 00:00:00Z  2024-01-01 00:02:00Z     3",
        "bars     CME       漢字       1m        2024-01-01 00:03:00Z  2024-01-01 00:03:00Z     1",
        "news     p                              2024-01-01 00:00:00Z  2024-01-01 00:00:00Z     1",
    ]
    assert lines(mds_("series")) == everything
    assert lines(mds_("series", "--count")) == everything
    assert len(lines(mds_("series", "--symbol", "漢字", "--symbol", "x"))) == 2
    assert len(lines(mds_("series", "--interval", "1m"))) == 3
    assert lines(mds_("series", "ticks")) == ["nothing is stored"]
    assert lines(mds_("series", "--provider", "cme")) == ["no series match"]


def test_series_for_programs(mds_: Mds) -> None:
    found = json.loads(mds_("series", "bars", "--symbol", "漢字", "--json").output)
    assert found == [
        {
            **{"dataset": "bars", "provider": "CME", "symbol": "漢字", "interval": "1m"},
            **dict.fromkeys(("first", "last"), "2024-01-01T00:03:00+00:00"),
            **{"rows": 1, "exact": True},
        }
    ]
    assert json.loads(mds_("series", "signals", "--json").output) == []


def test_head_shows_the_newest_rows_without_empty_columns(mds_: Mds) -> None:
    assert lines(mds_("head", "bars", "-n", "2")) == [
        "provider  symbol     interval  ts                         open                high  low  close",
        "CME       漢字       1m        2024-01-01T00:03:00+00:00  1                   1     1    1",
        "CME       A\\x1b[31m  1m        2024-01-01T00:02:00+00:00  0.6666666666666666  1     1    1",
    ]
    assert lines(mds_("head", "news")) == [
        "provider  ts                         id  title       symbol  metadata",
        'p         2024-01-01T00:00:00+00:00  1   Up "again"  AAPL    {"a": [1.5, null]}',
    ]
    assert lines(mds_("head", "ticks")) == ["no ticks are stored"]
    assert lines(mds_("head", "bars", "--symbol", "a")) == ["no rows match"]


def test_head_for_programs_has_every_column(mds_: Mds) -> None:
    (row,) = json.loads(mds_("head", "bars", "--symbol", "漢字", "--interval", "1m", "--json").output)
    assert list(row) == [column.name for column in DATASETS["bars"].columns]
    assert (row["ts"], row["open"], row["volume"]) == ("2024-01-01T00:03:00+00:00", 1, None)


@pytest.mark.parametrize("command", ["series", "head"])
def test_only_bars_have_an_interval(mds_: Mds, command: str) -> None:
    refused = mds_(command, "news", "--interval", "1m")
    assert refused.exit_code == 2
    assert "--interval 1m: news have no interval; only bars do" in refused.output


def test_datasets_need_no_server() -> None:
    runner = CliRunner()
    found: list[dict[str, Any]] = json.loads(runner.invoke(cli, ["datasets", "--json"]).output)
    assert [each["name"] for each in found] == list(DATASETS)
    bars, ticks = found[:2]
    assert (bars["table"], bars["key"]) == ("bars_ohlcv", ["provider", "symbol", "interval", "ts"])
    assert bars["unknown"] == "keep"
    assert bars["fields"][2] == {
        **{"name": "interval", "kind": "text", "key": True, "required": True},
        "aliases": ["timeframe", "resolution"],
    }
    assert {field["name"] for field in bars["fields"] if field["required"] and not field["key"]} == {
        *("open", "high", "low", "close")
    }
    # A hash fills it.
    assert next(field for field in ticks["fields"] if field["key"] and not field["required"])["name"] == "seq"
    text = runner.invoke(cli, ["datasets"]).output
    assert text.count(": table ") == len(DATASETS)
    assert runner.invoke(cli, ["datasets", "ticks"]).output.splitlines()[:6] == [
        "ticks: table tick_data, key provider, symbol, ts, seq",
        "  field        kind           needed          other names",
        "  provider     text           key             vendor, source",
        "  symbol       text           key             ticker",
        "  ts           time           key             timestamp, timestamp_utc, time, datetime",
        "  seq          integer        key, filled in  sequence, trade_id",
    ]


@pytest.mark.parametrize("command", ["series", "head", "datasets", "export"])
def test_the_help_has_examples(command: str) -> None:
    text = CliRunner().invoke(cli, [command, "--help"]).output
    assert text.count(f"\n  mds {command}") >= 2
