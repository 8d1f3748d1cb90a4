"""Exports as Parquet are exact, and whatever the format: several names, the old file's mode, and no half file."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.awkward import awkward
from support.databases import Connection
from support.processes import MDS, Process, inherited, mds
from support.waiting import wait_until
from support.writing import Row, bar, bars, message, write

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import MarketDataStoreError
from market_data_store.files.exporting import export
from market_data_store.files.parquet_writer import write_parquet
from market_data_store.files.written_formats import FORMATS
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.producer.encoding import encode
from market_data_store.protocol import Counts
from market_data_store.wire.arrow import frame_of
from market_data_store.wire.moments import microseconds
from market_data_store.wire.rows import read_rows


@pytest.fixture
def writer(database_url: str) -> Iterator[Writer]:
    writer = Writer(database_url)
    yield writer
    writer.close()


def load(writer: Writer, dataset: Dataset, file: Path) -> Counts:
    """Write the file's rows in one message."""
    rows = frame_of(pq.read_table(file)).objects()
    for row in rows:
        row["metadata"] = row["metadata"] and json.loads(row["metadata"])
    now = microseconds(datetime.now(UTC))
    content = read_rows(dataset, encode(rows, 0), {})
    sent = DecodedMessage(task_id="t", dataset=dataset, rows=content, enqueued_at=now)
    return writer.write(decoded(dataset, [sent]), [sent]).counts[0]


@pytest.mark.usefixtures("any_year")
@pytest.mark.parametrize("name", DATASETS)
def test_what_is_loaded_back_is_the_same_table_and_the_same_file(
    name: str, writer: Writer, database: Connection, tmp_path: Path
) -> None:
    dataset, first, second = DATASETS[name], tmp_path / "first.parquet", tmp_path / "second.parquet"
    write(writer, message(awkward(dataset), name=name), name=name)
    held = database.execute(f"SELECT {dataset.table.name}::text FROM {dataset.table.name}").rowcount
    rows = export(database, dataset, first, {}).rows
    assert rows == held > 100
    assert pq.read_table(first).num_rows == rows
    assert load(writer, dataset, first) == Counts(unchanged=rows)
    csv = export_text(database, dataset, tmp_path)
    database.execute(f"TRUNCATE {dataset.table.name}")
    assert load(writer, dataset, first) == Counts(written=rows)
    assert export_text(database, dataset, tmp_path) == csv
    assert export(database, dataset, second, {}).rows == rows
    assert second.read_bytes() == first.read_bytes()


def export_text(database: Connection, dataset: Dataset, directory: Path) -> bytes:
    export(database, dataset, directory / "x.csv", {})
    return (directory / "x.csv").read_bytes()


def test_parquet_has_the_types_of_the_table(writer: Writer, database: Connection, tmp_path: Path) -> None:
    export(database, DATASETS["ticks"], tmp_path / "x.parquet", {})
    found = pq.read_table(tmp_path / "x.parquet")
    assert found.num_rows == 0
    types = {field.name: str(field.type) for field in found.schema}
    assert types == {
        **dict.fromkeys(("provider", "symbol", "trade_id", "side", "venue", "metadata"), "string"),
        **dict.fromkeys(("ts", "received_at"), "timestamp[us, tz=UTC]"),
        **dict.fromkeys(("price", "size", "bid", "ask"), "double"),
        **{"seq": "int64", "nanos": "int32", "conditions": types["conditions"]},
    }
    assert re.fullmatch("list<.*: string>", types["conditions"])


def test_row_groups_do_not_depend_on_how_rows_come(tmp_path: Path) -> None:
    whole = pa.record_batch({"a": list(range(200_000))})
    for name, size in (("a", 200_000), ("b", 7_777), ("c", 65_536)):
        with (tmp_path / name).open("wb") as stream:
            done: list[int] = []
            parts = (whole.slice(start, size) for start in range(0, len(whole), size))
            write_parquet(whole.schema, parts, stream, done.append)
            assert done == [65_536, 65_536, 65_536, 3_392]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert pq.read_table(tmp_path / "b").to_batches()[0].num_rows > 0


@pytest.mark.parametrize("suffix", ["csv", "ndjson.gz", "parquet"])
def test_several_names_choose_rows(suffix: str, writer: Writer, database: Connection, tmp_path: Path) -> None:
    symbols = ["A", "B", "it's", "%s"]
    write(writer, message([bar(provider=p, symbol=s) for p in "pq" for s in symbols]))
    file = tmp_path / f"x.{suffix}"
    for criteria, rows in (
        ({"symbol": ["B", "it's", "%s", "gone"]}, 6),
        ({"symbol": "%s", "provider": ["p", "q"]}, 2),
        ({"symbol": ["A"], "provider": ["q"], "interval": ["1m", "5m"]}, 1),
        ({"symbol": None, "provider": ["r"]}, 0),
    ):
        assert export(database, DATASETS["bars"], file, criteria).rows == rows


@pytest.mark.parametrize("suffix", ["csv", "ndjson.gz", "parquet"])
def test_the_new_file_has_the_mode_of_the_old_one(
    suffix: str, writer: Writer, database: Connection, tmp_path: Path
) -> None:
    write(writer, message(bars(2)))
    file = tmp_path / f"x.{suffix}"
    for mode in (0o600, 0o644, 0o640):
        file.touch()
        file.chmod(mode)
        export(database, DATASETS["bars"], file, {})
        assert stat.S_IMODE(file.stat().st_mode) == mode
    victim = tmp_path / "victim"
    victim.write_text("precious")
    file.unlink()
    file.symlink_to(victim)
    export(database, DATASETS["bars"], file, {})
    assert not file.is_symlink()
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim", file.name]


def test_the_part_is_a_file_that_nobody_else_has_made(
    writer: Writer, database: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name cannot be guessed; and if it could, what has it is neither followed nor written to."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    (tmp_path / "x.csv.known.part").symlink_to(victim)
    with pytest.raises(MarketDataStoreError, match=r"^cannot write .*/x\.csv: File exists$"):
        export(database, DATASETS["bars"], tmp_path / "x.csv", {})
    assert victim.read_text() == "precious"
    assert (tmp_path / "x.csv.known.part").is_symlink()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_disk_that_is_full_leaves_the_file_as_it_was(
    suffix: str, writer: Writer, database: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer, message(bars(10)))
    file = tmp_path / f"x.{suffix}"
    file.write_text("before")

    def full(stream: Any, *_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MarketDataStoreError, match="No space left on device"):
        export(database, DATASETS["bars"], file, {})
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_in_the_middle_leaves_no_file(database: Connection, tmp_path: Path) -> None:
    database.execute(
        "ALTER TABLE signals RENAME TO all_signals; CREATE VIEW signals AS SELECT 'p' AS provider, 'S' AS symbol, "
        "timestamptz '2024-01-01Z' AS ts, 'n' AS name, 1.0 / (20000 - i) AS value, 1.0 AS score, "
        "NULL::jsonb AS metadata FROM generate_series(1, 30000) AS i"
    )
    with pytest.raises(MarketDataStoreError, match=r"^Postgres: division by zero"):
        export(database, DATASETS["signals"], tmp_path / "x.parquet", {})
    assert list(tmp_path.iterdir()) == []


_SERIES: list[Row] = [
    *(bar(provider=p, symbol=s) for p, s in (("CME", "6EH4"), ("CME", "6JH4"), ("ibkr", "AAPL"))),
    bar(provider="ibkr", symbol="AAPL", ts="2024-02-01"),
]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--symbol", "aapl"], "no bars have the symbol 'aapl'; the nearest is AAPL (`mds series`)"),
        (["--provider", "nosuch"], "no bars have the provider 'nosuch'; there is CME, ibkr (`mds series`)"),
        (
            ["--provider", "CME", "--symbol", "AAPL"],
            "no bars have the symbol 'AAPL'; there is 6EH4, 6JH4 (`mds series`)",
        ),
        (
            ["--symbol", "AAPL", "--start", "2025-01-01"],
            "no bars match; ibkr AAPL 1m has rows from 2024-01-02 14:30:00Z to 2024-02-01 00:00:00Z",
        ),
        (
            ["--provider", "CME", "--end", "2020-01-01"],
            "no bars match; the 2 series of these names have rows from 2024-01-02 14:30:00Z to 2024-01-02 14:30:00Z",
        ),
    ],
)
def test_an_export_without_rows_says_what_there_is(
    arguments: list[str], said: str, writer: Writer, database_url: str, tmp_path: Path
) -> None:
    write(writer, message(_SERIES))
    done = mds(tmp_path, "export", "bars", "x.parquet", *arguments, DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, f"{said}\n")
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 0
    if arguments[0] == "--provider" and len(arguments) == 2:
        nothing = mds(tmp_path, "export", "news", "-", DATABASE_URL=database_url)
        assert nothing.stderr.endswith("\nno news are stored\n")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_reader_that_has_seen_enough_is_no_error(
    format_: str, writer: Writer, database: Connection, database_url: str, tmp_path: Path
) -> None:
    database.execute(
        "INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at) SELECT 'p', 'S', "
        "'1m', timestamptz '2024-01-01Z' + i * interval '1 minute', i, i, i, i, now() FROM generate_series(1, 100000) i"
    )
    script = f"{MDS[0]} export bars - --format {format_} | head -c 100 | wc -c; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=inherited({"DATABASE_URL": database_url}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.split(), done.stderr) == (["100", "0"], "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bars", "x.parquet.gz"], "x.parquet.gz: Parquet is compressed already; name it .parquet"),
        (["bars", "x.txt"], "x.txt: unknown format; name it .csv, .ndjson, .jsonl (plus .gz to compress it) or"),
        (["bars", "x.csv", "--format", "xlsx"], "'xlsx' is not one of 'csv', 'ndjson', 'parquet'"),
    ],
)
def test_a_wrong_format_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    refused = mds(tmp_path, "export", *arguments, DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert refused.returncode in (1, 2)
    assert message in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_postgres_works_leaves_no_file(database: Connection, database_url: str, tmp_path: Path) -> None:
    database.execute(
        "ALTER TABLE signals RENAME TO all_signals; CREATE FUNCTION slowly() RETURNS float8 LANGUAGE plpgsql VOLATILE "
        "COST 1000 AS $$ BEGIN PERFORM pg_sleep(60); RETURN 1; END $$; CREATE VIEW signals AS SELECT 'p' AS provider, "
        "'S' AS symbol, timestamptz '2024-01-01Z' AS ts, 'n' AS name, slowly() AS value, 1.0::float8 AS score, "
        "NULL::jsonb AS metadata"
    )
    arguments = (*MDS, "export", "signals", "x.parquet")
    command = Process(*arguments, directory=tmp_path, environment={"DATABASE_URL": database_url})
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    wait_until(lambda: database.execute(asleep).fetchall() == [(1,)], "Postgres works")
    command.send_signal(15)
    assert command.wait(20) == 143
    assert command.text() == "ended by SIGTERM; x.parquet was not written\n"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("x.")] == []
    wait_until(lambda: database.execute(asleep).fetchall() == [(0,)], "Postgres does not go on")
