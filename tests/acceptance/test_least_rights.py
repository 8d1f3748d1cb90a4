"""Every process with the users of docs/least-rights.md: all works, and nothing else is permitted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import amqp
import psycopg
import pytest
import redis
from support.processes import MDS, PYTHON, mds, run, running
from support.rabbitmq import RabbitMQ
from support.requirements import require_rabbitmq
from support.rights import FORBIDDEN, as_user, documented, password_of, set_up_postgres, set_up_rabbitmq, set_up_redis
from support.waiting import wait_until
from support.web import FLOWER, OPERATOR, Web, get, is_served, monitor, serving
from support.workers import Worker

from market_data_store.local import free_port, start_postgres, start_valkey
from market_data_store.protocol import QUEUE, held_queue

pytestmark = pytest.mark.slow

OWNER = "of-the-owner-of-all-servers"
#: Else what a killed worker had in hand would come back after ten minutes, and so on.
SOON = {"MDS_VISIBILITY_TIMEOUT_S": "10", "MDS_FEEDBACK_HEARTBEAT_S": "1", "MDS_HELD_PROBE_S": "1"}
#: A process finds out whether Redis is a cluster, a producer tells Flower of its messages and creates the queue, if it
#: may: these three the servers refuse once for a process, and nothing else.
IN_VAIN = re.compile(
    "^\\w+ command info |^producer command publish "
    "|exchange '(celeryev|store.write)' .* refused for user '(producer|web)'"
)
STREAM = "mdp:mdp.telemetry.feedback"
#: Of a producer, and of one whose Celery is its own.
PRODUCER = """
import sys
from market_data_store import StoreClient
row = {"provider": "p", "symbol": "S", "name": "n"}
rows = [{**row, "ts": 1.7e9 + n, "value": n} for n in range(3_000)]
with StoreClient() as client:
    client.write("signals", rows[:1_000])
with StoreClient(declare=False, spool="own.db") as client:
    client.write_table("signals", {name: [each[name] for each in rows[1_000:2_000]] for name in rows[0]})
with StoreClient(confirm=True, spool="confirming.db", close_timeout_s=30) as client:
    client.write("signals", rows[2_000:])
    client.flush()
    assert client.confirm(30), client.pending_rows
    print(client.confirmed.rows)
with StoreClient(check=False) as client:
    client.write("signals", [{**row, "ts": 1.8e9 + n, "value": "x"} for n in range(3)])
"""
FOREIGN = """
import sys
from celery import Celery, group
broker, backend = sys.argv[1:]
app = Celery("foreign", broker=broker, backend=backend)
row = {"provider": "p", "symbol": "F", "name": "n"}
def task(n):
    args = ("signals", [{**row, "ts": 1.7e9 + n, "value": n}])
    return app.signature("store.write", args=args, queue="store.write", immutable=True)
options = {"queue": "store.write", "declare": []}
print(task(1).apply_async(**options).get(timeout=30))
task(2).apply_async(link=task(3), **options).get(timeout=30)
(task(4) | task(5)).apply_async(**options)
"""


@dataclass
class Store:
    """The servers, as their owner and with the URLs of each user."""

    directory: Path
    kind: str
    postgres: str
    broker: str
    feedback: str

    def variables(self, user: str) -> dict[str, str]:
        role = user if user in ("worker", "web", "monitor", "operator") else "reader"
        database = {} if user in ("producer", "flower") else {"DATABASE_URL": as_user(self.postgres, role)}
        urls = {"BROKER_URL": as_user(self.broker, user), "REDIS_URL": as_user(self.feedback, user)}
        return {**database, **urls, **SOON}

    def refused(self) -> list[str]:
        """What a server has refused so far."""
        with redis.Redis.from_url(self.feedback) as owner:
            entries: Any = owner.execute_command("ACL", "LOG", "100")
        keys = (b"username", b"reason", b"object", b"client-info")
        found = [b" ".join(map(_fields(entry).__getitem__, keys)).decode() for entry in entries]
        logs = [self.directory / "postgres/server.log", *(self.directory / "rabbitmq/log").glob("*.log")]
        words = ("permission denied", "must be owner", "access_refused", "ACCESS_REFUSED", "operation not permitted")
        for log in logs:
            found += [line for line in log.read_text(errors="replace").splitlines() if any(w in line for w in words)]
        return [line for line in found if not IN_VAIN.search(line)]

    def refuses_nothing(self) -> None:
        refused = self.refused()
        assert not refused, "\n".join(refused)


def _fields(entry: Any) -> dict[bytes, bytes]:
    """Of an entry in the log of Redis, in either form that redis-py gives it."""
    return entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Servers with exactly the users of the document."""
    directory = tmp_path_factory.mktemp("least")
    with ExitStack() as stack:
        postgres = stack.enter_context(start_postgres(directory / "postgres", password=OWNER))
        set_up_postgres(postgres.url)
        valkey = stack.enter_context(start_valkey(directory / "valkey", password=OWNER))
        set_up_redis(valkey.url)
        broker = valkey.url
        if request.param == "rabbitmq":
            require_rabbitmq()
            rabbitmq = RabbitMQ(directory / "rabbitmq")
            rabbitmq.start()
            stack.callback(rabbitmq.stop)
            set_up_rabbitmq(rabbitmq)
            broker = rabbitmq.url
        admin = {"ADMIN_DATABASE_URL": as_user(postgres.url, "admin"), "DATABASE_URL": as_user(postgres.url, "worker")}
        (line,) = documented("mds migrate ")
        released = mds(directory, "migrate", **admin)
        assert released.returncode == 0, released
        assert line == 'mds migrate && mds grants | psql "$ADMIN_DATABASE_URL"'
        printed = mds(directory, "grants", **admin)
        assert printed.returncode == 0, printed
        with psycopg.connect(admin["ADMIN_DATABASE_URL"], autocommit=True) as owner:
            owner.execute(printed.stdout.encode())
        yield Store(directory, request.param, postgres.url, broker, valkey.url)


@dataclass
class Running:
    """The processes."""

    worker: Worker
    web: Web
    flower_url: str
    logs: Callable[[], str]


@pytest.fixture(scope="module")
def running_store(store: Store) -> Iterator[Running]:
    with ExitStack() as stack:
        worker = Worker(store.variables("worker"), store.directory)
        stack.callback(worker.container.kill)
        watching = stack.enter_context(monitor(store.directory, **store.variables("monitor")))
        web = stack.enter_context(serving(store.directory, MDS_RETENTION_DAYS="signals=1", **store.variables("web")))
        port = free_port()
        variables = {**store.variables("flower"), **FLOWER}
        command = (*MDS, "flower", "--port", str(port))
        flower = stack.enter_context(running(*command, directory=store.directory, environment=variables, name="flower"))

        def logs() -> str:
            ends = (process.said()[-5_000:] for process in (worker.process, watching, web.process, flower))
            return "\n".join([*map(str, store.refused()), *ends])

        wait_until(lambda: " ready." in worker.logs(), logs, timeout_s=60)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_served(f"{url}/healthcheck"), logs, timeout_s=60)
        wait_until(lambda: web.client.get("/readyz").status_code == 200, logs, timeout_s=60)
        yield Running(worker, web, url, logs)
        worker.stop()


@pytest.fixture
def owner(store: Store) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(store.postgres, autocommit=True) as connection:
        yield connection


def test_each_process_works_and_is_refused_nothing(
    store: Store, running_store: Running, owner: psycopg.Connection[Any]
) -> None:
    logs, web = running_store.logs, running_store.web

    def count(table: str, where: str = "true") -> int:
        return owner.execute(f"SELECT FROM {table} WHERE {where}".encode()).rowcount

    def send(symbol: str) -> None:
        row = {"provider": "p", "symbol": symbol, "name": "n", "ts": 1.7e9, "value": 1}
        code = f"from market_data_store import StoreClient\nwith StoreClient() as c: c.write('signals', [{row}])"
        sent = run(PYTHON, "-c", code, directory=store.directory, environment=store.variables("producer"))
        assert sent.returncode == 0, (sent, logs())

    def operator(*arguments: str, status: int = 0) -> str:
        done = mds(store.directory, *arguments, **store.variables("operator"))
        assert done.returncode == status, (arguments, done, logs())
        return done.stdout

    # Producers: rows, tables, spools, confirmed ones; results, callbacks and chains of another Celery.
    sent = run(PYTHON, "-c", PRODUCER, directory=store.directory, environment=store.variables("producer"))
    assert (sent.returncode, sent.stdout) == (0, "1000\n"), (sent, logs())
    wait_until(lambda: count("signals") == 3_000, logs, timeout_s=60)
    wait_until(lambda: count("dead_letters") == 3, logs, timeout_s=60)
    urls = (as_user(store.broker, "producer"), as_user(store.feedback, "producer"))
    foreign = run(PYTHON, "-c", FOREIGN, *urls, directory=store.directory)
    assert foreign.returncode == 0, (foreign, logs())
    wait_until(lambda: count("signals", "symbol = 'F'") == 5, logs, timeout_s=60)
    store.refuses_nothing()

    # Dead letters, by the operator and by web.
    assert len(json.loads(operator("dead-letters", "list", "--json"))) == 3
    operator("dead-letters", "show", "1")
    operator("dead-letters", "replay", "--id", "1", status=1)  # refused again
    operator("dead-letters", "purge", "--id", "1", "--yes")
    assert web.admin("GET", "/dead-letters").json()["count"] == 2
    assert web.admin("POST", "/dead-letters/replay", json={"all": True}).json() == {"sent": 2}
    wait_until(lambda: count("dead_letters", "refused_at > created_at") == 2, logs, timeout_s=60)
    assert web.admin("POST", "/dead-letters/purge", json={"all": True, "expected": 2}).json() == {"purged": 2}
    store.refuses_nothing()

    # A table that takes no row: its messages are held, shown, released by the operator and written.
    owner.execute("ALTER TABLE signals RENAME value TO away")
    send("H")
    wait_until(lambda: "signals" in operator("status", status=1), logs, timeout_s=60)
    wait_until(lambda: "signals" in json.dumps(web.client.get("/status.json").json()), logs, timeout_s=60)

    def released() -> dict[str, int]:
        # Its status depends on whether the worker sets the message aside again before it ends.
        done = mds(store.directory, "release-held", "signals", "--json", **store.variables("operator"))
        return dict(json.loads(done.stdout)["released"])

    # While the worker tries the message, there is nothing to release.
    assert wait_until(released, logs, timeout_s=60) == {held_queue("signals"): 1}
    owner.execute("ALTER TABLE signals RENAME away TO value")
    wait_until(lambda: count("signals", "symbol = 'H'") == 1, logs, timeout_s=60)
    store.refuses_nothing()

    # Files, status, jobs.
    rows = store.directory / "rows.csv"
    lines = [f"2024-01-01T00:00:{n:02}Z,A,p,n,{n}" for n in range(60)]
    rows.write_text("\n".join(["ts,symbol,provider,name,value", *lines, ""]))
    operator("load", str(rows), "--dataset", "signals")
    operator("export", "signals", str(store.directory / "out.csv"))
    assert "mds load" in operator("jobs")
    operator("dead-letters", "list")
    store.refuses_nothing()

    # A worker that is killed with messages in hand, and another one.
    running_store.worker.process.kill()
    send("K")
    running_store.worker.process.start()
    send("R")
    wait_until(lambda: count("signals", "symbol IN ('K', 'R')") == 2, logs, timeout_s=60)
    store.refuses_nothing()

    # The pages, the feedback, retention, and the status.
    wait_until(lambda: web.client.get("/readyz").status_code == 200, logs, timeout_s=60)
    for path in ("/", "/status.json", "/health", "/metrics", "/openapi.json"):
        assert web.client.get(path).status_code == 200, path
    assert web.admin("GET", "/schema/version").json()["up_to_date"]
    published = web.admin("POST", "/backpressure/check").json()["receivers"]
    assert set(published.values()) == {"delivered"}, published
    with redis.Redis.from_url(store.feedback) as feedback:
        assert feedback.xlen(STREAM) > 1
    for path in ("/", "/workers", "/tasks", "/broker", "/api/workers?refresh=1", "/metrics"):
        assert get(running_store.flower_url + path, auth=OPERATOR).status_code == 200, (path, logs())
    counted = web.admin("POST", "/retention/apply", json={"dry_run": True}).json()
    applied = web.admin("POST", "/retention/apply", json={"expected": counted["expired"]})
    assert (applied.status_code, count("signals")) == (200, 0), applied.text
    operator("status")
    operator("status", "--json")
    store.refuses_nothing()


#: What each user tries in vain at Redis.
EVERYBODY = (
    "FLUSHALL",
    "CONFIG GET *",
    "KEYS *",
    "ACL LIST",
    "CLIENT KILL TYPE normal",
    "LRANGE store.write 0 1",
    "SHUTDOWN",
)
ATTACKS = {
    "producer": (
        "RPOP store.write",
        "DEL store.write",
        "EVAL x 0",
        "PUBLISH /0.celery.pidbox x",
        "PUBLISH /0.celeryev/x x",
    ),
    "worker": ("SET mdp:mds.monitor.store.write x", "DEL mdp:mds.monitor.store.write"),
    "monitor": ("EVAL x 1 store.write", "GET celery-task-meta-x"),
    "web": ("EVAL x 1 store.write", "GET celery-task-meta-x"),
    "operator": ("SET celery-task-meta-x x", "DEL mdp:mdp.telemetry.feedback"),
    "flower": ("EVAL x 1 store.write", "SET celery-task-meta-x x", "LPUSH store.write x"),
}
OF_MESSAGES = ("RPOP store.write", "DEL store.write", "HGETALL unacked", "HDEL unacked x", "LPUSH unacked_malformed x")
OF_FEEDBACK = ("XADD mdp:mdp.telemetry.feedback * a b", "PUBLISH mdp.telemetry.feedback x")


def test_a_redis_refuses_everything_else(store: Store) -> None:
    for user, own in ATTACKS.items():
        attacks = [*EVERYBODY, *own]
        attacks += () if user in ("worker", "operator", "flower") else OF_MESSAGES
        attacks += () if user in ("monitor", "web") else OF_FEEDBACK
        with redis.Redis.from_url(as_user(store.feedback, user)) as client:
            permitted = [attack for attack in attacks if _redis_permits(client, attack)]
        assert permitted == [], user


def _redis_permits(client: redis.Redis, attack: str) -> bool:
    try:
        client.execute_command(*attack.split())  # type: ignore[no-untyped-call]
    except redis.exceptions.NoPermissionError:
        return False
    return True


Attempt = Callable[[amqp.Channel], object]
ATTEMPTS: dict[str, Attempt] = {
    "get": lambda channel: channel.basic_get(QUEUE),
    "consume": lambda channel: channel.basic_consume(QUEUE),
    "purge": lambda channel: channel.queue_purge(QUEUE),
    "delete": lambda channel: channel.queue_delete(QUEUE),
    "purge what is held": lambda channel: channel.queue_purge(held_queue("bars")),
    "declare": lambda channel: channel.queue_declare("other"),
    "broadcast": lambda channel: channel.basic_publish_confirm(amqp.Message("{}"), exchange="celery.pidbox"),
    "an event": lambda channel: channel.basic_publish_confirm(amqp.Message("{}"), exchange="celeryev"),
    "a message": lambda channel: channel.basic_publish_confirm(amqp.Message("{}"), routing_key=QUEUE),
}
#: What each user may; an operator may also have these.
PERMITTED = {
    "producer": {"a message"},
    "monitor": {"a message", "broadcast"},
    "web": {"a message", "broadcast", "an event"},
    "flower": {"broadcast"},
}


@pytest.mark.parametrize("user", PERMITTED)
def test_a_rabbitmq_refuses_everything_else(store: Store, running_store: Running, user: str) -> None:
    if store.kind != "rabbitmq":
        pytest.skip("of RabbitMQ")
    host = as_user(store.broker, user).rpartition("@")[2].partition("/")[0]
    permitted = set()
    for name, attempt in ATTEMPTS.items():
        options = {"userid": user, "password": password_of(user), "confirm_publish": True}
        with amqp.Connection(host, **options) as connection:
            try:
                attempt(connection.channel())
                permitted.add(name)
            except amqp.AccessRefused:
                pass
    assert permitted == PERMITTED[user]


@pytest.mark.parametrize("role", ["worker", "web", "monitor", "operator", "reader"])
def test_postgres_refuses_everything_else(store: Store, role: str) -> None:
    forbidden = [*FORBIDDEN]
    if role != "worker":
        forbidden += ["CREATE TEMPORARY TABLE other ()", "UPDATE signals SET value = 0"]
        forbidden += ["INSERT INTO dead_letters (reason) VALUES (0)"]
    if role == "reader":
        forbidden += ["SELECT FROM dead_letters"]
    with psycopg.connect(as_user(store.postgres, role), autocommit=True) as connection:
        assert [statement for statement in forbidden if _postgres_permits(connection, statement)] == []
        assert connection.execute("SELECT FROM signals").rowcount >= 0


def _postgres_permits(connection: psycopg.Connection[Any], statement: str) -> bool:
    try:
        connection.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True
