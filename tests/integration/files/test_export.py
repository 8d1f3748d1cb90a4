"""An export, loaded back, is the same table, and exported again the same file."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.awkward import awkward
from support.fixtures.store import StartWorker
from support.processes import PYTHON, mds, run

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import InvalidMessage, MarketDataStoreError
from market_data_store.files.exporting import Exported, export
from market_data_store.files.options import Options
from market_data_store.files.plan import make_plan
from market_data_store.files.rows import made_rows
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.producer.encoding import encode
from market_data_store.protocol import Counts
from market_data_store.wire.arrow import frame_of, read_table
from market_data_store.wire.moments import microseconds
from market_data_store.wire.rows import read_rows
from market_data_store.wire.text import name_of

Row = dict[str, Any]

FORMATS = ["csv", "csv.gz", "ndjson", "ndjson.gz"]


class Store(NamedTuple):
    """A database, and the writer of a worker."""

    connection: psycopg.Connection[tuple[Any, ...]]
    writer: Writer

    def write(self, dataset: Dataset, rows: list[Any]) -> Counts:
        text, now = encode(rows, 0), microseconds(datetime.now(UTC))
        message = DecodedMessage(task_id="t", dataset=dataset, rows=read_rows(dataset, text, {}), enqueued_at=now)
        return self.writer.write(decoded(dataset, [message]), [message]).counts[0]

    def load(self, dataset: Dataset, file: Path) -> Counts:
        counts, now = Counts(), microseconds(datetime.now(UTC))
        for made in made_rows(make_plan(file, Options(dataset=dataset, last_wins=True))):
            rows = read_rows(dataset, encode(made.bad, 0), made.constants)
            if made.table is not None:
                rows = read_table(dataset, frame_of(made.table), made.constants)
            message = DecodedMessage(task_id="t", dataset=dataset, rows=rows, enqueued_at=now)
            counts += self.writer.write(decoded(dataset, [message]), [message]).counts[0]
        return counts

    def export(self, dataset: Dataset, file: Path, **criteria: Any) -> Exported:
        return export(self.connection, dataset, file, criteria)

    def empty(self, dataset: Dataset) -> None:
        self.connection.execute(f"TRUNCATE {dataset.table.name}")

    def held(self, dataset: Dataset) -> str:
        """All that is stored but `enqueued_at`, as a text that tells -0.0 from 0.0."""
        columns = ", ".join(column.name for column in dataset.columns)
        order = ", ".join(dataset.key)
        return repr(self.connection.execute(f"SELECT {columns} FROM {dataset.table.name} ORDER BY {order}").fetchall())


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    writer = Writer(database_url)
    with psycopg.connect(database_url, autocommit=True, options="-ctimezone=UTC") as connection:
        yield Store(connection, writer)
    writer.close()


@pytest.mark.usefixtures("any_year")
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", DATASETS)
def test_what_is_loaded_back_is_the_same_table_and_the_same_file(
    name: str, suffix: str, store: Store, tmp_path: Path
) -> None:
    dataset, first, second = DATASETS[name], tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    sent = awkward(dataset)
    for part in (sent[100:], sent[:100]):  # not in the order of the key
        assert store.write(dataset, part).rejected == 0
    held = store.held(dataset)
    rows = store.export(dataset, first).rows
    assert rows > 100
    assert store.load(dataset, first) == Counts(unchanged=rows)
    store.empty(dataset)
    assert store.load(dataset, first) == Counts(written=rows)
    assert store.held(dataset) == held
    assert store.export(dataset, second).rows == rows
    assert second.read_bytes() == first.read_bytes()


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
numbers = st.floats(-(2.0**63), 2.0**63) | st.none()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
signals = st.fixed_dictionaries(
    {
        **dict.fromkeys(("provider", "symbol", "name"), texts.filter(name_of)),
        "ts": st.datetimes(datetime(1900, 1, 1), datetime(2100, 12, 31)).map(datetime.isoformat),
        **dict.fromkeys(("value", "score"), numbers),
        "metadata": st.dictionaries(texts, json_values, max_size=3) | st.none(),
    }
)


def named(name: str) -> Row:
    """A signal of this name, of a provider and a symbol of this name."""
    moment = datetime(2000, 1, 1).isoformat()
    return {**dict.fromkeys(("provider", "symbol", "name"), name), "ts": moment, "value": None, "score": None}


@pytest.mark.parametrize("suffix", ["csv", "ndjson"])
@given(rows=st.lists(signals, min_size=1, max_size=8))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(rows=[named("NULL")])
@example(rows=[named("NaN"), named("-")])
@example(rows=[{**named("a"), "metadata": {"list": [{"a": 1}], "lists": [[None]], "none": [[]]}}])
def test_whatever_the_store_takes_comes_back(suffix: str, store: Store, tmp_path: Path, rows: list[Row]) -> None:
    dataset, first, second = DATASETS["signals"], tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    store.empty(dataset)
    assert store.write(dataset, rows).rejected == 0
    held = store.held(dataset)
    store.export(dataset, first)
    store.empty(dataset)
    assert store.load(dataset, first).rejected == 0
    assert store.held(dataset) == held
    store.export(dataset, second)
    assert second.read_bytes() == first.read_bytes()


def test_other_programs_read_it(store: Store, tmp_path: Path, database_url: str) -> None:
    """Whatever the server's settings: ISO 8601 in UTC, JSON in JSON, and the numbers as they were."""
    store.connection.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kolkata''', current_database()); "
        "EXECUTE format('ALTER DATABASE %I SET datestyle = ''SQL, DMY''', current_database()); "
        "EXECUTE format('ALTER DATABASE %I SET extra_float_digits = -5', current_database()); END $$"
    )
    dataset = DATASETS["signals"]
    row = {"provider": "p", "symbol": "S", "ts": "2024-01-02T14:30:00.5+00:00", "name": "-0"}
    values = {"value": 0.1 + 0.2, "score": -0.0, "metadata": {"a": ['"', "\\", None]}}
    store.write(dataset, [row | values])
    with psycopg.connect(database_url, autocommit=True) as connection:
        for suffix in FORMATS:
            export(connection, dataset, tmp_path / f"x.{suffix}", {})
    line = (tmp_path / "x.ndjson").read_text()
    assert json.loads(line) == row | values
    assert '"value":0.30000000000000004,"score":-0.0,' in line
    with (tmp_path / "x.csv").open(newline="") as lines:
        assert list(csv.DictReader(lines)) == [
            row | {"value": "0.30000000000000004", "score": "-0.0", "metadata": '{"a": ["\\"", "\\\\", null]}'}
        ]
    for suffix in ("csv", "ndjson"):
        packed = (tmp_path / f"x.{suffix}.gz").read_bytes()
        assert gzip.decompress(packed) == (tmp_path / f"x.{suffix}").read_bytes()
        assert packed[3:8] == bytes(5)  # no flags, so no name, and no time
    option = row | {"name": None, "expiry": "2024-01-19", "strike": 1, "option_type": "C"}
    store.write(DATASETS["options"], [option])
    with psycopg.connect(database_url, autocommit=True) as connection:
        export(connection, DATASETS["options"], tmp_path / "options.csv", {})
    assert (tmp_path / "options.csv").read_text().splitlines()[1].startswith("p,S,2024-01-19,1,C,2024-01-02T14:30:00.5")


def test_an_empty_dataset_is_an_empty_file(store: Store, tmp_path: Path) -> None:
    for suffix, content in (("csv", b"provider,ts,id,title,symbol,url,sentiment_score,metadata\n"), ("ndjson", b"")):
        file = tmp_path / f"x.{suffix}"
        assert store.export(DATASETS["news"], file).rows == 0
        assert file.read_bytes() == content
        with pytest.raises(InvalidMessage, match=r"no (row|record)"):
            store.load(DATASETS["news"], file)


def test_criteria_choose_the_rows(store: Store, tmp_path: Path) -> None:
    at = "2024-01-0{}T00:00:00Z"
    prices = dict.fromkeys(("open", "high", "low", "close"), 1)
    keys = [(p, s, i, d) for p in "pq" for s in "AB" for i in ("1m", "5m") for d in range(1, 5)]
    rows = [{"provider": p, "symbol": s, "interval": i, "ts": at.format(d), **prices} for p, s, i, d in keys]
    assert store.write(DATASETS["bars"], rows) == Counts(written=32)
    file = tmp_path / "x.jsonl"
    start, end = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC)
    criteria = {"provider": "q", "symbol": "A", "interval": "5m", "start": start, "end": end}
    for count, name in zip((32, 16, 8, 4, 3, 2), (None, *criteria), strict=True):
        chosen = dict(list(criteria.items())[: 0 if name is None else list(criteria).index(name) + 1])
        assert store.export(DATASETS["bars"], file, **chosen).rows == count
    assert [json.loads(line)["ts"] for line in file.read_text().splitlines()] == [
        "2024-01-02T00:00:00+00:00",
        "2024-01-03T00:00:00+00:00",
    ]


@pytest.mark.parametrize("suffix", ["csv", "ndjson"])
def test_what_the_store_would_not_have_taken_is_null_or_refused_when_it_is_loaded(
    suffix: str, store: Store, tmp_path: Path
) -> None:
    insert = "INSERT INTO signals VALUES ('p', 'S', '2024-01-01Z', %s, %s, 1, NULL, now())"
    for name, value in (("a", "NaN"), ("b", "Infinity"), ("", 1), ("d", 1)):
        store.connection.execute(insert, [name, value])
    file = tmp_path / f"x.{suffix}"
    assert store.export(DATASETS["signals"], file).rows == 4
    store.empty(DATASETS["signals"])
    assert store.load(DATASETS["signals"], file) == Counts(written=3, rejected=1)
    assert store.connection.execute("SELECT value FROM signals ORDER BY name").fetchall() == [(None,), (None,), (1,)]


@pytest.mark.parametrize("suffix", ["csv", "ndjson.gz"])
def test_an_export_that_fails_leaves_the_file_as_it_was(suffix: str, store: Store, tmp_path: Path) -> None:
    store.connection.execute("ALTER TABLE signals RENAME TO all_signals")
    store.connection.execute(
        "CREATE VIEW signals AS SELECT 'p' AS provider, 'S' AS symbol, timestamptz '2024-01-01Z' AS ts, 'n' AS name, "
        "1.0 / (20000 - i) AS value, 1.0 AS score, NULL::jsonb AS metadata FROM generate_series(1, 30000) AS i"
    )
    file = tmp_path / f"x.{suffix}"
    file.write_text("before")
    with pytest.raises(MarketDataStoreError, match=r"^Postgres: division by zero"):
        store.export(DATASETS["signals"], file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(MarketDataStoreError, match=r"cannot write .*gone/x\.\S+: No such file or directory"):
        store.export(DATASETS["news"], tmp_path / "gone" / file.name)


def test_what_a_kill_leaves_behind_is_no_file_to_load(tmp_path: Path) -> None:
    part = tmp_path / "bars.csv.17.part"
    part.write_text("provider\n")
    with pytest.raises(InvalidMessage, match="the unfinished file of an export"):
        make_plan(part, Options(dataset=DATASETS["bars"]))


@pytest.fixture
def broker_url(redis_url: str) -> str:
    return redis_url


def test_mds_exports_and_loads_by_way_of_a_worker(
    store: Store, database_url: str, broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    start_worker()
    for name, suffix in (("ticks", "csv.gz"), ("news", "ndjson")):
        dataset, first, second = DATASETS[name], tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
        rows = store.write(dataset, awkward(dataset)).written
        held = store.held(dataset)
        exported = mds(tmp_path, "export", name, first.name, **environment)
        assert exported.returncode == 0, exported
        assert exported.stdout.startswith(f"{first.name}: {rows:,} rows, "), exported
        store.empty(dataset)
        loaded = mds(tmp_path, "load", first.name, "--dataset", name, **environment)
        assert f"rows stored   {rows:,} ({rows:,} written, 0 unchanged)" in loaded.stdout, loaded
        assert store.held(dataset) == held
        assert mds(tmp_path, "export", name, second.name, **environment).returncode == 0
        assert second.read_bytes() == first.read_bytes()
    printed = mds(tmp_path, "export", "news", "-", **environment)
    assert printed.stdout == (tmp_path / "first.ndjson").read_text()
    assert printed.stderr.startswith("-: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zz", "x.csv"], "'zz' is not one of 'bars'"),
        (["bars", "x.txt"], "error: x.txt: unknown format; name it .csv, "),
        (["bars", "x.csv", "--start", "soon"], "'soon' is not a time; write 2024-01-02 or 2024-01-02T14:30:00Z"),
        (["ticks", "x.csv", "--interval", "1m"], "--interval 1m: ticks have no interval; only bars do"),
        (["ticks", "x.csv"], "error: cannot connect to postgresql://***@127.0.0.1:9/market: "),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    failed = mds(tmp_path, "export", *arguments, DATABASE_URL="postgresql://me:s3cret@127.0.0.1:9/market")
    assert failed.returncode in (1, 2)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "s3cret" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


#: The peak of a process that execs itself anew is its own; rusage's would be its parent's as well.
PEAK = """
import sys
from pathlib import Path
from market_data_store.cli.main import cli
cli(sys.argv[1:], standalone_mode=False)
(line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(line.split()[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(store: Store, database_url: str, tmp_path: Path) -> None:
    store.connection.execute(
        "INSERT INTO tick_data SELECT 'p', 'S' || i % 10, timestamptz '2024-01-01Z' + i * interval '1 second', i, "
        "i / 7.0, i, i / 3.0, NULL, now() FROM generate_series(1, 300000) AS i"
    )

    def peak_kb(file: Path, *options: str) -> int:
        command = [PYTHON, "-c", PEAK, "export", "ticks", str(file), *options]
        done = run(*command, directory=tmp_path, environment={"DATABASE_URL": database_url})
        assert done.returncode == 0, done
        return int(done.stdout.splitlines()[-1])

    small = peak_kb(tmp_path / "small.csv.gz", "--end", "2024-01-01T00:16:40Z")
    for name in ("large.csv.gz", "large.ndjson"):
        grown = peak_kb(tmp_path / name) - small
        assert grown < 10_000, f"{name}: {grown:,} KB"
    assert (tmp_path / "large.ndjson").stat().st_size > 30_000_000
