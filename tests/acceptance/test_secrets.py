"""No secret of the settings comes to light: every process at DEBUG, every failure, and a search of all that is said.

A secret is looked for as it is and as it stands in URLs, in output, pages, metrics, events, letters and errors.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import kombu
import psycopg
import pytest
import redis
from honcho.environ import parse_procfile
from psycopg import sql
from support.passwords import encoded
from support.processes import MDS, PYTHON, Process, run, running
from support.rabbitmq import RabbitMQ
from support.requirements import require_rabbitmq
from support.waiting import wait_until
from support.web import get

from market_data_store.local import free_port, start_postgres, start_valkey
from market_data_store.protocol import QUEUE, TASK

pytestmark = pytest.mark.slow

#: By what it opens. Each has something that URLs escape, and a beginning and an end that nothing else has.
SECRETS = {
    name: f"Zq{name}7K/+{name}Vw%9"
    for name in ("Database", "Migrations", "Broker", "Feedback", "Management", "Hook", "Sentinel")
} | {name: f"Zq{name}7K-only-of-these-tests-{name}Vw9" for name in ("Query", "Admin", "Status", "Operator")}
PROCFILE = parse_procfile((Path(__file__).parents[2] / "Procfile").read_text()).processes
#: Imported by each Python: whatever level a process asks for, it logs at DEBUG.
LOUD = """
import logging
set_up = logging.basicConfig
logging.basicConfig = lambda **options: set_up(**{**options, "level": logging.DEBUG})
"""
ROW = {"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9, "value": 1.0}
PROGRAM = f"""
import logging
logging.basicConfig()
from market_data_store import StoreClient
with StoreClient(confirm=True, close_timeout_s=5) as client:
    client.write("signals", [{ROW}])
"""
INSPECTION = """
from market_data_store.app import app
ask = app.control.inspect(timeout=3)
print(ask.conf(with_defaults=True), ask.report(), ask.stats(), ask.active(), ask.registered(), ask.active_queues())
"""
PAGES = ("/", "/status.json", "/healthz", "/readyz", "/metrics", "/openapi.json", "/nowhere", "/schema/version")
ADMIN = (
    "GET /schema/version",
    "POST /migrate",
    "POST /backpressure/check",
    "POST /retention/apply",
    "GET /dead-letters",
)
OF_FLOWER = ("/", "/workers", "/tasks", "/broker", "/api/workers?refresh=1", "/api/tasks", "/metrics", "/nowhere")


class Hook(BaseHTTPRequestHandler):
    """An endpoint for feedback that fails in several ways; and RabbitMQ's management API."""

    answers = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        Hook.answers += 1
        self.send_response((200, 500, 404, 302)[Hook.answers % 4])
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def hook_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def servers(directory: Path, broker: str, hook_port: int) -> Iterator[dict[str, str]]:
    """The variables of servers that ask for these passwords."""
    with ExitStack() as stack:
        postgres = stack.enter_context(start_postgres(directory / "postgres", password="of-the-superuser-0123"))
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            for role in ("Database", "Migrations"):
                statement = sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}")
                connection.execute(statement.format(sql.Identifier(role.lower()), sql.Literal(SECRETS[role])))
        valkey = stack.enter_context(start_valkey(directory / "valkey"))
        with redis.Redis.from_url(valkey.url) as client:
            for user in ("Broker", "Feedback"):
                client.execute_command("ACL", "SETUSER", user.lower(), "on", f">{SECRETS[user]}", "~*", "&*", "+@all")
            client.execute_command("ACL", "SETUSER", "default", "off")
        at = f"127.0.0.1:{valkey.port}/0"
        urls = {"BROKER_URL": f"redis://broker:{encoded(SECRETS['Broker'])}@{at}"}
        urls["REDIS_URL"] = f"redis://feedback:{encoded(SECRETS['Feedback'])}@{at}"
        if broker == "rabbitmq":
            rabbitmq = RabbitMQ(directory / "rabbitmq")
            rabbitmq.start()
            stack.callback(rabbitmq.stop)
            rabbitmq.control("add_user", "broker", SECRETS["Broker"])
            rabbitmq.control("set_permissions", "broker", ".*", ".*", ".*")
            urls["BROKER_URL"] = rabbitmq.url.replace("guest:guest", f"broker:{encoded(SECRETS['Broker'])}")
        at = f"127.0.0.1:{postgres.port}/market_data"
        (directory / "loud").mkdir()
        (directory / "loud/sitecustomize.py").write_text(LOUD)
        yield {
            **urls,
            "DATABASE_URL": f"postgresql://database:{encoded(SECRETS['Database'])}@{at}",
            "ADMIN_DATABASE_URL": f"postgresql://migrations:{encoded(SECRETS['Migrations'])}@{at}",
            "MDS_RABBITMQ_MANAGEMENT_URL": f"http://u:{encoded(SECRETS['Management'])}@127.0.0.1:{hook_port}",
            "MDS_FB_ENABLE_HTTP_BROADCAST": "true",
            "MDS_FB_HTTP_ENDPOINT": (
                f"http://u:{encoded(SECRETS['Hook'])}@127.0.0.1:{hook_port}/x?token={SECRETS['Query']}"
            ),
            "MDS_FB_HTTP_BACKOFF": "0.01",
            "MDS_FEEDBACK_HEARTBEAT_S": "0.5",
            "MDS_SENTINEL_PASSWORD": SECRETS["Sentinel"],
            "ADMIN_TOKEN": SECRETS["Admin"],
            "MDS_STATUS_TOKEN": SECRETS["Status"],
            "FLOWER_BASIC_AUTH": f"operator:{SECRETS['Operator']}",
            "MDS_LOG_LEVEL": "debug",
            "GUNICORN_CMD_ARGS": "--access-logfile=-",
            "PYTHONUNBUFFERED": "1",
        }


class Everything:
    """What was said, and by whom."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def add(self, who: str, text: str) -> None:
        self.texts.append((who, text))

    def add_done(self, *done: CompletedProcess[str]) -> None:
        for each in done:
            self.add(" ".join(each.args), each.stdout + each.stderr)

    def showing(self) -> list[str]:
        """Where a secret, or one of its ends, is shown."""
        return [
            f"{name} in {who}: {line.strip()[:300]}"
            for who, text in self.texts
            for line in text.splitlines()
            for name, secret in SECRETS.items()
            if any(part in line for part in (f"Zq{name}7K", f"{name}Vw", *in_base64(secret)))
        ]


def in_base64(secret: str) -> list[str]:
    """As in a header of basic authentication, where it begins at any of three places, without what is around it."""
    shifted = [base64.b64encode(b"0" * before + secret.encode()).decode() for before in range(3)]
    return [text[4 if before else 0 : -4] for before, text in enumerate(shifted)]


def started(stack: ExitStack, directory: Path, variables: dict[str, str], *, suffix: str) -> dict[str, Process]:
    ports = {"web": variables["WEB"], "flower": variables["FLOWER"], "worker": "0", "monitor": "0"}
    return {
        name: stack.enter_context(
            running(
                *("sh", "-c", f"exec {PROCFILE[name]}"),
                directory=directory,
                name=f"{name}-{suffix}",
                environment={**variables, "PORT": port, "PYTHONPATH": variables["LOUD_PATH"], "MDS_HOST": "127.0.0.1"},
            )
        )
        for name, port in ports.items()
    }


def pages(variables: dict[str, str], said: Everything) -> None:
    """All pages, with the right token, with none and with a wrong one."""
    web, flower = (f"http://127.0.0.1:{variables[name]}" for name in ("WEB", "FLOWER"))
    tokens = [SECRETS["Status"], SECRETS["Admin"], "wrong", ""]
    for token in tokens:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=web, headers=headers, timeout=30) as client:
            for path in PAGES:
                said.add(f"web {path}", answer_of(client.get(path)))
            for endpoint in ADMIN:
                method, path = endpoint.split()
                said.add(f"web {endpoint}", answer_of(client.request(method, path)))
                said.add(f"web {endpoint}", answer_of(client.request(method, path, content=b"{", params={"q": "x"})))
    for auth in (("operator", SECRETS["Operator"]), ("operator", "wrong"), None):
        for path in OF_FLOWER:
            try:
                said.add(f"flower {path}", answer_of(get(flower + path, timeout_s=5, auth=auth)))
            except httpx.TransportError as error:  # without its broker, Flower does not answer all of them
                said.add(f"flower {path}", repr(error))
    for name in ("MDS_WORKER_METRICS_PORT", "MDS_MONITOR_METRICS_PORT"):
        said.add(name, answer_of(get(f"http://127.0.0.1:{variables[name]}/metrics")))


def answer_of(response: httpx.Response) -> str:
    return f"{response.headers}\n{response.text}"


def commands(directory: Path, variables: dict[str, str], *, is_away: bool = False) -> list[CompletedProcess[str]]:
    """Every command that ends by itself, and a user's program."""
    rows = directory / "rows.csv"
    rows.write_text("ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n2024-01-02T00:00:00Z,A,p,n,x\n")
    every = (
        ("status",),
        ("status", "--json"),
        ("migrate", "--wait", "0"),
        ("migrate", "--status"),
        ("load", str(rows), "--dataset", "signals"),
        ("export", "signals", str(directory / "out.csv")),
        ("jobs",),
        ("dead-letters", "list", "--json"),
        ("dead-letters", "replay", "--all"),
        ("release-held",),
    )
    done = [run(*MDS, *arguments, directory=directory, environment=variables) for arguments in every]
    done.append(run(PYTHON, "-c", PROGRAM, directory=directory, environment=variables))
    if not is_away:
        done.append(run(PYTHON, "-c", INSPECTION, directory=directory, environment=variables))
        report = ("celery", "-A", "market_data_store.app", "report")
        done.append(run(PYTHON, "-m", *report, directory=directory, environment=variables))
    return done


def send_what_is_refused(variables: dict[str, str]) -> None:
    """Messages that become letters, whole and by rows."""
    queue = kombu.Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})
    bodies = (b"{", json.dumps([["signals", [{**ROW, "value": "x"}]], {}, {}]).encode(), b'[["none", [1]], {}, {}]')
    with kombu.Connection(variables["BROKER_URL"]) as connection:
        producer = kombu.Producer(connection.default_channel, auto_declare=False)
        for number, body in enumerate(bodies):
            for task in (TASK, "no.such.task"):
                producer.publish(
                    body,
                    routing_key=QUEUE,
                    headers={"task": task, "id": f"{task}-{number}"},
                    content_type="application/json",
                    content_encoding="utf-8",
                    declare=[queue],
                )


def stored(variables: dict[str, str], said: Everything) -> None:
    """What is in the tables and in the feedback's Redis."""
    with psycopg.connect(variables["DATABASE_URL"]) as connection:
        for (table,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            for row in connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))):
                said.add(f"table {table}", row[0])
    with redis.Redis.from_url(variables["REDIS_URL"]) as client:
        for key in client.scan_iter():
            said.add(f"key {key!r}", str(content(client, key)))


def content(client: redis.Redis, key: bytes) -> Any:
    kind: bytes = client.type(key)  # type: ignore[assignment]
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"stream": client.xrange,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    return readers[kind](key)


def with_ports(variables: dict[str, str], directory: Path) -> dict[str, str]:
    names = ("WEB", "FLOWER", "MDS_WORKER_METRICS_PORT", "MDS_MONITOR_METRICS_PORT")
    return {
        **variables,
        **{name: str(free_port()) for name in names},
        "LOUD_PATH": f"{directory / 'loud'}:{Path(__file__).parents[2] / 'src'}",
    }


def answers(variables: dict[str, str]) -> bool:
    try:
        return all(
            get(url).status_code == 200
            for url in (
                f"http://127.0.0.1:{variables['WEB']}/healthz",
                f"http://127.0.0.1:{variables['FLOWER']}/healthcheck",
                f"http://127.0.0.1:{variables['MDS_WORKER_METRICS_PORT']}/metrics",
                f"http://127.0.0.1:{variables['MDS_MONITOR_METRICS_PORT']}/metrics",
            )
        )
    except httpx.TransportError:
        return False


def is_refused(worker: Process) -> bool:
    """Whether it has found that it cannot use the broker."""
    return any(words in worker.text() for words in ("does not answer", "annot connect", "Restarting Connection"))


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_nothing_that_is_said_shows_a_secret(broker: str, hook_port: int, tmp_path: Path) -> None:
    if broker == "rabbitmq":
        require_rabbitmq()
    said = Everything()
    with ExitStack() as processes:
        with servers(tmp_path, broker, hook_port) as given:
            variables = with_ports(given, tmp_path)
            said.add_done(run(*MDS, "migrate", directory=tmp_path, environment=variables))
            every = started(processes, tmp_path, variables, suffix="right")
            logs = lambda: "\n".join(process.said() for process in every.values())  # noqa: E731
            wait_until(lambda: answers(variables), logs, timeout_s=120)
            every["worker"].wait_for_text("ready.")
            send_what_is_refused(variables)
            said.add_done(*commands(tmp_path, variables))
            with psycopg.connect(variables["DATABASE_URL"], autocommit=True) as connection:
                wait_until(lambda: connection.execute("SELECT FROM dead_letters").rowcount >= 7, logs, timeout_s=60)
            pages(variables, said)
            stored(variables, said)
            wait_until(lambda: Hook.answers >= 8, "the hook was called", timeout_s=60)
        # Now all servers are away.
        wait_until(lambda: is_refused(every["worker"]), every["worker"].said, timeout_s=60)
        pages_of_web = f"http://127.0.0.1:{variables['WEB']}/readyz"
        token = {"Authorization": f"Bearer {SECRETS['Status']}"}
        wait_until(lambda: httpx.get(pages_of_web, headers=token, timeout=30).status_code == 503, timeout_s=60)
        pages(variables, said)
        said.add_done(*commands(tmp_path, variables, is_away=True))
        for name, process in every.items():
            process.popen.terminate()
            process.wait(60)
            said.add(name, process.whole_text())
            assert "DEBUG" in process.whole_text() or name == "flower", process.said("DEBUG")
    assert said.showing() == []


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_servers_that_refuse_are_named_without_a_secret(broker: str, hook_port: int, tmp_path: Path) -> None:
    """Users that do not exist; the worker, the monitor, web and Flower go on trying."""
    if broker == "rabbitmq":
        require_rabbitmq()
    said = Everything()
    with servers(tmp_path, broker, hook_port) as given, ExitStack() as processes:
        unknown = {name: value.replace("://broker:", "://nobody:") for name, value in given.items()}
        unknown = {name: value.replace("://database:", "://nobody:") for name, value in unknown.items()}
        variables = with_ports(unknown, tmp_path)
        every = started(processes, tmp_path, variables, suffix="refused")
        wait_until(lambda: is_refused(every["worker"]), every["worker"].said, timeout_s=120)
        wait_until(lambda: bool(every["monitor"].text()), every["monitor"].said, timeout_s=60)
        said.add_done(*commands(tmp_path, variables, is_away=True))
        for name, process in every.items():
            process.popen.terminate()
            process.wait(60)
            said.add(name, process.whole_text())
    assert said.showing() == []


def test_the_search_finds_what_is_shown() -> None:
    for name, secret in SECRETS.items():
        basic = [base64.b64encode(f"{user}:{secret}".encode()).decode() for user in ("u", "us", "use")]
        for text in (f"x{secret}x", f"redis://:{encoded(secret)}@h", f"cut off: {secret[: len(name) + 4]}", *basic):
            said = Everything()
            said.add("somebody", f"before\n{text} after")
            assert said.showing(), (name, text)
