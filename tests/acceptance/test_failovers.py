"""Brokers as they are hosted: each process goes on by itself over a failover, and says little about it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import redis
from support.doors import in_front_of
from support.hosted import MOST_LINES, Hosted
from support.processes import mds
from support.rabbitmq import RabbitMQ
from support.sentinels import Sentinels
from support.waiting import wait_until

from market_data_store.local import free_port, start_valkey

#: For so many seconds a Redis takes no writes.
TROUBLE_S = 20.0


@contextmanager
def sentinels(directory: Path) -> Iterator[Sentinels]:
    found = Sentinels(directory)
    try:
        yield found
    finally:
        found.stop()


@pytest.mark.parametrize(
    "failovers", [pytest.param(1, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.soak)]
)
def test_no_confirmed_row_is_lost_over_failovers_of_sentinel(failovers: int, database_url: str, tmp_path: Path) -> None:
    lines: list[dict[str, int]] = []
    seconds = []
    with sentinels(tmp_path / "redis") as servers, ExitStack() as stack:
        hosted = Hosted(stack, tmp_path, {"DATABASE_URL": database_url, **servers.environment})
        for _ in range(failovers):
            with hosted.counted_lines(lines):
                killed = servers.kill_master()
                seconds.append(hosted.goes_on())
            servers.bring_back(killed)
        hosted.settle()
        logs = hosted.logs()
        sys.stdout.write(  # shown with -s: the figures of docs/reliability.md
            f"\n{failovers} failovers: rows accepted {hosted.accepted()}, lost 0\n"
            f"seconds until every process went on: {[round(s, 1) for s in seconds]}\nlines logged: {lines}\n"
        )
    assert all(count < MOST_LINES for counts in lines for count in counts.values()), logs
    assert "Traceback" not in logs


def read_only(server: redis.Redis) -> None:
    server.replicaof("127.0.0.1", "1")


def full(server: redis.Redis) -> None:
    server.config_set("maxmemory", "1mb")


def works(server: redis.Redis) -> None:
    server.replicaof("NO", "ONE")
    server.config_set("maxmemory", "0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "said", "code"),
    [
        (read_only, "Redis is read-only; waiting", "READONLY"),
        (full, "Redis is full (maxmemory): it takes no message", "OOM"),
    ],
)
def test_a_redis_that_takes_no_writes_is_waited_out_and_said_once(
    trouble: Callable[[redis.Redis], None], said: str, code: str, database_url: str, tmp_path: Path
) -> None:
    lines: list[dict[str, int]] = []
    with (
        start_valkey(tmp_path / "redis") as valkey,
        redis.Redis.from_url(valkey.url) as server,
        ExitStack() as stack,
    ):
        hosted = Hosted(stack, tmp_path, {"DATABASE_URL": database_url, "BROKER_URL": valkey.url})
        with hosted.counted_lines(lines):
            trouble(server)
            end = time.monotonic() + TROUBLE_S
            wait_until(lambda: time.monotonic() > end, timeout_s=2 * TROUBLE_S)
            works(server)
            seconds = hosted.goes_on()
            logs = {name: process.whole_text() for name, process in hosted.processes.items()}
        sys.stdout.write(f"\n{trouble.__name__}: goes on after {seconds:.1f} s, lines logged: {lines}\n")
        hosted.settle()
    assert all(count < MOST_LINES for counts in lines for count in counts.values()), logs
    assert not any("Traceback" in log for log in logs.values())
    assert logs["worker"].count(said) == 1
    assert f"took no message ({code} " in logs["producer"]


@pytest.mark.slow
def test_processes_go_from_one_host_of_rabbitmq_to_another(
    rabbitmq_server: RabbitMQ, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    password = "hidden:7"
    rabbitmq_server.control("add_user", "store", password)
    rabbitmq_server.control("set_permissions", "-p", "/", "store", ".*", ".*", ".*")
    port = urlsplit(rabbitmq_server.url).port or 0
    lines: list[dict[str, int]] = []
    with ExitStack() as stack, ExitStack() as first_host:
        ports = [free_port(), first_host.enter_context(in_front_of(port)), stack.enter_context(in_front_of(port))]
        url = ";".join(f"amqp://store:{quote(password)}@127.0.0.1:{each}//" for each in ports)  # the first refuses
        servers = {"DATABASE_URL": database_url, "BROKER_URL": url, "REDIS_URL": redis_url}
        hosted = Hosted(stack, tmp_path, servers)
        with hosted.counted_lines(lines):
            first_host.close()
            seconds = hosted.goes_on()
        status = mds(tmp_path, "status", **servers)
        assert status.returncode == 0, status
        hosted.settle()
        logs = [process.log.read_text() for process in hosted.processes.values()]
    sys.stdout.write(f"\ngoes on after {seconds:.1f} s, lines logged: {lines}\n")
    assert all(count < MOST_LINES for counts in lines for count in counts.values()), logs
    said = "".join((*logs, status.stdout, status.stderr))
    assert "hidden" not in said
    assert "Traceback" not in said, said
