"""Redis Cluster cannot be the broker: every process says so in one line, and ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.processes import MDS, PYTHON, Part, Process, run
from support.waiting import wait_until
from support.web import APPLICATION

from market_data_store.local import free_port
from market_data_store.local.processes import worker_command
from market_data_store.local.programs import valkey_program

REFUSED = "Redis Cluster cannot be the broker; use a single primary or Sentinel"
_WRITE = """
from market_data_store import StoreClient
from market_data_store.errors import ConfigurationError
try:
    StoreClient().write("signals", [])
except ConfigurationError as error:
    raise SystemExit(f"error: {error}")
"""
COMMANDS: dict[str, tuple[Part, ...]] = {
    "worker": (PYTHON, "-m", *worker_command(concurrency=2)),
    "web": (PYTHON, "-m", "gunicorn", "-c", "python:market_data_store.service.gunicorn_conf", APPLICATION),
    "monitor": (*MDS, "monitor"),
    "flower": (*MDS, "flower", "--port", "0"),
    "status": (*MDS, "status"),
    "load": (*MDS, "load", "rows.csv", "--dataset", "signals"),
    "client": (PYTHON, "-c", _WRITE),
}


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one node, which has all slots."""
    directory, port = tmp_path_factory.mktemp("cluster"), free_port()
    options = ("--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-port", free_port())
    server = Process(valkey_program(), *map(str, options), directory=directory)
    with redis.Redis(port=port) as client:
        wait_until(lambda: answers(client), server.said)
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    yield f"redis://127.0.0.1:{port}/0"
    server.kill()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS])
def test_a_cluster_is_refused_in_one_line(name: str, cluster_url: str, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n")
    variables = {"BROKER_URL": cluster_url, "DATABASE_URL": database_url, "MDS_ENV": "development"}
    variables |= {"APP_PORT": str(free_port())}
    ended = run(*COMMANDS[name], directory=tmp_path, environment=variables, timeout_s=30)
    said = ended.stdout + ended.stderr
    assert ended.returncode in (1, 2), said
    assert said.count(REFUSED) == 1, said
    assert "Traceback" not in said
