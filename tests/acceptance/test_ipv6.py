"""Servers that are reached by IPv6 only, and processes that listen on both families."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from honcho.environ import parse_procfile
from support.doors import ipv6_in_front_of
from support.ports import free_ports
from support.processes import MDS, PYTHON, Process, run, running
from support.requirements import missing
from support.waiting import wait_until
from support.web import TOKEN, get, is_served

from market_data_store.local import free_port

pytestmark = pytest.mark.slow

PROCFILE = parse_procfile((Path(__file__).parents[2] / "Procfile").read_text()).processes
#: A name that has an IPv6 address only.
NAME = "six.test"
#: A user's program.
PROGRAM = """
from market_data_store import StoreClient
with StoreClient(confirm=True) as client:
    client.write("signals", [{"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9, "value": 1.0}])
"""


@pytest.fixture
def knowing_the_name(tmp_path: Path) -> tuple[str, ...]:
    """What stands before a command that is to know the name, without a change to this machine."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n::1 {NAME}\n")
    command = ("unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "-")
    if not shutil.which("unshare") or run(*command, "true", directory=tmp_path).returncode:
        missing("no mount namespace can be made here; run the tests as root")
    found = run(*command, PYTHON, "-c", f"import socket; print(socket.getaddrinfo({NAME!r}, 1))", directory=tmp_path)
    assert "AF_INET6" in found.stdout, found
    assert "AF_INET:" not in found.stdout, found
    return command


@pytest.fixture
def variables(request: pytest.FixtureRequest, broker: str, host: str, database_url: str) -> Iterator[dict[str, str]]:
    """The servers at an address or a name of IPv6."""
    with ExitStack() as stack:

        def at(url: str) -> str:
            parts = urlsplit(url)
            port = stack.enter_context(ipv6_in_front_of(parts.port or 0))
            user, at, _ = parts.netloc.rpartition("@")
            return parts._replace(netloc=f"{user}{at}{host}:{port}").geturl()

        of_redis = at(request.getfixturevalue("redis_url"))
        own = at(request.getfixturevalue("rabbitmq_url")) if broker == "rabbitmq" else of_redis
        yield {"DATABASE_URL": at(database_url), "BROKER_URL": own, "REDIS_URL": of_redis}


def answers_on_both(port: int, path: str, process: Process) -> None:
    urls = [f"http://{address}:{port}{path}" for address in ("127.0.0.1", "[::1]")]
    wait_until(lambda: all(map(is_served, urls)), lambda: process.said(" and ".join(urls)), timeout_s=60)


@pytest.mark.parametrize("host", ["[::1]", NAME])
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_servers_with_an_ipv6_address_are_used_and_all_processes_answer_on_both_families(
    variables: dict[str, str], knowing_the_name: tuple[str, ...], tmp_path: Path
) -> None:
    ports = dict(zip(("web", "worker", "monitor", "flower"), free_ports(4), strict=True))
    settings = {
        **variables,
        "MDS_HOST": "::",
        "MDS_ENV": "development",
        "ADMIN_TOKEN": TOKEN,
        "FLOWER_BASIC_AUTH": f"operator:{TOKEN}",
        "MDS_WORKER_METRICS_PORT": str(ports["worker"]),
        "MDS_MONITOR_METRICS_PORT": str(ports["monitor"]),
    }
    released = run(*knowing_the_name, *MDS, "migrate", directory=tmp_path, environment=settings)
    assert released.returncode == 0, released
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(
                running(
                    *(*knowing_the_name, "sh", "-c", f"exec {PROCFILE[name]}"),
                    directory=tmp_path,
                    name=name,
                    environment={**settings, "PORT": str(port)},
                )
            )
            for name, port in ports.items()
        }
        answers_on_both(ports["web"], "/readyz", started["web"])
        answers_on_both(ports["flower"], "/healthcheck", started["flower"])
        for name in ("worker", "monitor"):
            answers_on_both(ports[name], "/metrics", started[name])
            assert f"Serving metrics on http://[::1]:{ports[name]}/metrics" in started[name].text()
        program = run(*knowing_the_name, PYTHON, "-c", PROGRAM, directory=tmp_path, environment=settings)
        assert program.returncode == 0, program
        status = run(*knowing_the_name, *MDS, "status", directory=tmp_path, environment=settings)
        assert status.returncode == 0, status
        assert urlsplit(variables["BROKER_URL"]).netloc.rpartition("@")[2] in status.stdout
        if variables["BROKER_URL"].startswith("redis"):  # of RabbitMQ's queues the management API tells
            page = get(f"http://[::1]:{ports['flower']}/broker", auth=("operator", TOKEN))
            assert "store.write" in page.text


@pytest.mark.parametrize("host", ["::", "::1"])
def test_mds_up_listens_where_the_settings_say(host: str, tmp_path: Path) -> None:
    ports = {"web": free_port(), "flower": free_port()}
    command = (*MDS, "up", *(f"--{name}-port={port}" for name, port in ports.items()), "--concurrency=1")
    settings = {"MDS_HOST": host, "FLOWER_BASIC_AUTH": f"operator:{TOKEN}"}
    with running(*command, directory=tmp_path, environment=settings) as up:
        up.wait_for_text("Ready", timeout_s=90)
        for name, port, path in (("WEB", ports["web"], "/healthz"), ("FLOWER", ports["flower"], "/healthcheck")):
            assert f"{name:<13} http://[::1]:{port}\n" in up.text()
            assert is_served(f"http://[::1]:{port}{path}")
            assert is_served(f"http://127.0.0.1:{port}{path}") == (host == "::")
        assert get(f"http://[::1]:{ports['flower']}/api/workers").status_code == 401
        up.end(60)


def test_mds_up_is_not_open_to_others_without_a_password(tmp_path: Path) -> None:
    refused = run(*MDS, "up", "--web-port=0", directory=tmp_path, environment={"MDS_HOST": "::"})
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: FLOWER_BASIC_AUTH is not user:password with a password of your own of at least 16 "
    )
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / ".mds").exists()
