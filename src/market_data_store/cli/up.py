"""`mds up`: runs the whole store on this machine."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import click

from market_data_store.app import app
from market_data_store.cli.flower import FLOWER_PORT, flower_environment
from market_data_store.cli.terminal import PORT, at_hangup, say
from market_data_store.config import settings_without_local_servers
from market_data_store.connections.addresses import is_loopback, own_url, reachable
from market_data_store.connections.urls import without_password
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import MarketDataStoreError
from market_data_store.local import processes
from market_data_store.local.host import accepts, require_free
from market_data_store.protocol import QUEUE


@click.command("up")
@click.option("--web-port", type=PORT, default=8081, show_default=True, help="Status page, health, metrics; 0: none.")
@click.option("--flower-port", type=PORT, default=FLOWER_PORT, show_default=True, help="Flower; 0: none.")
@click.option("--concurrency", type=click.IntRange(1), help="Pool processes of the worker.  [default: one per core]")
def command(web_port: int, flower_port: int, concurrency: int | None) -> None:
    """Run the store on this machine until Ctrl-C: web, worker, monitor and Flower, on 127.0.0.1 (or MDS_HOST).

    It also runs Postgres unless DATABASE_URL is set, and Valkey unless BROKER_URL is set. They keep their data in .mds
    (MDS_HOME), and other mds commands in this directory find them. It makes a password for each of them, for the admin
    endpoints and for Flower, which stay the same: see .mds/passwords.

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
    at_hangup(signal.getsignal(signal.SIGTERM))
    own = settings_without_local_servers()
    host = processes.listening_host(own)
    require_free(web_port, "--web-port", host)
    require_free(flower_port, "--flower-port", host)
    if flower_port and not is_loopback(host):
        flower_environment(own)  # others can reach it: it needs a password
    with running_store(commands, print_line, web_port=web_port) as running:
        for name, port in pages.items():
            processes.wait_until(partial(accepts, port, reachable(host)), running, f"{name.lower()} was listening")
            say(f"{name:<13} {own_url(host, port)}", markup=False)
        say("Ready; Ctrl-C stops everything.")
        try:
            while (ended := running.ended()) is None:
                running.bound_logs()
                time.sleep(0.2)
        except KeyboardInterrupt:
            say("Stopping.")
            return
        raise MarketDataStoreError(f"{ended.name} ended with status {ended.popen.returncode}; see its last lines above")


@contextmanager
def running_store(
    commands: dict[str, list[str]], log: processes.Log, *, web_port: int = 0
) -> Iterator[processes.Running]:
    """Run the store during the block: print its URLs, and wait until its worker is ready."""
    own = settings_without_local_servers()
    with processes.servers(own) as running, processes.announced(own.home, running):
        for name, url in (("DATABASE_URL", running.database_url), ("BROKER_URL", running.broker_url)):
            say(f"{name:<13} {without_password(url)}", markup=False)
        say(f"{'Passwords':<13} {running.passwords.path}, and of the servers {own.home / 'env'}", markup=False)
        with (
            processes.processes(running, commands, log, own, web_port=web_port),
            closing(QueueInspector(app, QUEUE)) as inspector,
        ):
            processes.wait_until(lambda: bool(inspector.workers()), running, "a worker was ready")
            yield running


def print_line(name: str, line: str) -> None:
    """Print a line of a process's output, after the name of the process."""
    say(f"{name:>7} | {line}", markup=False)
