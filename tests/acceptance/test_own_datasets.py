"""A dataset of a user's own through the whole store: declared, migrated, written by everyone, read, loaded back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from support.brokers import on_rabbitmq, on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, StartWorker
from support.own_datasets import FUNDING, FUNDING_2, ROW, rows
from support.processes import PYTHON, mds, run
from support.waiting import wait_until
from support.writing import select

pytestmark = [pytest.mark.slow]

#: What a producer of a user's does, with rows of Python and with a table of Arrow.
PRODUCER = """
from decimal import Decimal
import json, sys
from market_data_store import StoreClient, reads
rows = json.loads(sys.argv[1])
with StoreClient() as store:
    store.write("funding", [{**row, "symbol": "CLIENT", "rate": Decimal(row["rate"])} for row in rows])
    store.flush()
    table = reads.table("funding", symbols="FOREIGN")
    place = table.schema.get_field_index("symbol")
    store.write_table("funding", table.set_column(place, "symbol", [["ARROW"] * len(table)]))
"""
#: What a reader does: the number of rows, and the type and the sum of an exact number.
READER = """
from market_data_store import reads
table = reads.table("funding")
print(len(table), table.schema.field("rate").type, sum(table.column("rate").to_pylist()))
"""
COUNTS = "SELECT symbol, count(*) FROM funding_rates GROUP BY symbol ORDER BY symbol"


@pytest.fixture
def variables(broker_url: str, database_url: str) -> dict[str, str]:
    """The settings of every process."""
    return {"BROKER_URL": broker_url, "DATABASE_URL": database_url, "MDS_HELD_PROBE_S": "1"}


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sent(producer: Celery, given: list[dict[str, Any]], **named: str) -> Any:
    return producer.send_task(TASK, args=["funding", [{**row, **named} for row in given]], queue=QUEUE)


@on_redis
def test_a_dataset_declared_in_a_file_is_like_a_built_in_one(
    variables: dict[str, str], producer: Celery, start_worker: StartWorker, database: Connection, tmp_path: Path
) -> None:
    file = tmp_path / "datasets.toml"  # of the working directory: no setting names it
    file.write_text(FUNDING)
    assert "funding: table funding_rates" in good(mds(tmp_path, "datasets", "check", "datasets.toml"))
    assert mds(tmp_path, "migrate", "--status", **variables).returncode == 1
    assert "funding: create the table funding_rates\n" in good(mds(tmp_path, "migrate", **variables))
    good(mds(tmp_path, "migrate", "--status", **variables))
    start_worker(**variables)
    count = 50
    given = rows(count)
    assert sent(producer, given, symbol="FOREIGN").get(timeout=30)["written"] == count
    good(run(PYTHON, "-c", PRODUCER, json.dumps(given), directory=tmp_path, environment=variables))
    wait_until(lambda: len(select(database, COUNTS)) == 3, "all three are stored")
    every = {"ARROW": count, "CLIENT": count, "FOREIGN": count}
    wait_until(lambda: dict(select(database, COUNTS)) == every, "all rows of the three are stored")
    assert select(database, "SELECT count(DISTINCT (rate, bids, raw, tags, day, level)) FROM funding_rates") == [
        (count,)
    ]
    read = f"{3 * count} decimal128(38, 18) {3 * count * Decimal(ROW['rate']):.18f}\n"
    assert good(run(PYTHON, "-c", READER, directory=tmp_path, environment=variables)) == read
    for name in ("funding.csv", "funding.parquet", "funding.ndjson.gz"):
        good(mds(tmp_path, "export", "funding", name, **variables))
        database.execute("TRUNCATE funding_rates")
        good(mds(tmp_path, "load", name, "--dataset", "funding", **variables))
        good(mds(tmp_path, "export", "funding", f"again.{name}", **variables))
        assert (tmp_path / f"again.{name}").read_bytes() == (tmp_path / name).read_bytes()
    assert good(mds(tmp_path, "series", "funding", **variables)).count("binance") == 3
    (newest,) = json.loads(good(mds(tmp_path, "head", "funding", "-n", "1", "--json", **variables)))
    assert newest["bids"] == ROW["bids"]


@on_redis
def test_a_second_version_is_migrated_while_workers_of_both_write(
    variables: dict[str, str], producer: Celery, start_worker: StartWorker, database: Connection, tmp_path: Path
) -> None:
    versions = []
    for number, text in enumerate((FUNDING, FUNDING_2), 1):
        file = tmp_path / f"version_{number}.toml"
        file.write_text(text)
        versions.append({**variables, "MDS_DATASETS": str(file)})
    older, newer = versions
    good(mds(tmp_path, "migrate", **older))
    for version in versions:
        start_worker(**version)
    results = []
    for turn in range(30):
        if turn == 10:
            steps = good(mds(tmp_path, "migrate", **newer))
            assert "funding: add venue" in steps
        results.append(sent(producer, rows(5, venue="x", index_price="1.5"), symbol=f"S{turn}"))
    assert [result.get(timeout=60)["written"] for result in results] == [5] * 30
    assert select(database, "SELECT count(*) FROM funding_rates") == [(150,)]
    # Each has its venue: in its column, or in metadata where the older worker wrote it.
    kept = "coalesce(venue, metadata->>'venue'), coalesce(index_price, (metadata->>'index_price')::numeric)::float8"
    assert select(database, f"SELECT DISTINCT {kept} FROM funding_rates") == [("x", 1.5)]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


@on_rabbitmq
def test_a_declared_dataset_grows_by_what_its_feed_sends_on_rabbitmq_too(
    variables: dict[str, str], producer: Celery, start_worker: StartWorker, database: Connection, tmp_path: Path
) -> None:
    (tmp_path / "datasets.toml").write_text(FUNDING.replace('table = "', 'unknown = "add"\ntable = "'))
    good(mds(tmp_path, "migrate", **variables))
    start_worker(**variables)
    assert sent(producer, rows(5, indexPrice=1.5, note="x"), symbol="OLD").get(timeout=30)["written"] == 5

    def listed() -> dict[str, Any]:
        found = json.loads(good(mds(tmp_path, "datasets", "unknown", "funding", "--json", **variables)))
        return {each["name"]: (each["rows"], each["kinds"], each["column"]) for each in found}

    seen = {"indexPrice": (5, ["number"], None), "note": (5, ["text"], None)}
    wait_until(lambda: listed() == seen, "both fields are counted")
    steps = good(mds(tmp_path, "migrate", **variables))
    assert "funding: add index_price (double) for 'indexPrice' in the table funding_rates\n" in steps
    good(mds(tmp_path, "migrate", "--status", **variables))
    filled = "SELECT index_price, note, metadata FROM funding_rates WHERE symbol = 'NEW' ORDER BY level LIMIT 1"

    def is_filled() -> bool:  # without a restart
        sent(producer, rows(1, indexPrice=2, note="y"), symbol="NEW").get(timeout=30)
        return select(database, filled) == [(2.0, "y", None)]

    wait_until(is_filled, "the worker knows the columns", timeout_s=30)
    odd = sent(producer, rows(1, indexPrice="high"), symbol="ODD").get(timeout=30)
    assert odd["written"] == 1
    kept = "SELECT metadata FROM funding_rates WHERE symbol = 'ODD'"
    assert select(database, kept) == [({"indexPrice": "high"},)]
    good(run(PYTHON, "-c", PRODUCER, json.dumps(rows(2)), directory=tmp_path, environment=variables))
    wait_until(lambda: ("CLIENT", 2) in select(database, COUNTS), "rows of a client")
    good(mds(tmp_path, "export", "funding", "all.csv", **variables))
    assert "index_price" in (tmp_path / "all.csv").read_text().splitlines()[0]
    database.execute("TRUNCATE funding_rates")
    good(mds(tmp_path, "load", "all.csv", "--dataset", "funding", **variables))
    good(mds(tmp_path, "export", "funding", "again.csv", **variables))
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()


@on_redis
def test_an_installed_package_declares_by_its_entry_point(
    variables: dict[str, str], producer: Celery, start_worker: StartWorker, database: Connection, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    (site / "acme_datasets").mkdir(parents=True)
    (site / "acme_datasets/__init__.py").touch()
    (site / "acme_datasets/datasets.toml").write_text(FUNDING)
    metadata = site / "acme_datasets-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-datasets\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[market_data_store.datasets]\nacme = acme_datasets\n")
    installed = {**variables, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}
    good(mds(tmp_path, "migrate", **installed))
    start_worker(**installed)
    assert sent(producer, rows(3)).get(timeout=30)["written"] == 3
    assert select(database, "SELECT count(*) FROM funding_rates") == [(3,)]


@on_redis
def test_a_worker_that_lacks_the_dataset_keeps_its_messages(
    variables: dict[str, str], producer: Celery, start_worker: StartWorker, database: Connection, tmp_path: Path
) -> None:
    worker = start_worker(**variables)
    sent(producer, rows(3))
    reasons = wait_until(lambda: select(database, "SELECT reason FROM dead_letters"), "the message is kept")
    assert reasons[0][0].startswith("dataset: 'funding' is unknown; use one of bars, ")
    worker.stop()
    (tmp_path / "datasets.toml").write_text(FUNDING)
    good(mds(tmp_path, "migrate", **variables))
    start_worker(**variables)
    good(mds(tmp_path, "dead-letters", "replay", "--all", **variables))
    wait_until(lambda: select(database, "SELECT count(*) FROM funding_rates") == [(3,)], "it is written")
    wait_until(lambda: select(database, "SELECT count(*) FROM dead_letters") == [(0,)], "no letter is left")


@on_redis
def test_a_wrong_declaration_ends_a_worker_with_one_line(variables: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "datasets.toml").write_text(FUNDING.replace("double[]", "float[]"))
    command = (PYTHON, "-m", "celery", "-A", "market_data_store.app", "worker")
    for part in (command, (PYTHON, "-m", "market_data_store", "migrate")):
        done = run(*part, directory=tmp_path, environment=variables)
        assert done.returncode == 2
        assert done.stderr.startswith(
            "error: datasets.toml: [funding] columns.bids: kind: 'float[]' is not a kind; use "
        )
        assert "Traceback" not in done.stderr
