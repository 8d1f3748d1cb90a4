"""TLS to the brokers: which servers our processes accept and refuse, with certificates of a throwaway authority."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis
from support.databases import Connection
from support.doors import Certificates, certificates, tls_in_front_of
from support.fixtures.store import QUEUE
from support.ports import free_ports
from support.processes import MDS, mds, running
from support.rabbitmq import rabbitmq
from support.requirements import require_rabbitmq
from support.sentinels import Sentinels, require_redis_with_tls
from support.waiting import wait_until
from support.web import FLOWER, OPERATOR, get, monitor
from support.workers import working

from market_data_store.local import free_port, start_valkey

PATIENCE_S = 60.0
STREAM = "mdp:mdp.telemetry.feedback"


@dataclass(frozen=True)
class SecureBroker:
    """A broker that speaks TLS, and what our processes must know to believe it."""

    url: str
    authority: Path
    #: Variables of a process that has to do with it.
    more: dict[str, str] = field(default_factory=dict)

    def environment(self, database_url: str, **others: str) -> dict[str, str]:
        trust = {"SSL_CERT_FILE": str(self.authority)}
        return {"BROKER_URL": self.url, "DATABASE_URL": database_url, **trust, **self.more, **others}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure_redis(valkey_port: int, files: Certificates) -> Iterator[SecureBroker]:
    with tls_in_front_of(valkey_port, files) as port:
        yield SecureBroker(f"rediss://127.0.0.1:{port}/0", files.authority)


@pytest.fixture
def valkey_port(tmp_path: Path) -> Iterator[int]:
    with start_valkey(tmp_path / "valkey") as server:
        yield server.port


@pytest.fixture
def secure_rabbitmq(tmp_path: Path, files: Certificates) -> Iterator[SecureBroker]:
    """With its management API, which Flower's Broker page is made of."""
    require_rabbitmq()
    directory = tmp_path / "rabbitmq"
    directory.mkdir()
    port, management_port = free_ports(2)
    (directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
    (directory / "rabbitmq.conf").write_text(
        f"listeners.ssl.default = 127.0.0.1:{port}\n"
        f"ssl_options.cacertfile = {files.authority}\n"
        f"ssl_options.certfile = {files.certificate}\n"
        f"ssl_options.keyfile = {files.key}\n"
        f"management.tcp.ip = 127.0.0.1\n"
        f"management.tcp.port = {management_port}\n"
    )
    with rabbitmq(directory):
        url = f"amqps://guest:guest@127.0.0.1:{port}//"
        management = {"MDS_RABBITMQ_MANAGEMENT_URL": f"http://guest:guest@127.0.0.1:{management_port}"}
        yield SecureBroker(url, files.authority, management)


@pytest.fixture
def secure_sentinels(tmp_path: Path, files: Certificates) -> Iterator[SecureBroker]:
    require_redis_with_tls()
    servers = Sentinels(tmp_path / "redis", tls=files)
    environment = dict(servers.environment)
    yield SecureBroker(environment.pop("BROKER_URL"), files.authority, environment)
    servers.stop()


@pytest.mark.parametrize(
    "broker",
    [
        "secure_redis",
        pytest.param("secure_rabbitmq", marks=pytest.mark.slow),
        pytest.param("secure_sentinels", marks=pytest.mark.slow),
    ],
)
def test_rows_results_feedback_and_flower_go_by_tls(
    broker: str, request: pytest.FixtureRequest, database_url: str, database: Connection, tmp_path: Path
) -> None:
    secure: SecureBroker = request.getfixturevalue(broker)
    environment = secure.environment(database_url)
    file = tmp_path / "one.csv"
    file.write_text("ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n")
    with working(tmp_path, **environment):
        loaded = mds(tmp_path, "load", str(file), "--dataset", "signals", **environment)
        assert "rows stored   1 (1 written, 0 unchanged)" in loaded.stdout, loaded
        assert database.execute("SELECT value FROM signals").fetchall() == [(1.0,)]
        status = mds(tmp_path, "status", **environment)
        assert status.returncode == 0, status
        port = free_port()
        command = (*MDS, "flower", f"--port={port}")
        with running(*command, directory=tmp_path, environment={**environment, **FLOWER}):
            url = f"http://127.0.0.1:{port}/api/queues/length"
            wait_until(lambda: [QUEUE, 0] in lengths(url), "Flower shows the queue", timeout_s=PATIENCE_S)


def lengths(url: str) -> list[list[object]]:
    try:
        answer = get(url, auth=OPERATOR)
    except httpx.TransportError:
        return []
    # RabbitMQ's statistics, and so this number, come some seconds after the queue.
    queues = answer.json()["active_queues"] if answer.is_success else []
    return [[queue["name"], queue.get("messages")] for queue in queues]


def test_the_monitor_publishes_by_tls(
    secure_redis: SecureBroker, valkey_port: int, database_url: str, tmp_path: Path
) -> None:
    with (
        monitor(tmp_path, **secure_redis.environment(database_url)),
        redis.Redis(port=valkey_port) as client,
    ):
        wait_until(lambda: client.xlen(STREAM), "an event is on the stream", timeout_s=PATIENCE_S)


@pytest.fixture
def rabbitmq_port(rabbitmq_url: str) -> int:
    return urlsplit(rabbitmq_url).port or 0


@pytest.mark.parametrize(
    ("server", "url"),
    [("valkey_port", "rediss://127.0.0.1:{}/0"), ("rabbitmq_port", "amqps://guest:guest@127.0.0.1:{}//")],
)
def test_a_server_of_an_unknown_authority_or_under_another_name_is_refused(
    server: str, url: str, files: Certificates, request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> None:
    of_another = certificates(tmp_path, "DNS:broker.example.com")
    for made, trusted in ((files, of_another.authority), (of_another, of_another.authority)):
        with tls_in_front_of(request.getfixturevalue(server), made) as port:
            refused = mds(tmp_path, "status", **SecureBroker(url.format(port), trusted).environment(database_url))
        assert refused.returncode == 1
        (broker,) = (line for line in refused.stdout.splitlines() if line.startswith("broker "))
        assert "certificate verify failed" in broker.lower()
        assert refused.stderr == ""


@pytest.mark.parametrize("how", ["setting", "url"])
def test_a_redis_with_a_certificate_of_its_own_making_is_taken_when_told_to(
    how: str, secure_redis: SecureBroker, database_url: str, tmp_path: Path
) -> None:
    environment = secure_redis.environment(database_url, SSL_CERT_FILE="")
    if how == "setting":
        environment["MDS_REDIS_SSL_CERT_REQS"] = "none"
    else:
        environment["BROKER_URL"] += "?ssl_cert_reqs=CERT_NONE"
    assert "0 waiting" in mds(tmp_path, "status", **environment).stdout
