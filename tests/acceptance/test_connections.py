"""All processes fit into a small plan's number of connections, by the servers' own lists."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import redis
from celery import Celery
from support.brokers import Broker
from support.connections import at_broker, at_postgres, watched
from support.databases import Connection
from support.processes import MDS, PYTHON, Process, mds, running
from support.waiting import wait_until
from support.web import FLOWER, OPERATOR, Web, monitor, serving, wait_until_served
from support.workers import working

from market_data_store.local import free_port
from market_data_store.local.processes import worker_command
from market_data_store.worker.watch import LOOK_S

pytestmark = pytest.mark.slow

#: What the store may use of each server. The observer has one more connection to Redis.
REDIS, RABBITMQ, POSTGRES = 20, 12, 20
#: What docs/deploy.md states of each process.
MOST = {
    "redis": {"mds-worker": 6, "mds-web": 1, "mds-monitor": 1, "mds-flower": 3, "mds-status": 1, "mds-client": 5},
    "rabbitmq": {"mds-worker": 5, "mds-web": 1, "mds-monitor": 1, "mds-flower": 2, "mds-status": 1, "mds-client": 2},
}
#: Sends until its input ends.
CLIENT = """
import itertools, sys, threading
from market_data_store import StoreClient
name, *spool = sys.argv[1:]
options = {"confirm": True, "spool": spool[0]} if spool else {}
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
with StoreClient(**options) as store:
    for first in itertools.count(0, 20):
        if ended.wait(0.01):
            break
        row = {"provider": "p", "symbol": "S", "name": name}
        store.write("signals", [{**row, "ts": 1.7e9 + n, "value": n} for n in range(first, first + 20)])
    store.flush()
print(first, flush=True)
"""


@contextmanager
def pages_read(web: Web, flower_url: str) -> Iterator[list[int]]:
    """Six readers of the status page and of what programs ask for, and one of Flower; yields the statuses."""
    stop, statuses = threading.Event(), list[int]()

    def read(url: str, *paths: str) -> None:
        with httpx.Client(base_url=url, timeout=30, auth=OPERATOR) as client:
            for path in itertools.cycle(paths):
                if stop.wait(0.2):
                    return
                statuses.append(client.get(path).status_code)

    own = ("/", "/status.json", "/metrics", "/health", "/readyz")
    threads = [threading.Thread(target=read, args=(web.url, *own)) for _ in range(6)]
    threads.append(threading.Thread(target=read, args=(flower_url, "/workers", "/tasks", "/api/workers?refresh=1")))
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def limit(broker: Broker) -> None:
    """Let the server refuse what is more than the plan has."""
    if broker.kind == "rabbitmq":
        broker.rabbitmq.control("set_vhost_limits", json.dumps({"max-connections": RABBITMQ}))
    else:
        with redis.Redis.from_url(broker.url) as client:
            client.config_set("maxclients", REDIS)


def sent_by(client: Process) -> int:
    client.close_input()
    assert client.wait(60) == 0, client.said("a clean end")
    return int(client.lines()[-1])


def test_all_processes_fit_into_a_small_plan(
    broker: Broker, database_url: str, database: Connection, tmp_path: Path
) -> None:
    limit(broker)
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker.url, "MDS_ENV": "development", **FLOWER}
    flower_port = free_port()
    flower_url = f"http://127.0.0.1:{flower_port}"
    with ExitStack() as stack:
        at_work = stack.enter_context(watched(stack.enter_context(at_broker(broker))))
        in_postgres = stack.enter_context(watched(stack.enter_context(at_postgres(database_url))))
        stack.enter_context(working(tmp_path, **environment))
        stack.enter_context(monitor(tmp_path, **environment))
        web = stack.enter_context(serving(tmp_path, **environment))
        command = (*MDS, "flower", "--port", str(flower_port))
        flower = stack.enter_context(running(*command, directory=tmp_path, environment=environment, name="flower"))
        wait_until_served(flower, f"{flower_url}/healthcheck")
        clients = [
            stack.enter_context(
                running(PYTHON, "-c", CLIENT, *words, directory=tmp_path, environment=environment, with_input=True)
            )
            for words in (["plain"], ["confirming", tmp_path / "spool.db"])
        ]
        with pages_read(web, flower_url) as statuses:
            for share in (1, 2):
                wait_until(lambda: stored(database) > share * 1_000, "rows are written", timeout_s=60)  # noqa: B023
                status = mds(tmp_path, "status", **environment)
                assert status.returncode == 0, status.stdout + status.stderr
            sent = sum(map(sent_by, clients))
        wait_until(lambda: stored(database) == sent, "all rows are written", timeout_s=60)
        assert web.client.get("/readyz").status_code == 200
        assert set(statuses) == {200}
        assert "Failed to capture" not in flower.whole_text(), flower.said("events")
    assert at_work.total <= (RABBITMQ if broker.kind == "rabbitmq" else REDIS), at_work
    assert in_postgres.total <= POSTGRES, in_postgres
    assert in_postgres.by_name["mds-worker"] == 2, in_postgres
    for name in ("mds-web", "mds-monitor", "mds-status"):
        assert in_postgres.by_name[name] == 1, in_postgres
    # A connection has no name before it has sent it.
    too_many = {name: n for name, n in at_work.by_name.items() if name and n > MOST[broker.kind].get(name, 0)}
    assert not too_many, f"{too_many}: {at_work}"


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_worker_that_is_free_for_a_while_opens_no_connection_to_count_what_waits(
    broker: Broker, database_url: str, database: Connection, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker.url, "MDS_ENV": "development"}

    def stay_free() -> None:
        free_until = time.monotonic() + 2 * LOOK_S + 1
        wait_until(lambda: time.monotonic() > free_until, "two looks")

    def write(name: str) -> None:
        words, before = (PYTHON, "-c", CLIENT, name), stored(database)
        with running(*words, directory=tmp_path, environment=environment, with_input=True) as client:
            wait_until(lambda: stored(database) > before, "rows are written", timeout_s=60)
            sent = before + sent_by(client)
            wait_until(lambda: stored(database) == sent, "all rows are written", timeout_s=60)

    with working(tmp_path, **environment), at_broker(broker) as look, watched(look) as at_work:
        for name in ("one", "two"):
            stay_free()
            write(name)
    assert at_work.by_name["mds-worker"] == 3, at_work


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_worker_whose_loop_hangs_counts_what_waits_over_one_more_connection(
    broker: Broker, database_url: str, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker.url, "MDS_ENV": "development"}
    with (
        working(tmp_path, module="support.deaf_worker", **environment) as worker,
        Celery(broker=broker.url, set_as_current=False) as app,
        at_broker(broker) as look,
        watched(look) as at_rest,
    ):
        app.control.broadcast("hang", destination=[worker.hostname()])
        wait_until(lambda: at_rest.by_name["mds-worker"] > 3, timeout_s=20 * LOOK_S)
        looks_until = time.monotonic() + 3 * LOOK_S
        wait_until(lambda: time.monotonic() > looks_until, "further looks")
    assert at_rest.by_name["mds-worker"] == 3 + 1, at_rest


#: What a server says, in the words of the store.
TAKES_NO_MORE = {
    "redis": "Redis takes no more connections (maxclients)",
    "rabbitmq": "RabbitMQ takes no more connections (the connection limit of the virtual host or of the user)",
}
POSTGRES_TAKES_NO_MORE = "Postgres takes no more connections"
#: Writes until a write succeeds, and prints each reason for which one did not.
PATIENT = """
from market_data_store import BrokerUnavailable, StoreClient
row = {"provider": "p", "symbol": "S", "name": "patient", "ts": 1.7e9, "value": 1.0}
said = set()
with StoreClient() as store:
    store.write("signals", [row])
    while True:
        try:
            store.flush()
            break
        except BrokerUnavailable as error:
            if str(error) not in said:
                print(error, flush=True)
            said.add(str(error))
"""


def test_a_broker_that_takes_no_more_connections_is_named_and_waited_for(
    broker: Broker, database_url: str, database: Connection, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker.url, "MDS_ENV": "development"}
    said = TAKES_NO_MORE[broker.kind]
    flower_port = free_port()
    commands = {
        "worker": (PYTHON, "-m", *worker_command(concurrency=1)),
        "monitor": (*MDS, "monitor"),
        "flower": (*MDS, "flower", "--port", str(flower_port)),
        "client": (PYTHON, "-c", PATIENT),
    }
    with ExitStack() as stack:
        admin = stack.enter_context(redis.Redis.from_url(broker.url)) if broker.kind == "redis" else None
        let_in(broker, admin, 1 if admin else 0)
        processes = {
            name: stack.enter_context(running(*command, directory=tmp_path, environment=environment, name=name))
            for name, command in commands.items()
        }
        web = stack.enter_context(serving(tmp_path, **environment))
        wait_until(lambda: said in web.client.get("/readyz").text, "web says it", timeout_s=60)
        status = mds(tmp_path, "status", **environment)
        assert (status.returncode, said in status.stdout) == (1, True), status.stdout + status.stderr
        for name in ("worker", "monitor", "client"):
            processes[name].wait_for_text(said)
        let_in(broker, admin, 100)
        processes["worker"].wait_for_text(" ready.")
        wait_until_served(processes["flower"], f"http://127.0.0.1:{flower_port}/healthcheck")
        assert processes["client"].wait(60) == 0, processes["client"].said("an end")
        wait_until(lambda: stored(database) == 1, "the row is written", timeout_s=60)
        wait_until(lambda: web.client.get("/readyz").status_code == 200, web.log_text, timeout_s=60)
        for name in ("worker", "monitor"):
            assert processes[name].text().count(said) == 1, processes[name].said("only once")


def let_in(broker: Broker, admin: redis.Redis | None, most: int) -> None:
    """Let a broker take this many connections; at Redis the one that says so is among them."""
    if admin is None:
        broker.rabbitmq.control("set_vhost_limits", json.dumps({"max-connections": most}))
    else:
        admin.config_set("maxclients", most)


def test_a_postgres_that_takes_no_more_connections_is_named_and_waited_for(
    redis_url: str, database_url: str, database: Connection, tmp_path: Path
) -> None:
    role = f"user_{uuid4().hex}"
    database.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    database.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    url = urlsplit(database_url)
    limited = url._replace(netloc=f"{role}@{url.hostname}:{url.port}").geturl()
    environment = {"DATABASE_URL": limited, "BROKER_URL": redis_url, "MDS_ENV": "development", "MDS_LOG_LEVEL": "info"}
    with working(tmp_path, **environment) as worker, serving(tmp_path, **environment) as web:
        with running(PYTHON, "-c", PATIENT, directory=tmp_path, environment=environment, name="client") as client:
            assert client.wait(60) == 0, client.said("an end")
        worker.wait_for_log(POSTGRES_TAKES_NO_MORE)
        assert POSTGRES_TAKES_NO_MORE in web.client.get("/readyz").text
        status = mds(tmp_path, "status", **environment)
        assert (status.returncode, POSTGRES_TAKES_NO_MORE in status.stdout) == (1, True), status.stdout + status.stderr
        database.execute(f"ALTER ROLE {role} CONNECTION LIMIT 20")
        wait_until(lambda: stored(database) == 1, "the row is written", timeout_s=60)
        assert worker.logs().count(POSTGRES_TAKES_NO_MORE) <= 2, worker.logs()
    database.execute(f"DROP OWNED BY {role}")
    database.execute(f"DROP ROLE {role}")


def stored(database: Connection) -> int:
    return int(database.execute("SELECT count(*) FROM signals").fetchall()[0][0])
