"""A broker that answers and takes no write is seen wherever an operator looks, until it takes writes again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from celery import Celery
from support.databases import new_database
from support.processes import Process, mds
from support.rabbitmq import RabbitMQ, rabbitmq
from support.requirements import require_rabbitmq
from support.waiting import wait_until
from support.web import Web, get, monitor, serving

from market_data_store.causes import Cause, help_of
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.local import free_port, start_valkey
from market_data_store.protocol import QUEUE

Trouble = Callable[[Any], AbstractContextManager[None]]
MISCONF = "MISCONF "
CAUSE = Cause.BROKER_TAKES_NO_WRITE


@contextmanager
def full(server: redis.Redis) -> Iterator[None]:
    server.config_set("maxmemory", "1mb")
    yield
    server.config_set("maxmemory", "0")


@contextmanager
def read_only(server: redis.Redis) -> Iterator[None]:
    server.replicaof("127.0.0.1", free_port())
    yield
    server.replicaof("NO", "ONE")


@contextmanager
def without_replicas(server: redis.Redis) -> Iterator[None]:
    server.config_set("min-replicas-to-write", "1")
    yield
    server.config_set("min-replicas-to-write", "0")


@contextmanager
def unable_to_save(server: redis.Redis) -> Iterator[None]:
    """The process that saves is killed while it is slow."""
    server.config_set("save", "3600 1")
    server.set("something", "to save")
    server.config_set("rdb-key-save-delay", "5000000")
    server.bgsave()
    for child in psutil.Process(int(server.info("server")["process_id"])).children():
        child.kill()
    wait_until(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err")
    server.config_set("rdb-key-save-delay", "0")
    yield
    server.bgsave()


ON_REDIS: dict[str, tuple[Trouble, str]] = {
    "full": (full, "OOM command not allowed when used memory > 'maxmemory'."),
    "read-only": (read_only, "READONLY You can't write against a read only replica."),
    "without replicas": (without_replicas, "NOREPLICAS Not enough good replicas to write."),
    "unable to save": (unable_to_save, MISCONF),
}


@contextmanager
def memory_alarm(server: RabbitMQ) -> Iterator[None]:
    server.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        server.control("set_vm_memory_high_watermark", "0.9")


@contextmanager
def disk_alarm(server: RabbitMQ) -> Iterator[None]:
    server.control("set_disk_free_limit", f"{shutil.disk_usage('/').total}")
    try:
        yield
    finally:
        server.control("set_disk_free_limit", "1MB")


@contextmanager
def full_queue(server: RabbitMQ) -> Iterator[None]:
    """A policy lets the queue hold one message."""
    server.control("set_policy", "short", f"^{QUEUE}$", '{"max-length":1,"overflow":"reject-publish"}')
    with Celery("producer", broker=server.url, set_as_current=False) as producer:
        producer.conf.task_create_missing_queue_type = "quorum"
        producer.send_task(QUEUE, args=["bars", []], queue=QUEUE)
        yield
    with producer.connection_for_write() as connection:
        connection.default_channel.queue_purge(QUEUE)


ON_RABBITMQ: dict[str, tuple[Trouble, str]] = {
    "memory": (memory_alarm, "RabbitMQ blocks publishers: low on memory"),
    "disk": (disk_alarm, "RabbitMQ blocks publishers: low on disk"),
    "queue": (full_queue, "the queue has reached its max-length of 1, and its policy rejects what comes"),
}


@dataclass
class Watched:
    """A broker that may be in trouble, and who watches it."""

    server: Any
    directory: Path
    servers: dict[str, str]
    web: Web
    monitor: Process
    port: int

    def writable(self) -> float:
        """The metric of the monitor."""
        lines = get(f"http://127.0.0.1:{self.port}/metrics").text.splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith("mds_broker_writable ")), -1.0)

    def counted(self, text: str) -> list[int]:
        """How often the logs of both have it."""
        return [log.count(text) for log in (self.monitor.text(), self.web.log_text())]


@contextmanager
def watched(directory: Path, server: Any, **servers: str) -> Iterator[Watched]:
    port = free_port()
    with (
        monitor(directory, **servers, MDS_MONITOR_METRICS_PORT=str(port)) as watching,
        serving(directory, **servers) as web,
    ):
        wait_until(lambda: web.states()["broker"] == "healthy")
        yield Watched(server, directory, servers, web, watching, port)


def is_seen_and_passes(watched: Watched, trouble: Trouble, reason: str) -> None:
    """The reason is in every place while the trouble lasts, in none after it, and once in the logs."""
    begun, ended = watched.counted("The broker takes no write: "), watched.counted("The broker takes writes again")
    with trouble(watched.server):
        wait_until(lambda: watched.web.client.get("/readyz").status_code == 503, timeout_s=15)
        (component,) = (each for each in watched.web.health().components if each.name == "broker")
        assert component.state == "unhealthy"
        assert f"the broker takes no write: {reason}" in str(component.details["error"])
        status = watched.web.client.get("/status.json").json()
        assert status["queue"]["refusal"].startswith(reason)
        assert reason in status["headline"]
        # What waits in a full queue, and no worker takes here, is named first.
        cause = Cause.NO_WORKERS if status["queue"]["reason"] == "no_workers" else CAUSE
        assert (status["headline_cause"], status["help"]) == (cause.value, help_of(cause))
        printed = mds(watched.directory, "status", **watched.servers)
        assert printed.returncode == 1
        # To a new connection, a Redis that cannot save answers nothing else.
        words = f"refuses: {reason}" if reason == MISCONF else f"takes no write: {reason}"
        assert words in printed.stdout
        wait_until(lambda: watched.writable() == 0, timeout_s=10)
        line = f"help={help_of(CAUSE)}"
        wait_until(lambda: line in watched.monitor.text() and line in watched.web.log_text(), timeout_s=10)
    wait_until(lambda: watched.web.client.get("/readyz").status_code == 200, timeout_s=20)
    wait_until(lambda: watched.writable() == 1, timeout_s=10)
    assert watched.web.client.get("/status.json").json()["queue"]["refusal"] is None
    assert watched.counted("The broker takes no write: ") == [number + 1 for number in begun]
    assert watched.counted("The broker takes writes again") == [number + 1 for number in ended]


@pytest.fixture(scope="module")
def others(postgres_url: str, migrated_template: str, valkey_server_url: str) -> Iterator[dict[str, str]]:
    """The servers that are in no trouble."""
    with new_database(postgres_url, migrated_template) as url:
        yield {"DATABASE_URL": url, "REDIS_URL": valkey_server_url}


@pytest.fixture(scope="module")
def watched_valkey(others: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("valkey")
    with (
        start_valkey(directory / "valkey") as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
        watched(directory, client, **others, BROKER_URL=server.url) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def watched_rabbitmq(others: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """With its management API."""
    require_rabbitmq()
    directory, port = tmp_path_factory.mktemp("rabbitmq"), free_port()
    (directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
    (directory / "rabbitmq.conf").write_text(
        f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\ndisk_free_limit.absolute = 1MB\n"
    )
    servers = {**others, "MDS_RABBITMQ_MANAGEMENT_URL": f"http://guest:guest@127.0.0.1:{port}"}
    with (
        rabbitmq(directory) as server,
        watched(directory, server, **servers, BROKER_URL=server.url) as found,
    ):
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("case", ON_REDIS)
def test_a_redis_that_takes_no_write_is_not_ready(case: str, watched_valkey: Watched) -> None:
    is_seen_and_passes(watched_valkey, *ON_REDIS[case])
    assert not watched_valkey.server.keys(f"{QUEUE}*")


@pytest.mark.slow
@pytest.mark.parametrize("case", ON_RABBITMQ)
def test_a_rabbitmq_that_takes_no_write_is_not_ready(case: str, watched_rabbitmq: Watched) -> None:
    is_seen_and_passes(watched_rabbitmq, *ON_RABBITMQ[case])


def test_a_user_who_may_not_ask_is_told_nothing(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as server:
        server.execute_command("ACL", "SETUSER", "reader", "on", "nopass", "~*", "&*", "+@all", "-lpushx")
        url = redis_url.replace("redis://", "redis://reader:x@")
        try:
            with Celery("reader", broker=url, set_as_current=False) as app:
                inspector = QueueInspector(app, QUEUE)
                assert inspector.refusal() is None
                inspector.close()
        finally:
            server.execute_command("ACL", "DELUSER", "reader")
