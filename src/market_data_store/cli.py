"""The command `mds`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from market_data_store import dead_letter_commands, dead_letters, export_command, job_commands, processes
from market_data_store import demo as demo_data
from market_data_store.config import given, settings, without_password
from market_data_store.coordinator.watermarks import Watermarks
from market_data_store.datasets import DATASETS, dataset_named
from market_data_store.errors import MarketDataStoreError
from market_data_store.files import RowFile
from market_data_store.postgres import schema
from market_data_store.postgres.connection import connect

PORT = click.IntRange(0, 65_535)

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def main() -> None:
    """Run `mds`; an error of ours is one line and exit code 1."""
    # What was started ends with us, in order. SIGINT too: a shell starts background jobs with it ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MarketDataStoreError as error:
        errors.print(f"error: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="market-data-store", prog_name="mds")
def cli() -> None:
    """Market data, written to Postgres in batches by Celery workers.

    \b
    Try it:           mds demo
    Work with it:     mds up
    Load a file:      mds load bars.csv.gz --dataset bars --provider cme --interval 1m --symbol 6EH4
    """


cli.add_command(dead_letter_commands.commands)
cli.add_command(export_command.export)
cli.add_command(job_commands.jobs)


@cli.command()
@click.option("--web-port", type=PORT, default=8081, show_default=True, help="Health, metrics, status page; 0: none.")
@click.option(
    "--flower-port", type=PORT, default=processes.FLOWER_PORT, show_default=True, help="Flower; 0: no Flower."
)
@click.option("--concurrency", type=click.IntRange(1), help="Pool processes of the worker.  [default: one a core]")
def up(web_port: int, flower_port: int, concurrency: int | None) -> None:
    """Run the store on this machine until Ctrl-C: web, worker, monitor and Flower, on 127.0.0.1.

    Postgres and Valkey come along and keep their data in .mds (MDS_HOME), unless DATABASE_URL and BROKER_URL are set.
    Other mds commands in this directory find them by themselves.

    \b
    mds up
    DATABASE_URL=postgresql://me@db/market mds up --concurrency 4
    """
    commands = {
        "worker": processes.worker_command(concurrency=concurrency),
        "monitor": ["market_data_store", "monitor"],
    }
    pages = {}
    if web_port:
        commands["web"], pages["WEB"] = processes.web_command(), web_port
    if flower_port:
        commands["flower"], pages["FLOWER"] = ["market_data_store", "flower", f"--port={flower_port}"], flower_port
    processes.require_free(web_port, "--web-port")
    processes.require_free(flower_port, "--flower-port")
    with _store(commands, _print_line, web_port=web_port) as running:
        for name, port in pages.items():
            processes.wait_until(partial(processes.accepts, port), running, f"{name.lower()} listens")
            console.print(f"{name:<13} http://127.0.0.1:{port}")
        console.print("Ready; Ctrl-C stops everything.")
        try:
            while (ended := running.ended()) is None:
                time.sleep(0.2)
        except KeyboardInterrupt:
            console.print("Stopping.")
            return
        raise MarketDataStoreError(f"{ended.name} ended with status {ended.popen.returncode}")


@cli.command()
@click.option("--keep-log", is_flag=True, help="Show what the worker says.")
def demo(keep_log: bool) -> None:
    """Send a month of real CME bars through the store, and compare what Postgres holds with the file.

    Starts what `mds up` starts. Exits with 1 and what differs when the two are not equal; run again, it finds every
    row unchanged.
    """
    with _store({"worker": processes.worker_command()}, _print_line if keep_log else lambda *_: None) as running:
        from market_data_store.loading import load_file

        source = RowFile(demo_data.FILE, DATASETS["bars"])
        summary = load_file(source, demo_data.DEFAULTS, console, job_name="mds demo")
        with connect(running.database_url) as connection:
            found = list(demo_data.differences(connection))
        summary.show(source, console)
        console.print(f"compared      {'equal to the file' if not found else f'{len(found):,} differ'}")
        for difference in found[:20]:
            console.print(f"  {difference}", markup=False)
        if found or summary.rejected:
            raise MarketDataStoreError("what Postgres holds is not what was sent")


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dataset", required=True, type=click.Choice(list(DATASETS)), help="What the rows are.")
@click.option("--provider", help="For rows that name none.")
@click.option("--interval", help="For bars that name none, such as 1m.")
@click.option("--symbol", help="For rows that name none.")
@click.option("--map", "columns", multiple=True, metavar="NAME=COLUMN", help="A field, and its column in the file.")
def load(
    file: Path, dataset: str, provider: str | None, interval: str | None, symbol: str | None, columns: tuple[str, ...]
) -> None:
    """Send the rows of FILE (.csv, .ndjson, .jsonl, also .gz) through the store.

    Each rejected row is named with its reason, and stays in the table dead_letters. Loading a file again changes
    nothing. `mds jobs` lists the loads.

    \b
    mds load 6EH4.csv.gz --dataset bars --provider cme --interval 1m --symbol 6EH4
    mds load ticks.csv --dataset quotes --provider truefx --symbol USD/JPY --map ts=when
    """
    options = {"provider": provider, "interval": interval, "symbol": symbol}
    defaults = {name: value for name, value in options.items() if value is not None}
    source = RowFile(file, dataset_named(dataset), _column_map(columns))
    settings().require_broker_url()
    from market_data_store.loading import load_file

    summary = load_file(source, defaults, console)
    summary.show(source, console)
    if summary.rejected:
        sys.exit(1)


@cli.command()
@click.option("--down", is_flag=True, help="Take back the newest migration, with the data in its tables.")
@click.option("--status", is_flag=True, help="Say where the database stands, and change nothing.")
def migrate(down: bool, status: bool) -> None:
    """Bring the database's schema up to date."""
    url = settings().migration_url
    if status:
        found = schema.revisions(url)
        console.print(f"revision {found.current or 'none'} of {found.head}: {_state(found)}")
        sys.exit(0 if found.up_to_date else 1)
    if down and sys.stdin.isatty():
        click.confirm(f"This drops tables, with their data, in {without_password(url)}. Go on?", abort=True)
    before, after = schema.downgrade(url) if down else schema.upgrade(url)
    console.print(f"revision {before.current or 'none'} -> {after.current or 'none'}")


@cli.command()
def monitor() -> None:
    """Watch the queue, and tell producers when to slow down; until SIGTERM or Ctrl-C.

    Several may run: one leads (by a lock in Redis, where there is one), another takes over when it is gone.
    """
    settings().require_broker_url()
    from market_data_store.app import app
    from market_data_store.coordinator.monitor import Monitor
    from market_data_store.coordinator.receivers import connected
    from market_data_store.metrics.definitions import count_delivery, expect_deliveries, show_look
    from market_data_store.metrics.server import monitor_metrics
    from market_data_store.protocol import QUEUE

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    configured = settings()
    loop = Monitor(
        app,
        QUEUE,
        capacity=configured.queue_capacity,
        watermarks=Watermarks.of(configured),
        interval_s=configured.monitor_interval_s,
        heartbeat_s=configured.feedback_heartbeat_s,
        redis_url=configured.feedback_url,
        namespace=configured.namespace,
        management_url=configured.rabbitmq_management_url,
        on_reading=partial(show_look, configured.queue_capacity),
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with monitor_metrics(), connected(configured, count_delivery) as receivers:
        expect_deliveries(name for name in receivers if name != "log")  # to write a line cannot fail
        logging.getLogger(__name__).info("Feedback goes to %s", ", ".join(receivers))
        loop.run(stop)


@cli.command()
@click.option("--port", type=PORT, help="Where it listens.  [default: PORT, else 5555]")
def flower(port: int | None) -> None:
    """Run Flower, which shows each task with its dataset and rows, the workers and the queue.

    It asks for FLOWER_BASIC_AUTH, user:password, which only MDS_ENV=development lets you leave out. Flower's own
    settings are variables: FLOWER_URL_PREFIX, FLOWER_MAX_TASKS, ...
    """
    settings().require_broker_url()
    environment = processes.flower_environment(settings(), port=port)
    os.execve(sys.executable, [sys.executable, "-m", *processes.flower_command()], environment)  # noqa: S606


@cli.command()
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, in a table that changes.")
def status(watch: bool) -> None:
    """Say what the database holds, how deep the queue is and which workers answer."""
    # Celery's app reads the settings when it is imported: only now are they complete.
    from market_data_store.app import app
    from market_data_store.coordinator import queue
    from market_data_store.protocol import QUEUE

    database_url, _ = settings().require_database_url(), settings().require_broker_url()
    if watch:
        from market_data_store import watching

        watching.watch(settings(), console)
    table = Table(show_header=False, box=None, pad_edge=False)
    found = schema.revisions(database_url)
    table.add_row("database", without_password(database_url), _state(found))
    if found.current is not None:
        with connect(database_url) as connection:
            table.add_row("dead letters", f"{dead_letters.count(connection):,}", "")
    with closing(queue.QueueInspector(app, QUEUE)) as inspector:
        depth, workers = inspector.depth(), inspector.workers()
    table.add_row("broker", without_password(settings().broker_url), "")
    table.add_row("queue", f"{depth:,} waiting", f"{depth / settings().queue_capacity:.0%} of capacity")
    table.add_row("workers", str(len(workers)), ", ".join(workers))
    console.print(table)
    if not workers or not found.up_to_date:
        sys.exit(1)


def _state(found: schema.Revisions) -> str:
    return "up to date" if found.up_to_date else f"revision {found.head} is due; run `mds migrate`"


@contextmanager
def _store(commands: dict[str, list[str]], log: processes.Log, *, web_port: int = 0) -> Iterator[processes.Running]:
    """The store with its worker ready, and its URLs printed."""
    own = given()
    with processes.servers(own) as running, processes.announced(own.home, running):
        settings.cache_clear()
        for name, url in (("DATABASE_URL", running.database_url), ("BROKER_URL", running.broker_url)):
            console.print(f"{name:<13} {url if name in running.urls else without_password(url)}", soft_wrap=True)
        from market_data_store.app import app
        from market_data_store.coordinator import queue
        from market_data_store.protocol import QUEUE

        with (
            processes.processes(running, commands, log, own, web_port=web_port),
            closing(queue.QueueInspector(app, QUEUE)) as inspector,
        ):
            processes.wait_until(lambda: bool(inspector.workers()), running, "a worker is ready")
            yield running


def _print_line(name: str, line: str) -> None:
    console.print(f"{name:>7} | {line}", markup=False, soft_wrap=True)


def _column_map(options: tuple[str, ...]) -> dict[str, str]:
    columns = {}
    for option in options:
        name, separator, column = option.partition("=")
        if not (name and separator and column):
            raise click.UsageError(f"--map {option}: write NAME=COLUMN, such as --map ts=timestamp")
        columns[name] = column
    return columns
