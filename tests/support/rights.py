"""The users of docs/least-rights.md, taken from its text, on servers of the tests."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import amqp
import psycopg
import redis
from psycopg import sql

from market_data_store.local import servers
from market_data_store.postgres.grants import Roles, grants
from market_data_store.postgres.tables import metadata
from support import processes, rabbitmq

DOCUMENT = Path(__file__).parents[2] / "docs/least-rights.md"
#: Each has a user of its name at the brokers.
USERS = ("producer", "worker", "monitor", "web", "operator", "flower")
ROLES = ("admin", "worker", "web", "monitor", "operator", "reader")
#: What no role but that of the migrations may do.
FORBIDDEN = (
    "CREATE TABLE other ()",
    "ALTER TABLE signals ADD COLUMN other text",
    "DROP TABLE signals",
    "TRUNCATE signals",
    "CREATE INDEX ON signals (name)",
    "UPDATE alembic_version SET version_num = '0001'",
    "COPY signals TO PROGRAM 'true'",
    "CREATE ROLE other",
)
#: By user, a pattern of the commands that run as this user; the first that matches.
_COMMANDS = {
    "worker": r"celery\b.* worker\b",
    "web": r"gunicorn",
    "monitor": r"mds'? monitor\b",
    "flower": r"mds'? flower\b",
    "operator": r"mds'? (load|export|status|top|jobs|dead-letters|release-held|demo)\b",
    "producer": r"python[\d.]* -[cm] ",
}
_URLS = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")
#: The table of a dataset that every store has.
BARS = "bars_ohlcv"
#: The URLs of servers that know the users.
_knowing: set[str] = set()
_granting = threading.Lock()


def password_of(user: str) -> str:
    return f"of-{user}-in-these-tests"


def documented(beginning: str) -> list[str]:
    """The lines of the document that begin so, with a password in place of each `...`."""
    found = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(beginning)]
    assert found, beginning
    return [_with_password(line) for line in found]


def _with_password(line: str) -> str:
    named = re.search(r"(?:SETUSER|add_user|ROLE) (?:mds_)?(\w+)", line)
    return line.replace("...", password_of(named[1])) if named else line


def set_up_redis(url: str) -> None:
    """Make the users, as the server's owner."""
    with redis.Redis.from_url(url) as owner:
        for line in documented("ACL SETUSER "):
            owner.execute_command(*line.split())


def set_up_rabbitmq(broker: rabbitmq.RabbitMQ) -> None:
    for line in documented("rabbitmqctl "):
        action, name, *arguments = shlex.split(line)[1:]
        if action == "add_user" and name in rabbitmq.USERS:
            continue  # the broker was started with it
        broker.control(action, name, *arguments)


def set_up_postgres(url: str) -> None:
    """Make the roles, as the superuser."""
    with psycopg.connect(url, autocommit=True) as owner:
        for beginning in ("CREATE ROLE ", "ALTER DATABASE ", "GRANT "):
            for line in documented(beginning):
                owner.execute(line.encode())


def as_user(url: str, user: str) -> str:
    """The URL with this user, who has the password of the tests."""
    parts = urlsplit(url)
    name = f"mds_{user}" if parts.scheme.startswith("postgres") else user
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{name}:{password_of(user)}@{host}").geturl()


def make_them_the_rule() -> None:
    """Give the processes of all tests these users, where the server has them: before the first server is started."""
    for line in documented("ACL SETUSER "):
        servers._VALKEY_SETTINGS.append(line.replace("ACL SETUSER", "user"))
    for line in documented("rabbitmqctl set_permissions "):
        name, *permissions = shlex.split(line)[2:]
        configure, write, read = permissions
        rabbitmq.USERS[name] = (password_of(name), configure, write, read)
    processes.variables_of.append(_with_users)


def _with_users(command: Sequence[str], variables: Mapping[str, str]) -> Mapping[str, str]:
    user = _user_of(command)
    if user is None:
        return variables
    changed = {name: _url_for(user, variables[name]) for name in _URLS if variables.get(name)}
    return {**variables, **changed}


def _user_of(command: Sequence[str]) -> str | None:
    """Who runs this; None for what migrates, and for what starts several processes."""
    line = " ".join(command)
    for user, words in _COMMANDS.items():
        if re.search(words, line):
            return user
    return None


def _url_for(user: str, url: str) -> str:
    """This URL with the user, where the server is a test's own and knows the user."""
    parts = urlsplit(url)
    if "," in parts.netloc or parts.hostname not in ("127.0.0.1", "localhost"):
        return url
    is_owners = {"redis": "", "amqp": "guest:guest", "postgresql": "postgres", "postgres": "postgres"}
    if is_owners.get(parts.scheme) != parts.netloc.rpartition("@")[0]:
        return url
    look = {"redis": _redis_knows, "amqp": _rabbitmq_knows}.get(parts.scheme, _postgres_knows)
    if url not in _knowing:  # a server that is away now may have been there
        with suppress(redis.RedisError, psycopg.OperationalError, OSError, amqp.AMQPError):
            if look(url):
                _knowing.add(url)
    elif look is _postgres_knows:
        with suppress(psycopg.OperationalError):
            look(url)  # migrated since
    if url not in _knowing:
        return url
    is_database = look is _postgres_knows
    return as_user(url, {"producer": "operator"}.get(user, user) if is_database else user)


def _redis_knows(url: str) -> bool:
    with redis.Redis.from_url(url) as owner:
        return owner.execute_command("ACL", "GETUSER", "worker") is not None


def _rabbitmq_knows(url: str) -> bool:
    with amqp.Connection(urlsplit(url).netloc.rpartition("@")[2], userid="worker", password=password_of("worker")):
        return True


def _postgres_knows(url: str) -> bool:
    """Make the roles, if they are missing, and grant what `mds grants` prints, if the database is migrated."""
    with _granting, psycopg.connect(url, autocommit=True) as owner:
        if owner.execute("SELECT FROM pg_roles WHERE rolname = 'mds_worker'").rowcount == 0:
            for line in documented("CREATE ROLE "):
                owner.execute(line.encode())
        if owner.execute("SELECT FROM pg_tables WHERE tablename = 'partitions_wanted'").rowcount == 0:
            return False
        others = sql.SQL(", ").join(map(sql.Identifier, _declared_tables(owner)))
        for line in grants(owner.info.dbname, Roles(**{name: f"mds_{name}" for name in ROLES if name != "admin"})):
            owner.execute(line.encode())
            of_datasets = re.fullmatch(rf"(GRANT .+ ON ).*\b{BARS}\b.*( TO .+);", line)
            if of_datasets and others.as_string():
                beginning, end = of_datasets.groups()
                owner.execute(sql.SQL(beginning) + others + sql.SQL(end))
    return True


def _declared_tables(owner: psycopg.Connection[Any]) -> list[str]:
    """The tables of the datasets that a test has declared: `mds grants` of its processes prints these as well."""
    known = [*metadata.tables, "alembic_version"]
    found = owner.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL (%s) ORDER BY 1", [known]
    )
    return [str(name) for (name,) in found.fetchall()]
