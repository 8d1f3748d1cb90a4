"""`mds doctor` finds each planted misconfiguration with the right line, and nothing on a healthy store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import kombu
import psycopg
import pytest
from celery import Celery
from support.databases import database_at
from support.doctor import Store, doctor, healthy, wrong
from support.faketime import clock_off_by
from support.pgbouncer import pgbouncer
from support.processes import PYTHON, frozen, run
from support.rabbitmq import RabbitMQ
from support.requirements import require_pgbouncer
from support.waiting import wait_until
from support.workers import Worker, working

from market_data_store.local import free_port, start_postgres, start_valkey

pytestmark = pytest.mark.slow

#: What changes the store for the length of a block, and gives variables.
Plant = Callable[[Store], AbstractContextManager[dict[str, str]]]
#: A role that may log in and nothing else.
STRANGER = "CREATE ROLE stranger LOGIN"
#: As TimescaleDB has them. The tests have no TimescaleDB; tests/integration/postgres/test_migrations.py does the same.
TIMESCALE = """
    INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    VALUES (99999, 'timescaledb', 10, 'public'::regnamespace, false, '2.17.0');
    CREATE SCHEMA timescaledb_information
    CREATE TABLE hypertables (hypertable_name name, compression_enabled bool)
    CREATE TABLE compression_settings (hypertable_name name, attname name, segmentby_column_index int)
    CREATE TABLE jobs (job_id int, hypertable_name name, proc_name name)
    CREATE TABLE job_stats (job_id int, hypertable_name name, last_run_status text);
    INSERT INTO timescaledb_information.hypertables
    SELECT tablename, tablename = 'tick_data' FROM pg_tables WHERE tablename IN (
        'bars_ohlcv', 'tick_data', 'quotes', 'options_snap', 'fundamentals', 'news'
    );
    INSERT INTO timescaledb_information.jobs VALUES (1, 'bars_ohlcv', 'policy_retention');
    INSERT INTO timescaledb_information.job_stats VALUES (1, 'bars_ohlcv', 'Failed');
"""
NO_TIMESCALE = """
    DELETE FROM pg_extension WHERE extname = 'timescaledb'; DROP SCHEMA timescaledb_information CASCADE
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with healthy(tmp_path_factory.mktemp("healthy")) as found:
        yield found


def variables(**given: str) -> Plant:
    """Variables in place of the store's."""

    @contextmanager
    def plant(_: Store) -> Iterator[dict[str, str]]:
        yield given

    return plant


def sql(do: str, undo: str) -> Plant:
    """Statements as the owner of the database."""

    @contextmanager
    def plant(store: Store) -> Iterator[dict[str, str]]:
        store.database.execute(do.encode())
        try:
            yield {}
        finally:
            store.database.execute(undo.encode())

    return plant


def config(**given: str) -> Plant:
    """Settings of the Valkey."""

    @contextmanager
    def plant(store: Store) -> Iterator[dict[str, str]]:
        names = {name: name.replace("_", "-") for name in given}
        before = {name: store.redis.config_get(names[name])[names[name]] for name in given}
        for name, value in given.items():
            store.redis.config_set(names[name], value)
        try:
            yield {}
        finally:
            for name, value in before.items():
                store.redis.config_set(names[name], value)

    return plant


@contextmanager
def as_stranger(store: Store) -> Iterator[dict[str, str]]:
    store.database.execute(STRANGER)
    try:
        yield {"DATABASE_URL": store.variables["DATABASE_URL"].replace("postgres@", "stranger@")}
    finally:
        store.database.execute("DROP ROLE stranger")


@contextmanager
def migrated_by_a_stranger(store: Store) -> Iterator[dict[str, str]]:
    with as_stranger(store) as given:
        yield {"ADMIN_DATABASE_URL": given["DATABASE_URL"]}


def other_database(variable: str, options: str = "") -> Plant:
    """A new database, in which nothing was migrated."""

    @contextmanager
    def plant(store: Store) -> Iterator[dict[str, str]]:
        store.database.execute(f"CREATE DATABASE other TEMPLATE template0 {options}".encode())
        try:
            yield {variable: database_at(store.variables["DATABASE_URL"], "other")}
        finally:
            store.database.execute("DROP DATABASE other WITH (FORCE)")

    return plant


@contextmanager
def through_a_pooler(store: Store) -> Iterator[dict[str, str]]:
    require_pgbouncer()
    with pgbouncer(store.variables["DATABASE_URL"], pool_size=5) as url:
        yield {"DATABASE_URL": url}


@contextmanager
def open_file(store: Store) -> Iterator[dict[str, str]]:
    path = store.directory / ".env"
    path.write_text("MDS_BATCH_ROWS=5000\n")
    path.chmod(0o644)
    try:
        yield {}
    finally:
        path.unlink()


@contextmanager
def replica(store: Store) -> Iterator[dict[str, str]]:
    store.redis.replicaof("127.0.0.1", "1")
    try:
        yield {}
    finally:
        store.redis.replicaof("NO", "ONE")


@contextmanager
def nearly_full(store: Store) -> Iterator[dict[str, str]]:
    used = store.redis.info("memory")["used_memory"]
    with config(maxmemory=str(int(used * 1.1)))(store) as given:
        yield given


@contextmanager
def few_rights(store: Store) -> Iterator[dict[str, str]]:
    store.redis.execute_command("ACL", "SETUSER", "few", "on", "nopass", "~*", "&*", "+@all", "-info", "-config")
    try:
        yield {"BROKER_URL": store.variables["BROKER_URL"].replace("redis://", "redis://few:x@")}
    finally:
        store.redis.execute_command("ACL", "DELUSER", "few")


@contextmanager
def off_by_a_day(_: Store) -> Iterator[dict[str, str]]:
    yield clock_off_by(86_400)


@contextmanager
def letter(store: Store) -> Iterator[dict[str, str]]:
    _send(store, [{"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9, "value": "s3cret"}])
    counted = "SELECT FROM dead_letters"
    wait_until(lambda: store.database.execute(counted).rowcount == 1, "the letter")
    try:
        yield {}
    finally:
        store.database.execute("DELETE FROM dead_letters")


@contextmanager
def held(store: Store) -> Iterator[dict[str, str]]:
    store.database.execute("ALTER TABLE signals RENAME value TO away")
    _send(store, [{"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9, "value": 1.0}])
    wait_until(lambda: store.redis.llen("store.write.held.signals") == 1, "the message is held")
    try:
        yield {}
    finally:
        store.database.execute("ALTER TABLE signals RENAME away TO value")
        written = "SELECT FROM signals"
        wait_until(lambda: store.database.execute(written).rowcount == 1, "it is written", timeout_s=60)
        store.database.execute("DELETE FROM signals")


def _send(store: Store, rows: list[dict[str, Any]]) -> None:
    with Celery("producer", broker=store.variables["BROKER_URL"], set_as_current=False) as app:
        app.send_task("store.write", args=["signals", rows], queue="store.write")


#: Seconds that it may take: ten for a family, and the start of a process on a busy machine.
MOST_S = 25.0
NOWHERE = f"127.0.0.1:{free_port()}"
PLANTS: dict[str, tuple[Plant, str, str, str]] = {
    "a name that is not a setting": (
        variables(MDS_BATCH_ROW="1"),
        *("settings.values", "error", "MDS_BATCH_ROW: is not a setting; did you mean MDS_BATCH_ROWS?"),
    ),
    "a value that is not a number": (
        variables(MDS_QUEUE_CAPACITY="1e4"),
        *("settings.values", "error", "MDS_QUEUE_CAPACITY='1e4': input should be a valid integer"),
    ),
    "values that contradict each other": (
        variables(MDS_SOFT_ABOVE="0.9"),
        *("settings.values", "error", "watermarks: MDS_OK_AT=0.4 < MDS_SOFT_ABOVE=0.9"),
    ),
    "a setting that was removed": (
        variables(MDS_STOCK_REDIS_TRANSPORT="1"),
        *("settings.values", "warning", "MDS_STOCK_REDIS_TRANSPORT was removed"),
    ),
    "no DATABASE_URL": (
        variables(DATABASE_URL=""),
        "settings.database_url",
        "error",
        "DATABASE_URL is not set; set it",
    ),
    "no BROKER_URL": (
        variables(BROKER_URL="", REDIS_URL=""),
        *("settings.broker_url", "error", "BROKER_URL is not set; set it"),
    ),
    "no ADMIN_TOKEN": (variables(ADMIN_TOKEN=""), "settings.admin_token", "warning", "ADMIN_TOKEN is not set"),
    "a placeholder as the token": (
        variables(ADMIN_TOKEN="changeme"),
        *("settings.admin_token", "warning", "ADMIN_TOKEN is a placeholder"),
    ),
    "a weak password for Flower": (
        variables(FLOWER_BASIC_AUTH="operator:short"),
        *("settings.flower_basic_auth", "warning", "FLOWER_BASIC_AUTH has a weak password"),
    ),
    "workers that end in each outage": (
        variables(MDS_EXIT_WHEN_STALLED="20"),
        *("settings.exit_when_stalled", "warning", "MDS_EXIT_WHEN_STALLED=20"),
    ),
    "secrets that others may read": (open_file, "machine.files", "warning", ".env, which holds secrets or rows; chmod"),
    "no Postgres": (
        variables(DATABASE_URL=f"postgresql://u:s3cret@{NOWHERE}/d"),
        *("database.reachable", "error", f"cannot connect to postgresql://***@{NOWHERE}/d: connection failed"),
    ),
    "a role without rights": (as_stranger, "database.rights", "error", "mds grants --worker stranger | psql"),
    "read-only sessions": (
        sql("ALTER ROLE postgres SET default_transaction_read_only = on", "ALTER ROLE postgres RESET ALL"),
        *("database.writable", "error", "default_transaction_read_only"),
    ),
    "a database of Latin characters": (
        other_database("DATABASE_URL", "ENCODING 'LATIN1' LOCALE 'C'"),
        *("database.encoding", "error", "the encoding of the database other is LATIN1"),
    ),
    "a database that was not migrated": (
        other_database("DATABASE_URL"),
        *("database.migrations", "error", "run `mds migrate`"),
    ),
    "commits that are not on disk": (
        sql("ALTER ROLE postgres SET synchronous_commit = off", "ALTER ROLE postgres RESET ALL"),
        *("database.durability", "warning", "synchronous_commit is off"),
    ),
    "a short statement_timeout": (
        sql("ALTER ROLE postgres SET statement_timeout = '5s'", "ALTER ROLE postgres RESET ALL"),
        *("database.timeouts", "warning", "statement_timeout of postgres is 5 s"),
    ),
    "a column of another type": (
        sql(
            "ALTER TABLE bars_ohlcv ALTER close TYPE text USING close::text",
            "ALTER TABLE bars_ohlcv ALTER close TYPE double precision USING close::double precision",
        ),
        *("database.tables", "error", "bars_ohlcv.close is text; the store needs double precision"),
    ),
    "a key that was dropped": (
        sql(
            "ALTER TABLE news RENAME CONSTRAINT news_pkey TO kept; ALTER TABLE news DROP CONSTRAINT kept",
            "ALTER TABLE news ADD CONSTRAINT news_pkey PRIMARY KEY (provider, ts, id)",
        ),
        *("database.tables", "error", "news has no unique index on (provider, ts, id)"),
    ),
    "a table that is gone": (
        sql("ALTER TABLE quotes RENAME TO gone", "ALTER TABLE gone RENAME TO quotes"),
        *("database.tables", "error", "the table quotes is missing"),
    ),
    "a column that nothing fills": (
        sql("ALTER TABLE signals ADD desk text NOT NULL", "ALTER TABLE signals DROP desk"),
        *("database.tables", "error", "signals.desk is NOT NULL and nothing fills it"),
    ),
    "a plain table beside hypertables": (
        sql(TIMESCALE, NO_TIMESCALE),
        *("database.timescaledb", "warning", "signals is a plain table although TimescaleDB is installed"),
    ),
    "a table that is not partitioned": (
        variables(MDS_PARTITIONS="ticks=month"),
        *("database.partitions", "warning", "`mds partitions convert ticks` partitions it by month"),
    ),
    "a partition that nobody makes": (
        sql(
            "INSERT INTO partitions_wanted VALUES ('ticks', '2016-03-01 00:00+00', now() - interval '1 minute')",
            "TRUNCATE partitions_wanted",
        ),
        *("database.partitions", "error", "ticks: rows wait for the partition from 2016-03-01: no monitor has made it"),
    ),
    "a field with a wrong name": (
        sql(
            "INSERT INTO unknown_fields VALUES ('bars', 'prize', '{number}', 7, now(), now())",
            "TRUNCATE unknown_fields",
        ),
        *("database.unknown", "warning", "do not know: bars.prize"),
    ),
    "letters above their quota": (
        variables(MDS_LETTERS_QUOTA_BYTES="1000"),
        *("database.letters_quota", "warning", "MDS_LETTERS_QUOTA_BYTES"),
    ),
    "too few connections to Postgres": (
        sql("ALTER DATABASE market_data CONNECTION LIMIT 5", "ALTER DATABASE market_data CONNECTION LIMIT -1"),
        *("database.connections", "warning", "CONNECTION LIMIT of the database market_data is 5"),
    ),
    "migrations of another database": (
        other_database("ADMIN_DATABASE_URL"),
        *("admin.same", "error", "ADMIN_DATABASE_URL names the database other, and DATABASE_URL another: market_data"),
    ),
    "migrations by a role that owns nothing": (
        migrated_by_a_stranger,
        *("admin.rights", "error", "ADMIN_DATABASE_URL: the role stranger may not create tables"),
    ),
    "migrations through a pooler": (through_a_pooler, "admin.session", "warning", "goes through a pooler"),
    "no broker": (
        variables(BROKER_URL=f"redis://:s3cret@{NOWHERE}/0"),
        *("broker.reachable", "error", f"cannot connect to redis://***@{NOWHERE}/0"),
    ),
    "a broker that is a replica": (replica, "broker.writable", "error", "the broker takes no write: READONLY"),
    "a broker that evicts": (
        config(maxmemory_policy="allkeys-lru"),
        *("broker.eviction", "error", "CONFIG SET maxmemory-policy noeviction"),
    ),
    "a broker that keeps nothing": (
        config(appendonly="no"),
        *("broker.persistence", "error", "a restart of it loses every message; CONFIG SET appendonly yes"),
    ),
    "a broker that is nearly full": (nearly_full, "broker.memory", "warning", "raise maxmemory"),
    "a user who may not ask": (few_rights, "broker.eviction", "skipped", "its user may not use INFO"),
    "too few connections to the broker": (
        config(maxclients="14"),
        *("broker.connections", "warning", "maxclients of BROKER_URL is 14"),
    ),
    "no Redis for feedback": (
        variables(REDIS_URL=f"redis://{NOWHERE}/0"),
        *("redis.reachable", "error", f"cannot connect to redis://{NOWHERE}/0"),
    ),
    "a monitor that publishes elsewhere": (
        variables(MD_NAMESPACE="other"),
        *("processes.monitor", "warning", "no monitor leads"),
    ),
    "a clock that is a day ahead": (off_by_a_day, "database.clock", "error", "s behind this machine's"),
    "a dead letter": (
        letter,
        "processes.letters",
        "warning",
        "in stock: 1 dead letter, most of signals",
    ),
    "a held dataset": (held, "processes.held", "error", "signals is held: signals.value is missing"),
}


def test_nothing_is_found_on_a_healthy_store(store: Store) -> None:
    found = store.doctor()
    assert wrong(found) == {}, found
    assert {severity for findings in found.values() for severity in (each["severity"] for each in findings)} <= {
        "ok",
        "warning",  # root
    }
    assert wrong(store.doctor(MDS_ENV="development", ADMIN_TOKEN="", FLOWER_BASIC_AUTH="")) == {}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_misconfiguration_is_found(store: Store, name: str) -> None:
    plant, check, severity, words = PLANTS[name]
    with plant(store) as given:
        found = store.doctor(**given)
    lines = [f"{each['message']}; {each['remedy']}" for each in found[check] if each["severity"] == severity]
    assert [line for line in lines if words in line], found[check]
    assert "s3cret" not in json.dumps(found)


def test_without_workers_and_monitor_each_lane_says_so(database_url: str, redis_url: str, tmp_path: Path) -> None:
    servers = {"DATABASE_URL": database_url, "BROKER_URL": redis_url, "MDS_QUEUE_CAPACITY": "1"}
    with Celery("producer", broker=redis_url, set_as_current=False) as app:
        app.send_task("store.write", args=["signals", []], queue="store.write")
    found = wrong(doctor(tmp_path, **servers))
    assert (found["processes.workers"], found["processes.queue"]) == ("error", "error")
    assert (found["processes.backfill_workers"], found["processes.monitor"]) == ("warning", "warning")
    worker = Worker(servers, tmp_path, queues="store.write")
    try:
        worker.ready()
        found = wrong(doctor(tmp_path, **servers))
        assert "processes.workers" not in found
        assert found["processes.backfill_workers"] == "warning"
    finally:
        worker.container.kill()


def test_a_rabbitmq_is_checked(rabbitmq_server: RabbitMQ, rabbitmq_url: str, database_url: str, tmp_path: Path) -> None:
    servers = {"DATABASE_URL": database_url, "BROKER_URL": rabbitmq_url}
    with working(tmp_path, **servers):
        found = doctor(tmp_path, **servers)
        of_broker = {name: each[0]["severity"] for name, each in found.items() if name.startswith("broker.")}
        names = ("reachable", "writable", "version", "queues", "management", "policy")
        assert of_broker == dict.fromkeys((f"broker.{name}" for name in names), "ok")
        assert found["processes.workers"][0]["severity"] == "ok"
    with kombu.Connection(rabbitmq_url) as connection:
        channel = connection.default_channel
        channel.queue_delete("store.write")
        channel.queue_declare("store.write", durable=True, auto_delete=False)
    found = doctor(tmp_path, MDS_RABBITMQ_MANAGEMENT_URL=f"http://u:s3cret@{NOWHERE}", **servers)
    assert "store.write is not a quorum queue" in found["broker.queues"][0]["message"]
    assert found["broker.management"][0]["severity"] == "warning"
    rabbitmq_server.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        wait_until(lambda: "memory" in rabbitmq_server.control("-q", "eval", "rabbit_alarm:get_alarms()."), "the alarm")
        found = doctor(tmp_path, **servers)
        assert "RabbitMQ blocks publishers" in found["broker.writable"][0]["message"]
    finally:
        rabbitmq_server.control("set_vm_memory_high_watermark", "0.4")


def test_servers_that_hang_cost_only_their_own_checks(tmp_path: Path) -> None:
    with (
        start_postgres(tmp_path / "postgres") as postgres,
        start_valkey(tmp_path / "valkey") as valkey,
    ):
        servers = {"DATABASE_URL": postgres.url, "BROKER_URL": valkey.url}
        for hanging, answering in (("database", "broker"), ("broker", "database")):
            with frozen({"database": postgres, "broker": valkey}[hanging].pid):
                started = time.monotonic()
                found = doctor(tmp_path, **servers)
                assert time.monotonic() - started < MOST_S
            assert found[f"{hanging}.reachable"][0]["severity"] == "error"
            assert found[f"{hanging}.version"][0]["message"] == f"skipped: {hanging}.reachable has failed"
            assert found[f"{answering}.version"][0]["severity"] == "ok"


def test_it_opens_few_connections_and_changes_nothing(store: Store) -> None:
    def state() -> tuple[Any, ...]:
        rows = "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        return (
            sorted(store.database.execute(rows).fetchall()),
            sorted(store.redis.keys("store.*")),
            sorted(path.name for path in store.directory.iterdir() if path.suffix != ".log"),
        )

    before, opened = state(), store.redis.info("stats")["total_connections_received"]
    store.doctor()
    assert state() == before
    assert store.redis.info("stats")["total_connections_received"] - opened <= 3


def test_the_roles_of_mds_grants_may_do_what_they_must(store: Store) -> None:
    for role in ("worker", "web", "monitor", "operator", "reader"):
        store.database.execute(f"CREATE ROLE mds_{role} LOGIN".encode())
    printed = run(PYTHON, "-m", "market_data_store", "grants", directory=store.directory, environment=store.variables)
    store.database.execute(printed.stdout.encode())
    for role in ("worker", "web", "monitor", "operator", "reader"):
        url = store.variables["DATABASE_URL"].replace("postgres@", f"mds_{role}@")
        (finding,) = store.doctor(DATABASE_URL=url)["database.rights"]
        assert finding["severity"] == ("error" if role == "reader" else "ok"), finding
        assert ("lacks" if role == "reader" else role) in finding["message"]
    with psycopg.connect(store.variables["DATABASE_URL"], autocommit=True) as owner:
        owner.execute("DROP OWNED BY mds_worker, mds_web, mds_monitor, mds_operator, mds_reader")
        owner.execute("DROP ROLE mds_worker, mds_web, mds_monitor, mds_operator, mds_reader")
        owner.execute("GRANT TEMPORARY ON DATABASE market_data TO PUBLIC")
