"""Rows of a dataset of a user's own: every kind, from JSON and Arrow to the table, reads, exports, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.databases import Connection
from support.own_datasets import FUNDING, FUNDING_2, ROW, funding, rows
from support.processes import MDS, run
from support.writing import select

from market_data_store import reads
from market_data_store.config import settings
from market_data_store.datasets import DATASETS
from market_data_store.files.exporting import export
from market_data_store.files.options import Options
from market_data_store.files.plan import make_plan
from market_data_store.files.rows import made_rows
from market_data_store.postgres import schema
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.series import newest_rows, series_of
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts
from market_data_store.status.database import DatabaseReader
from market_data_store.wire.arrow import frame_of, read_table
from market_data_store.wire.rows import SentRows, read_rows

BOOK = '[book]\nkey = ["provider", "ts"]\ncolumns = { provider = "text", ts = "timestamptz" }\n'
#: What `reads` returns of `ROW`.
AS_READ: dict[str, Any] = {
    **ROW,
    "ts": datetime(2024, 1, 2, 8, tzinfo=UTC),
    "level": Decimal("1.5"),
    "rate": Decimal("0.000123456789012345"),
    "day": date(2024, 1, 2),
    "next_at": datetime(2024, 1, 2, 16, microsecond=1, tzinfo=UTC),
    "raw": json.dumps(ROW["raw"], ensure_ascii=False, sort_keys=True),
    "metadata": None,
}


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Path]:
    """A declaration in the working directory, and its table."""
    file = tmp_path / "datasets.toml"
    file.write_text(FUNDING)
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    DATASETS.forget()
    schema.upgrade(database_url)
    yield file
    settings.cache_clear()
    DATASETS.forget()


@pytest.fixture
def writer(database_url: str) -> Iterator[Writer]:
    writer = Writer(database_url)
    yield writer
    writer.close()


def write(writer: Writer, sent: SentRows, at: int = 0, text: str = FUNDING) -> Counts:
    dataset = funding(text)
    message = DecodedMessage(task_id=f"t{at}", dataset=dataset, rows=sent, enqueued_at=at)
    return writer.write(decoded(dataset, [message]), [message]).counts[0]


def of_json(given: list[Any], text: str = FUNDING) -> SentRows:
    return read_rows(funding(text), json.dumps(given).encode(), {})


def of_table(table: pa.Table, **defaults: Any) -> SentRows:
    return read_table(funding(), frame_of(table), defaults)


def shown(row: dict[str, Any]) -> dict[str, str]:
    """The texts of a row's values: -0.0 equals 0.0, and 1.50 equals 1.5."""
    return {name: str(value.normalize() if isinstance(value, Decimal) else value) for name, value in row.items()}


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("count", [1, 100])
def test_every_value_comes_back(writer: Writer, database: Connection, database_url: str, count: int) -> None:
    sent = [ROW, *rows(count - 1)]
    assert write(writer, of_json(sent)) == Counts(written=count)
    assert write(writer, of_json(sent), 1) == Counts(unchanged=count)
    assert write(writer, of_json([{**row, "bids": [1]} for row in sent]), 2) == Counts(written=count)
    assert write(writer, of_json(sent), 3) == Counts(written=count)
    found = reads.table("funding", symbols="BTCUSDT", database=database_url)
    assert found.schema.field("rate").type == pa.decimal128(38, 18)
    assert found.schema.field("bids").type == pa.list_(pa.float64())
    (row,) = [row for row in found.to_pylist() if row["level"] == Decimal("1.5")]
    assert json.loads(row.pop("raw")) == ROW["raw"]
    assert shown(row) == shown({name: value for name, value in AS_READ.items() if name != "raw"})
    # What was read is a message as it is.
    assert write(writer, of_table(found), 4) == Counts(unchanged=count)
    (series,) = series_of(database, DATASETS["funding"], {})
    assert (series.provider, series.symbol, series.rows) == ("binance", "BTCUSDT", count)
    newest = newest_rows(database, DATASETS["funding"], {"symbol": "BTCUSDT"}, 1)
    assert str(newest[0]["rate"]) == "0.000123456789012345"
    assert newest[0]["bids"] == [1.5, -0.0, None, 5e-324, 1e18]


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("name", ["funding.csv", "funding.ndjson", "funding.parquet"])
def test_an_export_is_loaded_back(writer: Writer, database: Connection, tmp_path: Path, name: str) -> None:
    sent = [ROW, *rows(30), {**{key: ROW[key] for key in ("provider", "symbol", "ts")}, "level": 99, "rate": -1}]
    write(writer, of_json(sent))
    before = select(database, "SELECT * FROM funding_rates ORDER BY level")
    dataset = DATASETS["funding"]
    export(database, dataset, tmp_path / name, {})
    database.execute("TRUNCATE funding_rates")
    for made in made_rows(make_plan(tmp_path / name, Options(dataset=dataset))):
        assert not made.bad
        counts = write(writer, of_table(made.table, **made.constants))
        assert counts.written == counts.rows
    assert [list(map(str, row)) for row in select(database, "SELECT * FROM funding_rates ORDER BY level")] == [
        list(map(str, row)) for row in before
    ]
    export(database, dataset, tmp_path / f"again.{name}", {})
    assert (tmp_path / f"again.{name}").read_bytes() == (tmp_path / name).read_bytes()


def test_the_status_tells_that_a_table_is_due(declared: Path, database_url: str) -> None:
    def looked() -> list[str]:
        reader = DatabaseReader(database_url)
        try:
            return list(reader.read().due)
        finally:
            reader.close()

    assert looked() == []
    declared.write_text(FUNDING_2.replace("funding_rates", "other_rates") + BOOK)
    DATASETS.forget()
    assert looked() == ["funding: create the table other_rates", "book: create the table book"]
    environment = {"DATABASE_URL": database_url, "BROKER_URL": "redis://127.0.0.1:1/0"}
    status = run(*MDS, "status", "--json", directory=declared.parent, environment=environment)
    (migrations,) = (e for e in json.loads(status.stdout)["health"]["components"] if e["name"] == "migrations")
    assert migrations["state"] == "unhealthy"
    assert migrations["details"]["error"] == (
        "a table is not as declared (funding: create the table other_rates, and 1 more); run `mds migrate`"
    )
    declared.write_text(FUNDING)
    DATASETS.forget()
    assert looked() == []


def test_two_versions_write_beside_each_other(
    declared: Path, writer: Writer, database: Connection, database_url: str
) -> None:
    write(writer, of_json([ROW]))
    declared.write_text(FUNDING_2)
    DATASETS.forget()
    schema.upgrade(database_url)
    newer = {**ROW, "level": "2.000001", "index_price": "42000.1", "venue": "x"}
    assert write(writer, of_json([newer], FUNDING_2), 1, FUNDING_2) == Counts(written=1)
    # The older version keeps what it does not know in metadata, and leaves the columns that it does not know alone.
    assert write(writer, of_json([{**ROW, "venue": "y"}]), 2) == Counts(written=1)
    assert select(
        database, "SELECT level::text, index_price::text, venue, metadata FROM funding_rates ORDER BY level"
    ) == [
        ("1.500000", None, None, {"venue": "y"}),
        ("2.000001", "42000.1000000000", "x", None),
    ]
