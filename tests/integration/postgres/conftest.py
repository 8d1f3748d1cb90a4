"""What tests of Postgres's wing share."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from support.databases import Connection, database_at, new_database, take_down
from support.pgbouncer import other_clients, pgbouncer
from support.requirements import require_pgbouncer

from market_data_store.postgres import schema
from market_data_store.postgres.writer import Writer


@pytest.fixture(scope="session")
def pooler_url(postgres_url: str) -> Iterator[str]:
    """The embedded Postgres through PgBouncer, which has three sessions for each database."""
    require_pgbouncer()
    with pgbouncer(postgres_url, pool_size=3) as url:
        yield url


@pytest.fixture
def pooled_url(pooler_url: str, database_url: str) -> Iterator[str]:
    """This test's database through PgBouncer, which other clients use, too."""
    url = database_at(pooler_url, urlsplit(database_url).path[1:])
    with other_clients(url):
        yield url


@pytest.fixture(params=["direct", pytest.param("pooled", marks=pytest.mark.slow)])
def writer_url(request: pytest.FixtureRequest) -> str:
    """This test's database, directly and through a pooler."""
    url: str = request.getfixturevalue({"direct": "database_url", "pooled": "pooled_url"}[request.param])
    return url


@pytest.fixture
def writer(writer_url: str) -> Iterator[Writer]:
    writer = Writer(writer_url)
    yield writer
    writer.close()


@pytest.fixture
def before_0004(postgres_url: str) -> Iterator[str]:
    """A database in which the migrations have run up to the one before 0004."""
    with new_database(postgres_url) as url:
        schema.upgrade(url)
        take_down(url, "0003")
        yield url


@pytest.fixture
def before_0005(postgres_url: str) -> Iterator[str]:
    """A database in which the migrations have run up to the one before 0005."""
    with new_database(postgres_url) as url:
        schema.upgrade(url)
        take_down(url, "0004")
        yield url


@pytest.fixture
def old(before_0004: str) -> Iterator[Connection]:
    """A connection to that database; each statement is committed."""
    with psycopg.connect(before_0004, autocommit=True) as connection:
        yield connection
