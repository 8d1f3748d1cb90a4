"""`mds up`: runs the whole store on this machine."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import click

from market_data_store.app import app
from market_data_store.cli.flower import FLOWER_PORT, flower_environment
from market_data_store.cli.output import Output
from market_data_store.cli.terminal import PORT, at_hangup, say
from market_data_store.config import Settings, settings_without_local_servers
from market_data_store.connections.addresses import is_loopback, own_url, reachable
from market_data_store.connections.urls import without_password
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import MarketDataStoreError
from market_data_store.local import processes
from market_data_store.local.host import accepts, require_free
from market_data_store.local.ports import Ports
from market_data_store.protocol import QUEUE

_WEB_PORT = 8081
_METRICS_PORT = 9102


@click.command("up")
@click.option("--web-port", type=PORT, help="Status page, health, metrics; 0: none.  [default: 8081]")
@click.option("--flower-port", type=PORT, help="Flower; 0: none.  [default: 5555]")
@click.option("--metrics-port", type=PORT, help="Metrics of all, for Prometheus; 0: none.  [default: 9102]")
@click.option("--concurrency", type=click.IntRange(1), help="Pool processes of the worker.  [default: one per core]")
@click.option("-v", "--verbose", is_flag=True, help="Print all that the processes log while they start.")
def command(
    web_port: int | None, flower_port: int | None, metrics_port: int | None, concurrency: int | None, verbose: bool
) -> None:
    """Run the store on this machine until Ctrl-C: web, worker, monitor and Flower, on 127.0.0.1 (or MDS_HOST).

    It also runs Postgres unless DATABASE_URL is set, and Valkey unless BROKER_URL is set. They keep their data in .mds
    (MDS_HOME), and other mds commands in this directory find them. It makes a password for each of them, for the admin
    endpoints and for Flower, which stay the same: see .mds/passwords. So do the ports, see .mds/ports; one that is
    taken is changed, unless it was given.

    \b
    mds up
    DATABASE_URL=postgresql://me@db/market mds up --concurrency 4
    """
    at_hangup(signal.getsignal(signal.SIGTERM))
    own = settings_without_local_servers()
    host = processes.listening_host(own)
    if metrics_port is None and own.monitor_metrics_port:
        metrics_port = own.monitor_metrics_port
    given = ((web_port, "--web-port"), (flower_port, "--flower-port"), (metrics_port, "--metrics-port"))
    for port, option in given:
        if port:
            require_free(port, option, host)
    if flower_port != 0 and not is_loopback(host):
        flower_environment(own)  # others can reach it: it needs a password
    output = Output(verbose=verbose)
    say(f"Starting in {own.home.absolute()}{'' if verbose else ' (-v shows how)'}", markup=False)
    with running_servers() as servers:
        if web_port is None:
            web_port = servers.ports.port("web", host, usual=_WEB_PORT)
        if flower_port is None:
            flower_port = servers.ports.port("flower", host, usual=FLOWER_PORT)
        if metrics_port is None:
            metrics_port = servers.ports.port("metrics", host, usual=_METRICS_PORT)
        commands = {
            "worker": processes.worker_command(concurrency=concurrency),
            "monitor": ["market_data_store", "monitor"],
        }
        pages = {}
        if web_port:
            commands["web"], pages["WEB"] = processes.web_command(), web_port
        if flower_port:
            commands["flower"] = ["market_data_store", "flower", f"--port={flower_port}"]
            pages["FLOWER"] = flower_port
        if metrics_port:
            pages["METRICS"] = metrics_port
        ports = {"web_port": web_port, "flower_port": flower_port, "metrics_port": metrics_port}
        with running_processes(servers, commands, output, **ports) as running:
            try:
                for name, port in pages.items():
                    is_there = partial(accepts, port, reachable(host))
                    processes.wait_until(is_there, running, f"{name.lower()} was listening")
            except MarketDataStoreError:
                output.failed()
                raise
            for name, port in pages.items():
                path = "/metrics" if name == "METRICS" else ""
                say(f"{name:<13} {own_url(host, port)}{path}", markup=False)
            servers.say_addresses()
            say("Ready; Ctrl-C stops everything.")
            output.ready()
            _wait(running)


def _wait(running: processes.Running) -> None:
    try:
        while (ended := running.ended()) is None:
            running.bound_logs()
            time.sleep(0.2)
    except KeyboardInterrupt:
        say("Stopping.")
        return
    raise MarketDataStoreError(f"{ended.name} ended with status {ended.popen.returncode}; see its last lines above")


@dataclass(frozen=True, kw_only=True)
class Servers:
    """The servers that are running, and the ports of this directory."""

    settings: Settings
    running: processes.Running
    ports: Ports

    def say_addresses(self) -> None:
        """Print where the servers are, and where their passwords are kept."""
        running, home = self.running, self.settings.home
        for name, url in (("DATABASE_URL", running.database_url), ("BROKER_URL", running.broker_url)):
            say(f"{name:<13} {without_password(url)}", markup=False)
        say(f"{'Passwords':<13} {running.passwords.path}, and of the servers {home / 'env'}", markup=False)


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Run the servers during the block, and let other commands in this directory find them."""
    own = settings_without_local_servers()
    ports = Ports(own.home, partial(say, markup=False))
    with processes.servers(own, ports) as running, processes.announced(own.home, running):
        yield Servers(settings=own, running=running, ports=ports)


@contextmanager
def running_processes(
    servers: Servers, commands: dict[str, list[str]], output: Output, **ports: int
) -> Iterator[processes.Running]:
    """Run processes of the store during the block, which begins when the worker is ready."""
    servers.ports.keep()
    with (
        processes.processes(servers.running, commands, output, servers.settings, **ports) as running,
        closing(QueueInspector(app, QUEUE)) as inspector,
    ):
        try:
            processes.wait_until(lambda: bool(inspector.workers()), running, "a worker was ready")
        except MarketDataStoreError:
            output.failed()
            raise
        yield running
