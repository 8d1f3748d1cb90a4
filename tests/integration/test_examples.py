"""The programs in examples/ do what they say, on real servers."""

from __future__ import annotations

from pathlib import Path

from celery import Celery
from support import processes
from support.brokers import on_redis
from support.databases import Connection
from support.rows import Row
from support.workers import Worker

from market_data_store import StoreClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(directory: Path, program: str, *arguments: str, **environment: str) -> list[str]:
    """What the example printed; it ended well."""
    program = str(EXAMPLES / program)
    done = processes.run(processes.PYTHON, program, *arguments, directory=directory, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_foreign_application_sends_bars_and_reads_the_result(
    worker: Worker, broker_url: str, database: Connection, tmp_path: Path
) -> None:
    printed = run(tmp_path, "foreign_sender.py", BROKER_URL=broker_url)
    assert printed == [
        "{'rejected': 1, 'written': 2, 'unchanged': 0, 'stale': 0, "
        "'reasons': [{'position': 2, 'reason': \"low: 'n/a' is not a number\", 'letter': 1}]}"
    ]
    stored = database.execute("SELECT provider, symbol, interval, close FROM bars_ohlcv ORDER BY ts").fetchall()
    assert stored == [("example", "AAPL", "1m", 185.3), ("example", "AAPL", "1m", 185.5)]
    assert database.execute("SELECT reason FROM dead_letters").fetchall() == [("low: 'n/a' is not a number",)]


def test_the_foreign_application_needs_nothing_of_this_package() -> None:
    assert "market_data_store" not in (EXAMPLES / "foreign_sender.py").read_text()


@on_redis
def test_a_poller_writes_each_trade_once_also_when_it_is_run_again(
    worker: Worker, broker_url: str, database_url: str, database: Connection, tmp_path: Path
) -> None:
    settings = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    # 13 seconds of two symbols a poll, of which 3 were in the poll before.
    first = run(tmp_path, "poller.py", "--polls", "3", **settings)
    assert first == ["78 rows sent: 66 new, 12 known already, 0 rejected"]
    again = run(tmp_path, "poller.py", "--polls", "3", **settings)
    assert again == ["78 rows sent: 0 new, 78 known already, 0 rejected"]
    stored = database.execute("SELECT symbol, count(*) FROM tick_data GROUP BY symbol ORDER BY symbol").fetchall()
    assert stored == [("BTC-USD", 33), ("ETH-USD", 33)]


@on_redis
def test_the_notebook_shows_what_is_stored(
    worker: Worker, producer: Celery, broker_url: str, database_url: str, bars: list[Row], tmp_path: Path
) -> None:
    settings = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    run(tmp_path, "poller.py", "--polls", "1", **settings)
    wanted = [bar for bar in bars if "2024-01-02" <= bar["ts"] < "2024-01-06"]
    with StoreClient(app=producer, confirm=True) as client:
        client.write("bars", wanted)
        client.flush()
        assert client.confirm(timeout_s=30)
    head, *days, bitcoin, ether = run(tmp_path, "explore.py", DATABASE_URL=database_url)
    assert head == f"{len(wanted)} bars from 2024-01-02 00:00 to 2024-01-05 22:00"
    assert [line.split()[0] for line in days] == ["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"]
    first_day = [bar for bar in wanted if bar["ts"].startswith("2024-01-02")]
    assert days[0].split()[1:] == [
        f"{first_day[0]['open']:.5f}",
        f"{max(bar['high'] for bar in first_day):.5f}",
        f"{min(bar['low'] for bar in first_day):.5f}",
        f"{first_day[-1]['close']:.5f}",
        f"{sum(bar['volume'] for bar in first_day):,.0f}",
    ]
    assert bitcoin.startswith("BTC-USD ")
    assert bitcoin.endswith(" at 14:30:09 from example")
    assert ether.startswith("ETH-USD ")
