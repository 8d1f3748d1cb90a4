"""The command `python -m benchmarks.lanes`: what live rows lose by a backfill, and the backfill by live rows.

A producer writes live rows at a steady rate beside a worker with two processes: on a quiet store, and while another
producer sends history, as tables and as JSON. Postgres says when a row was committed, see `latency`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import click
from celery import Celery
from market_data_core.telemetry import BackpressureLevel

from benchmarks.latency import PERCENTILES
from benchmarks.processes import Process, environment, running
from benchmarks.servers import RABBITMQ, REDIS, Servers, servers
from market_data_store.coordinator.queue import QueueInspector, if_answered
from market_data_store.coordinator.watermarks import OK, Watermarks
from market_data_store.errors import MarketDataStoreError
from market_data_store.local.processes import worker_command
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE

KINDS = ("tables", "json")
#: What is wanted: milliseconds of p99, of which the larger counts, and the share of the rate.
_P99_MS, _TIMES_QUIET, _RATE = 150.0, 2.0, 0.9
_GIVE_UP_S, _LOOK_S = 7_200.0, 0.25
#: Messages that each lane may hold: so few of history that its producer is told to wait.
_CAPACITIES = {QUEUE: 10_000, BACKFILL_QUEUE: 50}


@dataclass(slots=True)
class Levels:
    """How often each level was seen in each lane."""

    seen: dict[str, Counter[str]] = field(default_factory=lambda: {QUEUE: Counter(), BACKFILL_QUEUE: Counter()})
    _last: dict[str, BackpressureLevel] = field(default_factory=dict)

    def look(self, inspectors: dict[str, QueueInspector]) -> None:
        """Read the depths."""
        for queue, inspector in inspectors.items():
            share = (if_answered(inspector.depth) or 0) / _CAPACITIES[queue]
            level = self._last[queue] = Watermarks().level(self._last.get(queue, OK), share)
            self.seen[queue][level.value] += 1

    def __str__(self) -> str:
        """Both lanes, in per cent of the looks."""
        return "; ".join(
            f"{queue}: " + ", ".join(f"{level} {n / counts.total():.0%}" for level, n in counts.items())
            for queue, counts in self.seen.items()
        )


class Bench:
    """A worker on one broker."""

    def __init__(self, stack: ExitStack, found: Servers, broker: str, directory: Path) -> None:
        self._stack, self._database, self._directory = stack, found.database, directory
        url = found.brokers[broker]
        self._environment = environment(
            BROKER_URL=url, DATABASE_URL=found.database.url, MDS_BACKFILL_CAPACITY=str(_CAPACITIES[BACKFILL_QUEUE])
        )
        command = [sys.executable, "-m", *worker_command(concurrency=2)]
        self._worker = stack.enter_context(running(command, self._environment, directory / f"worker-{broker}.log"))
        self._worker.until_logged("ready.")
        app = stack.enter_context(Celery(broker=url, set_as_current=False))
        self._inspectors = {
            queue: stack.enter_context(closing(QueueInspector(app, queue))) for queue in (QUEUE, BACKFILL_QUEUE)
        }

    def clear(self) -> None:
        """Empty the tables."""
        self._database.clear()
        self._database.settle()

    def live(self, stack: ExitStack, rate: int, seconds: float) -> Process:
        """Start the producer of live rows."""
        command = [sys.executable, "-m", "benchmarks.feed", str(max(1, round(rate * seconds))), str(rate)]
        return stack.enter_context(running(command, self._environment, self._directory / "live.log"))

    def history(self, stack: ExitStack, kind: str, rows: int) -> Process:
        """Start the producer of history."""
        command = [sys.executable, "-m", "benchmarks.history", kind, str(rows)]
        return stack.enter_context(running(command, self._environment, self._directory / "history.log"))

    def until_ended(self, process: Process, levels: Levels) -> str:
        """Look at the lanes until a process ends; return what it printed last."""
        ends = time.monotonic() + _GIVE_UP_S
        while process.is_running and time.monotonic() < ends:
            levels.look(self._inspectors)
            time.sleep(_LOOK_S)
        said = process.log.read_text().splitlines() or [""]
        if process.is_running or (said[-1] != "done" and not said[-1].startswith("{")):
            raise MarketDataStoreError(f"{process.log} ends with: {said[-1]}")
        return said[-1]

    def until_stored(self) -> None:
        """Wait until nothing waits, and what was taken is written."""
        while any(if_answered(inspector.depth) for inspector in self._inspectors.values()):
            time.sleep(_LOOK_S)
        time.sleep(1.0)

    def latency(self) -> tuple[float, float]:
        """Return p50 and p99 of the live rows in milliseconds."""
        with self._database.connect() as connection:
            p50, p99, _ = connection.execute(PERCENTILES).fetchall()[0]
        return float(p50), float(p99)

    def quiet(self, rate: int, seconds: float) -> tuple[float, float]:
        """Return the latency of live rows that have the store for themselves."""
        self.clear()
        with ExitStack() as stack:
            self.until_ended(self.live(stack, rate, seconds), Levels())
        self.until_stored()
        return self.latency()

    def backfill(self, kind: str, rows: int, rate: int, live_s: float) -> tuple[float, Levels, tuple[float, float]]:
        """Return the rows per second of a backfill, with live rows for so many seconds; levels and their latency."""
        self.clear()
        levels = Levels()
        with ExitStack() as stack:
            live = self.live(stack, rate, live_s) if live_s else None
            while live is not None and live.is_running and not self._database.count():
                time.sleep(_LOOK_S)  # its start is not what history waits for
            history = self.history(stack, kind, rows)
            seconds = json.loads(self.until_ended(history, levels))["seconds"]
            if live is not None:
                self.until_ended(live, Levels())
        self.until_stored()
        return rows / seconds, levels, self.latency() if live_s else (0.0, 0.0)


def _verdict(is_fine: bool) -> str:
    return "" if is_fine else "not as wanted"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--rows", type=click.IntRange(1), default=10_000_000, show_default=True, help="Rows of each backfill.")
@click.option("--rate", type=click.IntRange(1), default=50, show_default=True, help="Live rows a second.")
@click.option("--quiet-s", type=click.FloatRange(3.0), default=30.0, show_default=True, help="Of the quiet store.")
@click.option("--broker", "only", type=click.Choice([REDIS, RABBITMQ]), help="One broker instead of both.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=KINDS, help="Kind of history.")
def command(rows: int, rate: int, quiet_s: float, only: str | None, kinds: tuple[str, ...]) -> None:
    """Measure live rows during a backfill. Ends with 1 if a figure is not as wanted."""
    out = Path("benchmarks/out")
    out.mkdir(parents=True, exist_ok=True)
    fine = True
    with ExitStack() as all_of_it:
        directory = Path(all_of_it.enter_context(tempfile.TemporaryDirectory(dir=out.resolve(), prefix="lanes-")))
        found = all_of_it.enter_context(servers(directory, database_url="", redis_url="", rabbitmq_url=""))
        click.echo(
            "| broker | history | p50, p99 quiet, ms | p50, p99 under it, ms | wanted | its rows/s alone | with live |"
        )
        click.echo("| --- | --- | --- | --- | --- | --- | --- |")
        for broker in [only] if only else found.brokers:
            with ExitStack() as stack:
                bench = Bench(stack, found, broker, directory)
                quiet = bench.quiet(rate, quiet_s)
                for kind in kinds:
                    alone, _, _ = bench.backfill(kind, rows, rate, 0.0)
                    with_live, levels, under = bench.backfill(kind, rows, rate, rows / alone)
                    wanted, ratio = max(_P99_MS, _TIMES_QUIET * quiet[1]), with_live / alone
                    is_fine = under[1] <= wanted and ratio >= _RATE and set(levels.seen[QUEUE]) <= {OK.value}
                    fine = fine and is_fine
                    click.echo(
                        f"| {broker} | {kind} | {quiet[0]:.0f}, {quiet[1]:.0f} | {under[0]:.0f}, {under[1]:.0f} "
                        f"| {wanted:.0f} | {alone:,.0f} | {ratio:.2f} {_verdict(is_fine)} |"
                    )
                    click.echo(f"  levels: {levels}")
    sys.exit(not fine)


if __name__ == "__main__":
    command()
