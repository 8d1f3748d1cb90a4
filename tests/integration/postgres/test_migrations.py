"""The migrations: they make what `datasets` declares, can be taken back, and do no harm when run twice at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from support.databases import Connection, new_database
from support.processes import PYTHON, running
from support.waiting import wait_until

from market_data_store import config
from market_data_store.config import resource
from market_data_store.datasets import DATASETS
from market_data_store.errors import ConfigurationError, DatabaseUnavailable, MarketDataStoreError, MigrationFailed
from market_data_store.postgres import schema
from market_data_store.postgres.schema import Revisions
from market_data_store.postgres.tables import metadata

MakeDatabase = Callable[[], str]

TIMEOUT_S = 30.0
HEAD = "0010"
#: As in migrations/env.py.
ADVISORY_LOCK = 0x6D6473


@pytest.fixture
def make_database(postgres_url: str) -> Iterator[MakeDatabase]:
    """Make empty databases: URL."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(new_database(postgres_url))


@pytest.fixture
def url(make_database: MakeDatabase) -> str:
    """An empty database."""
    return make_database()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Settings from what the test sets, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "ADMIN_DATABASE_URL", "ALEMBIC_INI"):
        monkeypatch.delenv(name, raising=False)
    config.settings.cache_clear()
    yield monkeypatch
    config.settings.cache_clear()


def connect(url: str) -> Connection:
    return psycopg.connect(url, autocommit=True)


def select(url: str, query: str) -> list[tuple[Any, ...]]:
    with connect(url) as connection:
        return connection.execute(query).fetchall()


def tables(url: str) -> set[str]:
    return {name for (name,) in select(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def migrate_to(url: str, revision: str) -> None:
    configured = Config(resource("alembic.ini"))
    configured.attributes["url"] = url
    command.upgrade(configured, revision)


def sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


COLUMNS = """
    SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, l.collname,
           a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
      AND c.relname <> 'alembic_version'
    ORDER BY c.relname, a.attnum
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid IS DISTINCT FROM to_regclass('alembic_version')
    ORDER BY 1, 2, 3
"""
INDEXES = """
    SELECT tablename, indexname, indexdef
    FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 2
"""
SEQUENCES = "SELECT sequencename, data_type::text FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1"


def catalog(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """All that Postgres knows of the tables: column order, types, collations, identities, defaults, keys, indexes."""
    return {query: select(url, query) for query in (COLUMNS, CONSTRAINTS, INDEXES, SEQUENCES)}


# --- What they make --------------------------------------------------------------------------------------------------


def test_the_migrations_make_what_the_datasets_declare(database_url: str) -> None:
    engine = create_engine(sqlalchemy_url(database_url), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_migrations_make_every_detail_of_the_schema(database_url: str, url: str) -> None:
    metadata.create_all(create_engine(sqlalchemy_url(url), poolclass=NullPool))
    migrated, declared = catalog(database_url), catalog(url)
    for query, found in migrated.items():
        assert found == declared[query]
    assert len(migrated[COLUMNS]) > 90


def test_keys_compare_bytewise_and_in_the_declared_order(database_url: str) -> None:
    keys = """
        SELECT i.indrelid::regclass::text, array_agg(a.attname::text ORDER BY k.place),
               array_agg(DISTINCT l.collname::text) FILTER (WHERE l.collname IS NOT NULL)
        FROM pg_index i, unnest(i.indkey::int[], i.indcollation::oid[]) WITH ORDINALITY AS k (number, coll, place)
        JOIN pg_attribute a ON a.attnum = k.number
        LEFT JOIN pg_collation l ON l.oid = k.coll
        WHERE i.indisprimary AND a.attrelid = i.indrelid GROUP BY 1
    """
    found = {table: (tuple(columns), collations) for table, columns, collations in select(database_url, keys)}
    for dataset in DATASETS.values():
        assert found[dataset.table.name] == (dataset.key, ["C"])


def test_what_the_elapsed_time_of_a_job_is_computed_from(database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute(
            "INSERT INTO job_runs (job_name, started_at, completed_at) "
            "VALUES ('load', 'epoch', timestamptz 'epoch' + '1.5 s')"
        )
    assert select(database_url, "SELECT id, mode, status, rows_written, metadata, elapsed_ms FROM job_runs") == [
        (1, "live", "running", 0, {}, 1_500)
    ]


# --- Up and down -----------------------------------------------------------------------------------------------------


def fill(url: str) -> None:
    """A row into each table, whatever its columns are."""
    samples = {
        "timestamp with time zone": "'2024-01-02 14:30+00'",
        "text": "'x'",
        "date": "'2024-01-19'",
        "jsonb": "'{}'",
        "text[]": "'{}'",
    }
    with connect(url) as connection:
        for table in metadata.sorted_tables:
            required = [
                (name, samples.get(kind, "1"))
                for relation, _, name, kind, not_null, _, identity, _, default in select(url, COLUMNS)
                if relation == table.name and not_null and not identity and default is None
            ]
            columns, values = zip(*required, strict=True)
            connection.execute(f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(values)})")


def test_up_down_and_up_again_on_a_populated_database(url: str) -> None:
    assert schema.revisions(url) == Revisions(None, HEAD)
    assert schema.upgrade(url) == (Revisions(None, HEAD), Revisions(HEAD, HEAD))
    first = catalog(url)
    fill(url)
    while schema.downgrade(url)[1].current is not None:
        pass
    assert tables(url) == {"alembic_version"}
    assert schema.upgrade(url)[1].up_to_date
    assert catalog(url) == first
    fill(url)


def test_the_upgrade_dates_a_runs_last_report_by_its_end_or_its_start(url: str) -> None:
    migrate_to(url, "0001")
    with connect(url) as connection:
        connection.execute("INSERT INTO job_runs (job_name, started_at) VALUES ('lives', 'epoch')")
        connection.execute(
            "INSERT INTO job_runs (job_name, started_at, completed_at) VALUES ('ended', 'epoch', '2024-01-02Z')"
        )
    schema.upgrade(url)
    assert select(url, "SELECT job_name, updated_at AT TIME ZONE 'UTC' FROM job_runs ORDER BY id") == [
        ("lives", datetime(1970, 1, 1)),
        ("ended", datetime(2024, 1, 2)),
    ]


def test_an_upgrade_of_an_up_to_date_database_changes_nothing(database_url: str) -> None:
    fill(database_url)
    before = catalog(database_url)
    assert schema.upgrade(database_url) == (Revisions(HEAD, HEAD), Revisions(HEAD, HEAD))
    assert catalog(database_url) == before
    assert all(select(database_url, f"SELECT count(*) FROM {t.name}") == [(1,)] for t in metadata.sorted_tables)


def test_a_downgrade_of_an_empty_database_does_nothing(url: str) -> None:
    assert schema.downgrade(url) == (Revisions(None, HEAD), Revisions(None, HEAD))
    assert tables(url) == set()


def test_an_upgrade_that_fails_says_why_and_leaves_nothing_behind(url: str) -> None:
    with connect(url) as connection:
        connection.execute("CREATE TABLE signals (mine int)")
    with pytest.raises(MigrationFailed, match='relation "signals" already exists'):
        schema.upgrade(url)
    assert tables(url) - {"alembic_version"} == {"signals"}
    with connect(url) as connection:
        connection.execute("DROP TABLE signals")
    assert schema.upgrade(url)[1].up_to_date


def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert schema.revisions(database_url) == Revisions("9999", HEAD, is_newer=True)
    before = catalog(database_url)
    for call in (schema.upgrade, schema.downgrade):
        with pytest.raises(MarketDataStoreError, match="9999"):
            call(database_url)
    assert catalog(database_url) == before


def test_two_upgrades_at_once_are_one_after_the_other(url: str, tmp_path: Path) -> None:
    program = f"from market_data_store.postgres import schema; print(schema.upgrade({url!r})[1].current)"
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    with ExitStack() as stack:
        with connect(url) as holder:
            # Both arrive at the lock before either goes on.
            holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
            processes = [
                stack.enter_context(running(PYTHON, "-c", program, directory=tmp_path, name=name))
                for name in ("first", "second")
            ]
            wait_until(
                lambda: holder.execute(f"{waiting} AND {here}").fetchall() == [(2,)],
                lambda: "\n".join(process.said() for process in processes),
                timeout_s=TIMEOUT_S,
            )
        for process in processes:
            assert process.wait(TIMEOUT_S) == 0, process.said()
            assert process.text() == f"{HEAD}\n"
    assert tables(url) == set(metadata.tables) | {"alembic_version"}


# --- Which database --------------------------------------------------------------------------------------------------


def migrate_by_settings() -> None:
    """As `alembic upgrade head` does."""
    command.upgrade(Config(resource("alembic.ini")), "head")


def test_alembic_migrates_the_admin_url(make_database: MakeDatabase, environment: pytest.MonkeyPatch) -> None:
    url, admin_url = make_database(), make_database()
    environment.setenv("DATABASE_URL", url)
    environment.setenv("ADMIN_DATABASE_URL", admin_url.replace("postgresql://", "postgres://"))
    migrate_by_settings()
    assert schema.revisions(admin_url).up_to_date
    assert tables(url) == set()


def test_alembic_migrates_database_url_where_there_is_no_admin_url(url: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", url.replace("postgresql://", "postgres://"))
    migrate_by_settings()
    assert schema.revisions(url).up_to_date


def test_a_postgres_url_of_a_paas_is_migrated(url: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", url.replace("postgresql://", "postgres://"))
    assert schema.upgrade(config.settings().migration_url)[1].up_to_date


def with_several_hosts(url: str) -> str:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}@127.0.0.1:1,{host}").geturl()


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(lambda url: url.replace("postgresql://", "postgres://"), id="postgres"),
        pytest.param(with_several_hosts, id="several-hosts"),
    ],
)
def test_whatever_url_the_writer_takes_can_be_migrated(url: str, spell: Callable[[str], str]) -> None:
    assert schema.upgrade(spell(url))[1].up_to_date


def test_a_percent_sign_in_the_password_is_accepted(url: str) -> None:
    parts = urlsplit(url)
    user = parts.username or "postgres"
    spelled = parts._replace(netloc=f"{user}:p%25w%40d@{parts.netloc.rpartition('@')[2]}").geturl()
    assert schema.upgrade(spelled)[1].up_to_date


def test_a_server_that_cannot_be_reached_is_unavailable_and_named_without_its_password() -> None:
    for call in (schema.revisions, schema.upgrade, schema.downgrade):
        with pytest.raises(
            DatabaseUnavailable, match=r"cannot connect to postgresql://\*\*\*@127.0.0.1:1/db"
        ) as caught:
            call("postgresql://user:secret@127.0.0.1:1/db")
        assert "secret" not in str(caught.value)


def test_an_alembic_ini_that_is_not_there_is_a_configuration_error(url: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ALEMBIC_INI", "nowhere/alembic.ini")
    with pytest.raises(ConfigurationError, match=r"ALEMBIC_INI='nowhere/alembic\.ini': no such file"):
        schema.upgrade(url)


def test_an_alembic_ini_of_ones_own_is_used(url: str, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "own.ini"
    own.write_text(f"[alembic]\nscript_location = {resource('migrations')}\npath_separator = os\n")
    environment.setenv("ALEMBIC_INI", str(own))
    assert schema.upgrade(url)[1].up_to_date


# --- TimescaleDB -----------------------------------------------------------------------------------------------------

#: The signature of TimescaleDB's manual, and the rival that it has had since 2.13: the call must be unambiguous.
CREATE_HYPERTABLE = """
    CREATE TABLE calls (
        number int GENERATED ALWAYS AS IDENTITY, relation text, dimension text, chunk text, indexes bool
    );
    CREATE TYPE dimension_info AS (column_name name);
    CREATE FUNCTION create_hypertable(
        relation regclass, time_column_name name, partitioning_column name = NULL, number_partitions integer = NULL,
        associated_schema_name name = NULL, associated_table_prefix name = NULL,
        chunk_time_interval anyelement = NULL::bigint, create_default_indexes boolean = true,
        if_not_exists boolean = false, partitioning_func regproc = NULL, migrate_data boolean = false,
        chunk_target_size text = NULL, chunk_sizing_func regproc = NULL, time_partitioning_func regproc = NULL
    ) RETURNS TABLE (hypertable_id int, schema_name name, table_name name, created bool) LANGUAGE sql AS $$
        INSERT INTO calls (relation, dimension, chunk, indexes)
        VALUES (relation::text, time_column_name, pg_typeof(chunk_time_interval) || ' ' || chunk_time_interval::text,
                create_default_indexes)
        RETURNING 1, 'public'::name, 'x'::name, true
    $$;
    CREATE FUNCTION create_hypertable(
        relation regclass, dimension dimension_info, create_default_indexes boolean = true,
        if_not_exists boolean = false, migrate_data boolean = false
    ) RETURNS TABLE (hypertable_id int, created bool) LANGUAGE sql AS $$ SELECT 1, 1 / 0 > 0 $$;
"""
INSTALL = """
    INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    VALUES (99999, 'timescaledb', 10, 'public'::regnamespace, false, '2.17.0')
"""


def test_where_timescaledb_is_installed_every_dataset_becomes_a_hypertable(url: str) -> None:
    with connect(url) as connection:
        connection.execute(CREATE_HYPERTABLE)
        connection.execute(INSTALL)
    assert schema.upgrade(url)[1].up_to_date
    assert select(url, "SELECT relation, dimension, chunk, indexes FROM calls ORDER BY number") == [
        ("bars_ohlcv", "ts", "interval 7 days", False),
        ("tick_data", "ts", "interval 1 day", False),
        ("quotes", "ts", "interval 1 day", False),
        ("options_snap", "ts", "interval 7 days", False),
        ("fundamentals", "ts", "interval 365 days", False),
        ("news", "ts", "interval 30 days", False),
        ("signals", "ts", "interval 7 days", False),
    ]


def test_the_time_column_is_in_every_key_as_hypertables_need_it() -> None:
    assert all("ts" in dataset.key for dataset in DATASETS.values())


def test_without_timescaledb_no_hypertable_is_asked_for(url: str) -> None:
    with connect(url) as connection:
        connection.execute(CREATE_HYPERTABLE)  # there, but of no extension
    assert schema.upgrade(url)[1].up_to_date
    assert select(url, "SELECT count(*) FROM calls") == [(0,)]


def test_without_timescaledb_the_tables_are_plain(database_url: str) -> None:
    kinds = select(
        database_url, "SELECT DISTINCT relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )
    assert {kind for (kind,) in kinds} == {"r", "i", "S"}
    assert select(database_url, "SELECT extname FROM pg_extension") == [("plpgsql",)]
