"""The command `python -m benchmarks.held`: what others lose while the table of one dataset takes no row.

A worker with two processes drains queues of bars with messages of signals among them. In turns, the table of signals is
well and in one kind of trouble. A ratio is the rate of bars in the trouble to the mean of the rates before and after.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import psycopg
from celery import Celery
from psycopg import sql

from benchmarks import processes
from benchmarks.servers import RABBITMQ, REDIS, Servers, servers
from benchmarks.workloads import Workload
from market_data_store.errors import MarketDataStoreError
from market_data_store.local.processes import worker_command
from market_data_store.protocol import QUEUE, TASK

#: Messages of a drain, and every which of them is of signals.
_PER_MESSAGE, _BARS, _SIGNALS_EVERY = 500, 400, 20
#: What is wanted.
_RATIO, _LOG_LINES, _SEEN_S, _REPAIRED_S = 0.9, 100, 15.0, 60.0
_GIVE_UP_S = 180.0
_PAUSE_S = 1.5  # see `stations`
_ROLE = """
    CREATE ROLE benchmark_store LOGIN;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO benchmark_store;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO benchmark_store;
"""
_NO_ROLE = "DROP OWNED BY benchmark_store; DROP ROLE benchmark_store"
_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'benchmark_store'"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'benchmark_store' AND wait_event_type = 'Lock'"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is done to signals, what mends it, and what then restores the table."""

    begin: Sequence[str]
    mend: Sequence[str]
    restore: Sequence[str] = ()
    #: For so long at least it is measured.
    window_s: float = 0.0
    #: Ends with the session that began it.
    in_transaction: bool = False


_AWAY = "ALTER TABLE signals RENAME TO away"
_BACK = ("ALTER TABLE away RENAME TO signals",)
_GRANT = "GRANT ALL ON signals TO benchmark_store"
TROUBLES = {
    "column renamed": Trouble(
        ["ALTER TABLE signals RENAME score TO away"], ["ALTER TABLE signals RENAME away TO score"]
    ),
    "check": Trouble(
        ["ALTER TABLE signals ADD CONSTRAINT nothing CHECK (name IS NULL) NOT VALID"],
        ["ALTER TABLE signals DROP CONSTRAINT nothing"],
    ),
    "not null": Trouble(
        ["ALTER TABLE signals ADD owners int NOT NULL DEFAULT 0", "ALTER TABLE signals ALTER owners DROP DEFAULT"],
        ["ALTER TABLE signals DROP owners"],
    ),
    "foreign key": Trouble(
        [
            "CREATE TABLE owners (symbol text PRIMARY KEY)",
            "ALTER TABLE signals ADD CONSTRAINT owners FOREIGN KEY (symbol) REFERENCES owners NOT VALID",
        ],
        ["ALTER TABLE signals DROP CONSTRAINT owners", "DROP TABLE owners"],
    ),
    "trigger": Trouble(
        [
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$",
            "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON signals FOR EACH ROW EXECUTE FUNCTION refuse()",
        ],
        ["DROP FUNCTION refuse() CASCADE"],
    ),
    "right revoked": Trouble(["REVOKE INSERT, UPDATE ON signals FROM benchmark_store"], [_GRANT]),
    "locked": Trouble(["LOCK TABLE signals"], [], window_s=90.0, in_transaction=True),
    "no partition": Trouble(
        [_AWAY, "CREATE TABLE signals (LIKE away INCLUDING ALL) PARTITION BY RANGE (ts)", _GRANT],
        ["CREATE TABLE signals_all PARTITION OF signals DEFAULT", "INSERT INTO signals SELECT * FROM away"],
        ["DROP TABLE signals", *_BACK],
    ),
    "view": Trouble([_AWAY, "CREATE VIEW signals AS SELECT DISTINCT * FROM away"], ["DROP VIEW signals", *_BACK]),
    "time limit": Trouble(
        [
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(9); END $$",
            "CREATE TRIGGER wait BEFORE INSERT ON signals EXECUTE FUNCTION wait()",
            "ALTER ROLE benchmark_store SET statement_timeout = '2s'",
            _END_SESSIONS,
        ],
        ["DROP FUNCTION wait() CASCADE", "ALTER ROLE benchmark_store RESET ALL", _END_SESSIONS],
    ),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What one trouble cost."""

    ratio: float
    letters: int
    log_lines: int
    waiting: int
    seen_s: float
    repaired_s: float

    @property
    def is_fine(self) -> bool:
        """Whether each figure is as wanted."""
        return (
            self.ratio >= _RATIO
            and not self.letters
            and self.log_lines < _LOG_LINES
            and self.seen_s <= _SEEN_S
            and self.repaired_s <= _REPAIRED_S
        )


class Bench:
    """A worker, a monitor, and the queue that it drains."""

    def __init__(self, stack: ExitStack, found: Servers, broker: str, directory: Path) -> None:
        self._url, self._postgres_log = found.database.url, directory / "postgres" / "server.log"
        self._own = stack.enter_context(psycopg.connect(self._url, autocommit=True))
        self._own.execute(_ROLE)
        stack.callback(self._own.execute, _NO_ROLE)
        self._environment = processes.environment(
            PYTHONPATH=str(processes.ROOT / "src"),  # this tree's, whatever is installed
            BROKER_URL=found.brokers[broker],
            MDS_REMOTE_CONTROL="true",
            REDIS_URL=found.brokers[REDIS],
            DATABASE_URL=self._url.replace("postgres@", "benchmark_store@"),
        )
        self._directory = directory
        self._app = Celery(broker=found.brokers[broker], set_as_current=False)
        self._host = "held@benchmark"
        worker = [sys.executable, "-m", *worker_command(concurrency=2), "--hostname", self._host]
        self._worker = stack.enter_context(self._running(worker, "worker.log"))
        stack.enter_context(self._running([self._mds, "monitor"], "monitor.log"))
        self._worker.until_logged("ready.")
        workload = Workload("fresh", _PER_MESSAGE * _BARS, _PER_MESSAGE)
        self._bars = [[bar.to_json() for bar in message] for message in workload.messages()]
        self._sent = 0

    def rate(self) -> float:
        """Drain a full queue once: bars a second."""
        self._tell("cancel_consumer", reply=True)
        time.sleep(_PAUSE_S)
        self._own.execute("TRUNCATE bars_ohlcv")
        for number, rows in enumerate(self._bars):
            self._app.send_task(TASK, args=["bars", rows], queue=QUEUE)
            if number % _SIGNALS_EVERY == 0:
                self.send_signals()
        started = time.perf_counter()
        self._tell("add_consumer")
        self._until(lambda: self._count("bars_ohlcv") == _PER_MESSAGE * _BARS)
        return _PER_MESSAGE * _BARS / (time.perf_counter() - started)

    def send_signals(self) -> None:
        """Send a message of new signals."""
        rows = [
            {"provider": "p", "symbol": "S", "ts": 1_600_000_000 + n, "name": "n", "value": 1.0}
            for n in range(self._sent, self._sent + 10)
        ]
        self._sent += len(rows)
        self._app.send_task(TASK, args=["signals", rows], queue=QUEUE)

    def until_written(self) -> None:
        """Wait until all signals that were sent are stored."""
        self._until(lambda: self._count("signals") == self._sent)

    def measure(self, trouble: Trouble, window_s: float) -> Measured:
        """Put signals into this trouble, and mend it."""
        before, letters, lines = self.rate(), self._count("dead_letters"), self._log_lines()
        self.until_written()
        with ExitStack() as stack:
            culprit = stack.enter_context(psycopg.connect(self._url, autocommit=not trouble.in_transaction))
            for statement in trouble.begin:
                culprit.execute(statement)
            seen_s = self._seen_within()
            rates: list[float] = []
            waiting, ends = 0, time.monotonic() + max(window_s, trouble.window_s)
            while time.monotonic() < ends or not rates:
                rates.append(self.rate())
                waiting = max(waiting, self._own.execute(_WAITING).fetchall()[0][0])
            lines = self._log_lines() - lines
            for statement in trouble.mend:
                culprit.execute(statement)
        mended = time.monotonic()
        self.until_written()
        repaired_s = time.monotonic() - mended
        for statement in trouble.restore:
            self._own.execute(statement)
        self._own.execute("DELETE FROM signals")
        self._sent = 0
        rate, usual = sum(rates) / len(rates), (before + self.rate()) / 2
        return Measured(rate / usual, self._count("dead_letters") - letters, lines, waiting, seen_s, repaired_s)

    def _seen_within(self) -> float:
        """After how many seconds `mds status` shows that signals are held, while messages keep coming."""
        started = time.monotonic()
        with self._running([self._mds, "status", "--watch", "--json"], "status.log") as status:

            def is_seen() -> bool:
                self.send_signals()
                time.sleep(0.1)
                documents = map(json.loads, status.log.read_text().split("\n")[:-1])
                return any(held["dataset"] == "signals" and held["reason"] for d in documents for held in d["held"])

            self._until(is_seen)
        return time.monotonic() - started

    @property
    def _mds(self) -> str:
        return str(Path(sys.executable).with_name("mds"))

    def _running(self, command: Sequence[str], log: str) -> AbstractContextManager[processes.Process]:
        return processes.running(command, self._environment, self._directory / log)

    def _tell(self, command: str, *, reply: bool = False) -> None:
        self._app.control.broadcast(
            command, arguments={"queue": QUEUE}, destination=[self._host], reply=reply, limit=1, timeout=10.0
        )

    def _count(self, table: str) -> int:
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        return int(self._own.execute(query).fetchall()[0][0])

    def _log_lines(self) -> int:
        return self._postgres_log.read_bytes().count(b"\n")

    def _until(self, condition: Callable[[], bool]) -> None:
        ends = time.monotonic() + _GIVE_UP_S
        while not condition():
            if time.monotonic() > ends:
                log = self._worker.log.read_text()[-4_000:]
                raise MarketDataStoreError(f"not within {_GIVE_UP_S:g} s; the worker's log ends with:\n{log}")
            time.sleep(0.05)


def _chosen(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    if unknown := [name for name in names if name not in TROUBLES]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(TROUBLES)}")
    return names


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--only", callback=_chosen, default=",".join(TROUBLES), metavar="NAMES", help="Troubles to measure.")
@click.option("--broker", type=click.Choice([REDIS, RABBITMQ]), default=REDIS, show_default=True)
@click.option("--window-s", type=click.FloatRange(0.0), default=20.0, show_default=True, help="Of each trouble.")
def command(only: list[str], broker: str, window_s: float) -> None:
    """Measure what other datasets lose while one cannot be written. Ends with 1 if a figure is not as wanted."""
    out = Path("benchmarks/out")
    out.mkdir(parents=True, exist_ok=True)
    fine = True
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=out.resolve(), prefix="held-")))
        found = stack.enter_context(servers(directory, database_url="", redis_url="", rabbitmq_url=""))
        bench = Bench(stack, found, broker, directory)
        bench.rate()
        bench.until_written()
        click.echo("| trouble | rate of others | letters | log lines | waiting | seen after, s | repaired after, s | |")
        click.echo("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for name in only:
            m = bench.measure(TROUBLES[name], window_s)
            fine = fine and m.is_fine
            click.echo(
                f"| {name} | {m.ratio:.2f} | {m.letters} | {m.log_lines} | {m.waiting} | {m.seen_s:.1f} "
                f"| {m.repaired_s:.1f} | {'' if m.is_fine else 'not as wanted'} |"
            )
    sys.exit(not fine)


if __name__ == "__main__":
    command()
