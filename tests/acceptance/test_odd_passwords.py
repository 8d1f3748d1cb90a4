"""Passwords of odd characters with real servers: they open every connection, and nothing that is said shows them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import runpy
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import httpx
import psycopg
import pytest
import redis
from celery import Celery
from flower.utils.broker import Broker  # type: ignore[import-untyped]
from honcho.environ import parse_procfile
from psycopg import sql
from support.doors import ipv6_in_front_of
from support.passwords import PASSWORDS, WORST, encoded, showing
from support.processes import PYTHON, Process, mds, run, running
from support.rabbitmq import RabbitMQ
from support.requirements import require_rabbitmq
from support.waiting import wait_until
from support.web import OPERATOR, get, is_served

import market_data_store.app  # noqa: F401  # registers the serializers
from market_data_store import StoreClient, config
from market_data_store.cli.flower import flower_environment
from market_data_store.config import resource
from market_data_store.coordinator.leadership import Leadership
from market_data_store.coordinator.queue import QueueInspector, if_answered
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.local import EmbeddedServer, free_port, start_postgres, start_valkey
from market_data_store.postgres import schema
from market_data_store.postgres.connection import connect
from market_data_store.protocol import QUEUE
from market_data_store.transport.selection import StoreAMQP

pytestmark = pytest.mark.slow

ALL = (*PASSWORDS, WORST)
PROCFILE = parse_procfile((Path(__file__).parents[2] / "Procfile").read_text()).processes
ROW = {"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9, "value": 1.0}
#: A user's program.
PROGRAM = f"""
from market_data_store import StoreClient
with StoreClient(confirm=True) as client:
    client.write("signals", [{ROW}])
"""


def user(password: str) -> str:
    return f"odd{ALL.index(password)}"


@dataclass(frozen=True)
class Servers:
    """Each with a user for each password, and none without one."""

    postgres: EmbeddedServer
    valkey: EmbeddedServer
    rabbitmq: RabbitMQ
    management_port: int

    def variables(self, broker: str, password: str, name: str = "") -> dict[str, str]:
        who = f"{name or user(password)}:{encoded(password)}@127.0.0.1"
        of_redis = f"redis://{who}:{self.valkey.port}/0"
        rabbitmq_port = self.rabbitmq.url.rpartition(":")[2].partition("/")[0]
        others = {
            "REDIS_URL": of_redis,
            "BROKER_URL": f"amqp://{who}:{rabbitmq_port}//",
            "MDS_RABBITMQ_MANAGEMENT_URL": f"http://{who}:{self.management_port}",
        }
        return {
            "MDS_ENV": "development",
            "FLOWER_BASIC_AUTH": ":".join(OPERATOR),
            "DATABASE_URL": f"postgres://{who}:{self.postgres.port}/market_data",
            **({"BROKER_URL": of_redis} if broker == "redis" else others),
        }


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    require_rabbitmq()
    directory = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        postgres = stack.enter_context(start_postgres(directory / "postgres"))
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE odd")
            for password in ALL:
                role = sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {} IN ROLE odd")
                connection.execute(role.format(sql.Identifier(user(password)), sql.Literal(password)))
            rules = directory / "postgres/cluster/pg_hba.conf"
            rules.write_text("host all +odd 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
            connection.execute("SELECT pg_reload_conf()")
        valkey = stack.enter_context(start_valkey(directory / "valkey"))
        with redis.Redis.from_url(valkey.url) as client:
            for password in ALL:
                client.execute_command("ACL", "SETUSER", user(password), "on", f">{password}", "~*", "&*", "+@all")
            client.execute_command("ACL", "SETUSER", "default", "off")
        port = free_port()
        (directory / "rabbitmq").mkdir()
        (directory / "rabbitmq/enabled_plugins").write_text("[rabbitmq_management].\n")
        (directory / "rabbitmq/rabbitmq.conf").write_text(
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n"
        )
        rabbitmq = RabbitMQ(directory / "rabbitmq")
        rabbitmq.start()
        stack.callback(rabbitmq.stop)
        made = httpx.post(
            f"http://127.0.0.1:{port}/api/definitions", auth=("guest", "guest"), json=definitions(), timeout=30
        )
        assert made.status_code == 204, made.text
        yield Servers(postgres, valkey, rabbitmq, port)


def definitions() -> dict[str, object]:
    """RabbitMQ's users."""

    def hashed(password: str) -> str:
        salt = os.urandom(4)
        return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()

    everything = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    kind = {"hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"]}
    return {
        "users": [{"name": user(password), "password_hash": hashed(password), **kind} for password in ALL],
        "permissions": [{"user": user(password), **everything} for password in ALL],
    }


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, servers: Servers, broker: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[config.Settings]:
    for name, value in servers.variables(broker, password).items():
        monkeypatch.setenv(name, value)
    config.settings.cache_clear()
    yield config.settings()
    config.settings.cache_clear()


@pytest.fixture
def app(settings: config.Settings) -> Iterator[Celery]:
    """The store's application, as a process with these settings has it."""
    with Celery("odd", amqp=StoreAMQP, set_as_current=False) as app:
        app.config_from_object(SimpleNamespace(**runpy.run_path(str(resource("celeryconfig.py")))))
        yield app


@pytest.mark.parametrize("password", ALL)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_password_opens_every_connection(settings: config.Settings, app: Celery, broker: str) -> None:
    assert schema.upgrade(settings.migration_url)[1].up_to_date
    with connect(settings.require_database_url()) as connection:
        assert connection.execute("SELECT current_user::text LIKE 'odd%'").fetchone() == (True,)
    with closing(QueueInspector(app, QUEUE, management_url=settings.rabbitmq_management_url)) as inspector:
        before = inspector.depth()
        with StoreClient(app=app) as client:
            client.write("signals", [ROW])
        wait_until(lambda: inspector.depth() == before + 1, "the message is there")
        if broker == "redis":
            assert inspector.reserved() == 0
            assert app.backend.client.ping()
        else:
            wait_until(lambda: if_answered(inspector.reserved) == 0, "the management API tells", timeout_s=30)
    with closing(RedisFeedbackPublisher(settings.feedback_url)) as publisher:
        publisher.report("test", "ok")
        assert publisher.reported()["test"] == "ok"
    lease = f"lease-{uuid4().hex}"
    leadership = Leadership(settings.feedback_url, lease)
    assert leadership.held()
    with redis.Redis.from_url(settings.feedback_url) as client:
        assert client.exists(lease)  # it also leads where it cannot reach Redis
    leadership.release()
    # As Flower's Broker page does.
    with app.connection_for_read() as connection:
        url = connection.as_uri(include_password=True)
    api = flower_environment(settings).get("FLOWER_BROKER_API")
    shown = Broker(url, http_api=api, broker_options=app.conf.broker_transport_options)
    assert [found["name"] for found in asyncio.run(shown.queues([QUEUE]))] == [QUEUE]


@pytest.mark.parametrize("password", [WORST])
@pytest.mark.parametrize("broker", ["rabbitmq"])
def test_the_management_api_may_have_an_ipv6_address(servers: Servers, settings: config.Settings, app: Celery) -> None:
    with ipv6_in_front_of(servers.management_port) as port:
        url = settings.rabbitmq_management_url.replace(f"127.0.0.1:{servers.management_port}", f"[::1]:{port}")
        moved = settings.model_copy(update={"rabbitmq_management_url": url})
        with StoreClient(app=app) as client:
            client.write("signals", [ROW])
        with closing(QueueInspector(app, QUEUE, management_url=url)) as inspector:
            wait_until(lambda: if_answered(inspector.reserved) == 0, "the management API tells", timeout_s=30)
        shown = Broker(settings.broker_url, http_api=flower_environment(moved)["FLOWER_BROKER_API"])
        assert [found["name"] for found in asyncio.run(shown.queues([QUEUE]))] == [QUEUE]


def started(stack: ExitStack, directory: Path, variables: dict[str, str]) -> tuple[dict[str, Process], str, str]:
    """All processes of the Procfile, and the URLs of web and Flower."""
    ports = {"web": free_port(), "flower": free_port()}
    processes = {
        name: stack.enter_context(
            running(
                *("sh", "-c", f"exec {command}"),
                directory=directory,
                name=name,
                environment={**variables, "PORT": str(ports.get(name, 0))},
            )
        )
        for name, command in PROCFILE.items()
        if name != "release"
    }
    return processes, f"http://127.0.0.1:{ports['web']}", f"http://127.0.0.1:{ports['flower']}"


PAGES = {
    "web": ("/", "/health", "/readyz", "/status.json", "/metrics", "/openapi.json"),
    "flower": ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/metrics"),
}


def everything_said(processes: dict[str, Process], web: str, flower: str) -> str:
    pages = [
        get(url + path, auth=OPERATOR).text for url, name in ((web, "web"), (flower, "flower")) for path in PAGES[name]
    ]
    return "\n".join([*pages, *(process.whole_text() for process in processes.values())])


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_all_processes_work_with_the_worst_password_and_none_shows_it(
    servers: Servers, broker: str, tmp_path: Path
) -> None:
    variables = servers.variables(broker, WORST)
    released = mds(tmp_path, "migrate", **variables)
    assert released.returncode == 0, released
    with ExitStack() as stack:
        processes, web, flower = started(stack, tmp_path, variables)
        wait_until(lambda: is_served(f"{web}/readyz"), lambda: everything_said(processes, web, flower), timeout_s=60)
        wait_until(lambda: is_served(f"{flower}/healthcheck"), processes["flower"].said, timeout_s=60)
        program = run(PYTHON, "-c", PROGRAM, directory=tmp_path, environment=variables)
        assert program.returncode == 0, program
        with psycopg.connect(variables["DATABASE_URL"], autocommit=True) as connection:
            wait_until(
                lambda: connection.execute("SELECT FROM signals WHERE symbol = 'S'").rowcount == 1,
                lambda: everything_said(processes, web, flower),
            )
        assert QUEUE in get(f"{flower}/broker", auth=OPERATOR).text
        status = [mds(tmp_path, "status", *options, **variables) for options in ([], ["--json"])]
        assert [done.returncode for done in status] == [0, 0], status
        said = everything_said(processes, web, flower)
        for done in (released, program, *status):
            said += done.stdout + done.stderr
        assert "odd" in said  # it shows something of the servers: Celery shows the user
        assert showing(said, WORST) == []


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_what_is_refused_by_the_servers_is_said_without_the_password(
    servers: Servers, broker: str, tmp_path: Path
) -> None:
    variables = servers.variables(broker, WORST, name="nobody")
    with ExitStack() as stack:
        processes, web, flower = started(stack, tmp_path, variables)
        wait_until(lambda: is_served(f"{web}/healthz"), processes["web"].said, timeout_s=60)
        commands = [mds(tmp_path, *arguments, **variables) for arguments in (["status"], ["migrate", "--wait", "0"])]
        assert [done.returncode for done in commands] == [1, 1]
        program = run(PYTHON, "-c", PROGRAM, directory=tmp_path, environment=variables)
        assert program.returncode == 1
        wait_until(lambda: "does not answer: " in processes["worker"].text(), processes["worker"].said, timeout_s=60)
        wait_until(lambda: is_served(f"{flower}/healthcheck"), processes["flower"].said, timeout_s=60)
        wait_until(lambda: get(f"{web}/readyz").status_code == 503, "not ready", timeout_s=60)
        said = everything_said(processes, web, flower)
        for done in (*commands, program):
            said += done.stdout + done.stderr
        assert showing(said, WORST) == []
