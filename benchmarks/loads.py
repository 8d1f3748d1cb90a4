"""The command `python -m benchmarks.loads`: `mds load` of a CSV and of a Parquet file beside the bare COPY, end to end.

Each takes its turn with the same bars: the yardstick copies prepared tuples, and psql's `\\copy` (if there is a psql)
reads the file, but upserts nothing. A load counts from the start of its process to its end, beside a worker with two
processes. A ratio is the rate to that of the yardstick in the same round, and the median over the rounds counts.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks import processes
from benchmarks.contenders.bare_copy import BareCopy
from benchmarks.database import Database, created
from benchmarks.servers import DATABASE
from benchmarks.workloads import Workload
from market_data_store.local import start_postgres, start_valkey
from market_data_store.local.processes import worker_command

#: Rows of the yardstick: its tuples are prepared in memory.
_MOST_COPIED = 1_000_000
_BATCH = 100_000
#: The peak of a process that execs itself anew is its own; rusage's would be its parent's as well.
_LOAD = """
import sys
from pathlib import Path
from market_data_store.cli.main import cli
cli(sys.argv[1:], standalone_mode=False)
print(*(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""
_NAMES = ("provider", "symbol", "interval", "timestamp", "open", "high", "low", "close", "volume")
#: The ratios that are wanted.
WANTED = {"csv": 1.0, "parquet": 1.3}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows per second of one load, and the peak of its memory."""

    rate: float
    peak_mb: float


def write_files(workload: Workload, directory: Path) -> dict[str, Path]:
    """Write the bars as CSV and as Parquet."""
    files = {"csv": directory / "bars.csv", "parquet": directory / "bars.parquet"}
    schema = pa.schema(
        [(name, pa.string()) for name in _NAMES[:3]]
        + [("timestamp", pa.timestamp("us", tz="UTC"))]
        + [(name, pa.float64()) for name in _NAMES[4:]]
    )
    with (
        pyarrow.csv.CSVWriter(files["csv"], schema) as as_csv,
        pa.parquet.ParquetWriter(files["parquet"], schema) as typed,
    ):
        for columns in _columns(workload):
            batch = pa.RecordBatch.from_arrays(
                [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
            )
            as_csv.write_batch(batch)
            typed.write_batch(batch)
    return files


def _columns(workload: Workload) -> Iterator[list[list[object]]]:
    rows: list[tuple[object, ...]] = []
    for bar in workload.sent():
        rows.append(bar)
        if len(rows) == _BATCH:
            yield [list(column) for column in zip(*rows, strict=True)]
            rows = []
    if rows:
        yield [list(column) for column in zip(*rows, strict=True)]


class Bench:
    """A worker that waits, and files of bars."""

    def __init__(self, stack: ExitStack, database: Database, broker_url: str, rows: int, directory: Path) -> None:
        self._database = database
        self._rows = rows
        self._workload = Workload("fresh", rows, 500)
        self._environment = processes.environment(
            PYTHONPATH=str(processes.ROOT / "src"),
            BROKER_URL=broker_url,
            DATABASE_URL=database.url,
        )
        self._directory = directory
        self.files = write_files(self._workload, directory)
        worker = [sys.executable, "-m", *worker_command(concurrency=2)]
        running = processes.running(worker, self._environment, directory / "worker.log")
        stack.enter_context(running).until_logged("ready.")

    def copied(self) -> float:
        """The yardstick: rows per second of the bare COPY."""
        workload = Workload("fresh", min(self._rows, _MOST_COPIED), 500)
        yardstick = BareCopy(self._database, workload)
        yardstick.prepare()
        timing = yardstick.run()
        return timing.rows / timing.seconds

    def loaded(self, file: Path) -> Loaded:
        """Load a file into the empty table."""
        self._database.clear()
        self._database.settle()
        command = [sys.executable, "-c", _LOAD, "load", str(file), "--dataset", "bars", "--json"]
        started = time.perf_counter()
        said = processes.output(command, self._environment, 3_600.0, cwd=self._directory)
        return Loaded(self._rows / (time.perf_counter() - started), int(said.split()[-2]) / 1024)

    def psql(self) -> float | None:
        """Rows per second of psql's copy of the CSV file; None without a psql."""
        program = shutil.which("psql")
        if program is None:
            return None
        self._database.clear()
        self._database.settle()
        names = ", ".join("ts" if name == "timestamp" else name for name in _NAMES)
        copy = f"\\copy staged ({names}) from '{self.files['csv']}' with (format csv, header)"
        with self._database.connect() as connection:
            connection.execute("DROP TABLE IF EXISTS staged; CREATE TABLE staged (LIKE bars_ohlcv INCLUDING ALL)")
            connection.execute("ALTER TABLE staged ALTER enqueued_at SET DEFAULT now()")
            connection.commit()
            started = time.perf_counter()
            processes.output([program, self._database.url, "-c", copy], self._environment, 3_600.0)
            seconds = time.perf_counter() - started
            connection.execute("DROP TABLE staged")
            connection.commit()
        return self._rows / seconds


@contextmanager
def _bench(rows: int) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="mds-loads-") as name, ExitStack() as stack:
        directory = Path(name)
        postgres = stack.enter_context(start_postgres(directory / "postgres"))
        valkey = stack.enter_context(start_valkey(directory / "valkey"))
        database = stack.enter_context(created(postgres.url, DATABASE))
        yield Bench(stack, database, valkey.url, rows, directory)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rows", default=1_000_000, show_default=True, type=click.IntRange(1_000))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
def command(rows: int, rounds: int) -> None:
    """Load a CSV and a Parquet file of bars beside the bare COPY; exit with 1 if a ratio is not what is wanted."""
    ratios: dict[str, list[float]] = {name: [] for name in WANTED}
    with _bench(rows) as bench:
        for number in range(rounds):
            yardstick = bench.copied()
            said = [f"round {number + 1}: bare COPY {yardstick:,.0f} rows/s"]
            for name, file in bench.files.items():
                loaded = bench.loaded(file)
                ratios[name].append(loaded.rate / yardstick)
                said.append(f"{name} {loaded.rate:,.0f} ({loaded.rate / yardstick:.2f}, {loaded.peak_mb:.0f} MB)")
            copied = bench.psql()
            said.append("no psql" if copied is None else f"psql {copied:,.0f} ({copied / yardstick:.2f})")
            print(", ".join(said), flush=True)
    medians = {name: statistics.median(found) for name, found in ratios.items()}
    for name, ratio in medians.items():
        print(f"{name:<8} {ratio:.2f} of the bare COPY (wanted: {WANTED[name]:.1f})")
    sys.exit(0 if all(medians[name] >= wanted for name, wanted in WANTED.items()) else 1)


if __name__ == "__main__":
    command()
