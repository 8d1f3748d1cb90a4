"""The servers that all contenders share: embedded ones, or those whose URLs are given.

Postgres is as durable as usual (fsync on), and the same for all contenders. It records the time of each commit
(`track_commit_timestamp`), which `latency` needs. Given servers are left as they were found: the benchmark works in its
own database, and refuses a broker that is not empty.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import kombu
import psycopg
import redis
from amqp.exceptions import NotFound

from benchmarks.database import Database, created
from market_data_store.connections.urls import postgres_url, without_password
from market_data_store.errors import MarketDataStoreError
from market_data_store.local import start_postgres, start_valkey

REDIS, RABBITMQ = "redis", "rabbitmq"
DATABASE = "market_data_benchmark"
#: Our queue, and the peers'.
QUEUES = ("store.write", "peer.write")


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers that run; `skipped` has those that do not, with the reasons."""

    #: URL of an existing database on the server, from which other databases can be created.
    server_url: str
    database: Database
    #: URLs of the available brokers, by name.
    brokers: Mapping[str, str]
    skipped: Mapping[str, str] = field(default_factory=dict)
    #: Process ids of embedded servers.
    pids: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def servers(directory: Path, *, database_url: str, redis_url: str, rabbitmq_url: str) -> Iterator[Servers]:
    """Use the servers that are given, and start the others. Raises `MarketDataStoreError`."""
    with ExitStack() as stack:
        skipped: dict[str, str] = {}
        pids: dict[str, int] = {}
        if database_url:
            server_url = postgres_url(database_url)
        else:
            with start_postgres(directory / "postgres") as server, psycopg.connect(server.url, autocommit=True) as own:
                own.execute("ALTER SYSTEM SET track_commit_timestamp = on")
            server = stack.enter_context(start_postgres(directory / "postgres"))
            server_url, pids["postgres"] = server.url, server.pid
        if redis_url:
            stack.enter_context(_given_redis(redis_url))
        else:
            valkey = stack.enter_context(start_valkey(directory / "valkey"))
            redis_url, pids[REDIS] = valkey.url, valkey.pid
        if rabbitmq_url:
            stack.enter_context(_given_rabbitmq(rabbitmq_url))
        else:
            rabbitmq_url = _own_rabbitmq(stack, directory / "rabbitmq", pids, skipped)
        yield Servers(
            server_url=server_url,
            database=stack.enter_context(created(server_url, DATABASE)),
            brokers={REDIS: redis_url, **({RABBITMQ: rabbitmq_url} if rabbitmq_url else {})},
            skipped=skipped,
            pids=pids,
        )


def _own_rabbitmq(stack: ExitStack, directory: Path, pids: dict[str, int], skipped: dict[str, str]) -> str:
    tests = str(Path(__file__).parents[1] / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from support.rabbitmq import available, rabbitmq

    if not available():
        skipped["RabbitMQ"] = "rabbitmq-server is not installed; install it, or give --rabbitmq-url"
        return ""
    server = stack.enter_context(rabbitmq(directory))
    pids[RABBITMQ] = server.pid
    return server.url


@contextmanager
def _given_redis(url: str) -> Iterator[None]:
    with redis.Redis.from_url(url) as client:
        try:
            if client.dbsize():
                raise MarketDataStoreError(
                    f"--redis-url {without_password(url)}: holds keys; give an empty database, such as .../9"
                )
        except redis.RedisError as error:
            raise MarketDataStoreError(f"--redis-url {without_password(url)}: {error}") from error
        yield
        client.flushdb()


@contextmanager
def _given_rabbitmq(url: str) -> Iterator[None]:
    with kombu.Connection(url, connect_timeout=5) as connection:
        for queue in QUEUES:
            try:
                connection.channel().queue_declare(queue, passive=True)
            except NotFound:
                continue
            except OSError as error:
                raise MarketDataStoreError(f"--rabbitmq-url {without_password(url)}: {error}") from error
            raise MarketDataStoreError(
                f"--rabbitmq-url {without_password(url)}: has a queue {queue}; give an empty virtual host"
            )
    yield
    with kombu.Connection(url) as connection:
        for queue in QUEUES:
            connection.default_channel.queue_delete(queue)
