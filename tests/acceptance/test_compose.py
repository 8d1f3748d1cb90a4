"""What deploy/compose.yaml starts, on servers of the tests instead of containers: its roles, commands and variables."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
import yaml
from support.ports import free_ports
from support.processes import PYTHON, Process, run, running
from support.waiting import wait_until

from market_data_store.local import start_postgres
from market_data_store.local.programs import postgres_programs, valkey_program

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
VARIABLES = (
    *("POSTGRES_PASSWORD", "DB_ADMIN_PASSWORD", "WORKER_PASSWORD", "WEB_PASSWORD"),
    *("MONITOR_PASSWORD", "VALKEY_PASSWORD", "ADMIN_TOKEN"),
)
SECRETS = {name: f"{name.title().replace('_', '')}0123456789" for name in VARIABLES}
SECRETS["FLOWER_BASIC_AUTH"] = "operator:Fl0werOfTheseTests"
PORTS = ("postgres", "valkey", "web", "worker", "monitor", "flower")
SENDER = """
from market_data_store import StoreClient
with StoreClient() as store:
    store.write("signals", [{"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9, "value": 1.0}])
"""


class Composed:
    """Starts the services' commands, with nothing in their environment but what compose gives them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))

    def here(self, text: str) -> str:
        """The text as Docker compose substitutes it, with this machine's names and ports."""
        text = re.sub(r"\$\{(\w+):\?\}", lambda found: SECRETS[found[1]], text).replace("$$", "$")
        for name, port in {"web": "8081", "worker": "9101", "monitor": "9102", "flower": "5555"}.items():
            text = re.sub(rf"\b{port}\b", str(self.ports[name]), text)
        text = text.replace("@postgres/", f"@127.0.0.1:{self.ports['postgres']}/")
        text = text.replace("@valkey:6379", f"@127.0.0.1:{self.ports['valkey']}")
        return text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - what only a container may do

    def variables(self, service: str) -> dict[str, str]:
        port = {"web": "APP_PORT", "flower": "PORT"}.get(service)
        return {
            "PATH": os.pathsep.join([str(self.directory), str(Path(PYTHON).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            **({port: str(self.ports[service])} if port else {}),
            **{name: self.here(str(value)) for name, value in SERVICES[service]["environment"].items()},
        }

    def command(self, service: str) -> list[str]:
        command = SERVICES[service]["command"]
        return [self.here(part) for part in (shlex.split(command) if isinstance(command, str) else command)]

    def once(self, service: str) -> None:
        done = run(*self.command(service), directory=self.directory, environment=self.variables(service), inherit=False)
        assert done.returncode == 0, (service, done)

    def process(self, service: str) -> Process:
        return Process(
            *self.command(service),
            directory=self.directory,
            environment=self.variables(service),
            inherit=False,
            name=service,
        )

    def is_healthy(self, service: str) -> bool:
        kind, *test = (self.here(part) for part in SERVICES[service]["healthcheck"]["test"])
        asked = run(*test, directory=self.directory, environment=self.variables(service), inherit=False)
        return kind == "CMD" and asked.returncode == 0

    def database(self, role: str, secret: str) -> str:
        return f"postgresql://{role}:{SECRETS[secret]}@127.0.0.1:{self.ports['postgres']}/market_data"


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """Everything that the file starts, in its order, each service healthy."""
    composed = Composed(tmp_path_factory.mktemp("composed"))
    with ExitStack() as stack:
        password, port = SECRETS["POSTGRES_PASSWORD"], composed.ports["postgres"]
        stack.enter_context(start_postgres(composed.directory / "postgres", port=port, password=password))
        roles = run(
            postgres_programs() / "psql",
            *("-v", "ON_ERROR_STOP=1", "-X", "-d", composed.database("postgres", "POSTGRES_PASSWORD")),
            *("-f", DEPLOY / "compose/roles.sql"),
            directory=composed.directory,
            environment=composed.variables("postgres"),
            inherit=False,
        )
        assert roles.returncode == 0, roles
        # The same command, but for what binds it to this machine and to its directory.
        (composed.directory / "valkey-server").symlink_to(valkey_program())
        script = composed.command("valkey")[-1].replace(
            "valkey-server -", f"valkey-server - --bind 127.0.0.1 --port {composed.ports['valkey']} --dir ."
        )
        stack.enter_context(
            running("sh", "-c", script, directory=composed.directory, environment=composed.variables("valkey"))
        )
        with redis.Redis(port=composed.ports["valkey"], password=SECRETS["VALKEY_PASSWORD"]) as client:
            wait_until(lambda: answers(client))
        for service in ("release", "grants"):
            composed.once(service)
        for service in ("web", "worker", "monitor", "flower"):
            process = composed.process(service)
            stack.callback(process.kill)
            wait_until(lambda s=service: composed.is_healthy(s), process.said, timeout_s=60)  # type: ignore[misc]
        yield composed


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_a_row_is_written_by_a_role_that_can_do_no_more(composed: Composed) -> None:
    broker = composed.variables("worker")["BROKER_URL"]
    sent = run(PYTHON, "-c", SENDER, directory=composed.directory, environment={"BROKER_URL": broker})
    assert sent.returncode == 0, sent
    with psycopg.connect(composed.database("mds_worker", "WORKER_PASSWORD"), autocommit=True) as worker:
        wait_until(lambda: worker.execute("SELECT FROM signals").rowcount == 1)
        for statement in (b"CREATE TABLE other ()", b"DROP TABLE signals", b"COPY signals TO PROGRAM 'true'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(statement)
        roles = "SELECT rolname, rolsuper FROM pg_roles WHERE rolname LIKE 'mds_%' ORDER BY rolname"
        names = ("mds_admin", "mds_monitor", "mds_operator", "mds_reader", "mds_web", "mds_worker")
        assert worker.execute(roles.encode()).fetchall() == [(name, False) for name in names]


def test_nothing_opens_without_its_password(composed: Composed) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://mds_worker@127.0.0.1:{composed.ports['postgres']}/market_data")
    with redis.Redis(port=composed.ports["valkey"]) as client, pytest.raises(redis.AuthenticationError):
        client.llen("store.write")
    web = f"http://127.0.0.1:{composed.ports['web']}"
    assert httpx.get(f"{web}/dead-letters").status_code == 401
    assert httpx.get(f"{web}/healthz", headers={"Host": "evil.test"}).status_code == 421
    assert httpx.get(f"http://127.0.0.1:{composed.ports['flower']}/api/workers").status_code == 401


def test_no_password_is_in_a_command_line(composed: Composed) -> None:
    found = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if readable(path)]
    for name, secret in SECRETS.items():
        assert not [line for line in found if secret.encode() in line], name


def readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False
