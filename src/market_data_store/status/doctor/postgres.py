"""Checks of the database of DATABASE_URL: whether rows can be written to it, and stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from market_data_store.config import Settings
from market_data_store.connections.urls import without_password
from market_data_store.dead_letters.quota import size_of_files
from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres import grants
from market_data_store.postgres.connection import connect, first_line
from market_data_store.postgres.room import disk_free
from market_data_store.postgres.schema import revisions_of
from market_data_store.postgres.server import OLDEST, ServerFacts, facts_of, is_pooled
from market_data_store.status.doctor import tables
from market_data_store.status.doctor.clocks import clock_of
from market_data_store.status.doctor.disks import megabytes, room_in
from market_data_store.status.doctor.family import Family
from market_data_store.status.doctor.finding import Finding, error, ok, warning

NAME = "database"
#: Seconds that a worker's statement may need: the task's soft time limit, see celeryconfig.py.
_STATEMENT_S = 60.0
#: The share of MDS_LETTERS_QUOTA_BYTES above which the letters are many.
_QUOTA_SHARE = 0.8
#: The processes of a role that may write, in the order in which they are tried.
_WRITING = ("worker", "web", "operator", "monitor")


@dataclass(frozen=True)
class Database:
    """An open database, and what it says of itself."""

    connection: psycopg.Connection[Any]
    url: str
    facts: ServerFacts
    #: Seconds by which its clock is ahead of this machine's.
    ahead_s: float

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler is between."""
        return is_pooled(self.connection, self.facts.pid)


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """Connect and ask for the facts; raises `DatabaseUnavailable`."""
    with closing(connect(url)) as connection:
        try:
            facts, ahead_s = facts_of(connection)
        except psycopg.Error as failed:
            raise DatabaseUnavailable(f"{without_password(url)}: {first_line(failed)}") from failed
        yield Database(connection, url, facts, ahead_s)


def database(settings: Settings, see: Callable[[ServerFacts], None]) -> Family[Database]:
    """Return the checks of DATABASE_URL; `see` gets the facts, for checks that need those of several servers."""

    def letters(part: Database) -> Iterable[Finding]:
        return _letters(part, settings.letters_quota_bytes)

    def reachable(part: Database) -> Iterable[Finding]:
        see(part.facts)
        return _reachable(part)

    return Family(
        NAME,
        lambda: opened(settings.database_url),
        "check DATABASE_URL, and that the server runs and lets this machine in",
        {
            "reachable": reachable,
            "version": _version,
            "writable": _writable,
            "encoding": _encoding,
            "durability": _durability,
            "timeouts": _timeouts,
            "vacuum": _vacuum,
            "clock": lambda part: clock_of(f"{NAME}.clock", "Postgres", part.ahead_s),
            "pooler": _pooler,
            "migrations": _migrations,
            "rights": _rights,
            "tables": lambda part: tables.fitting(part.connection),
            "partitions": lambda part: tables.partitions(part.connection),
            "timescaledb": lambda part: tables.timescaledb(part.connection),
            "unknown": lambda part: tables.unknown(part.connection),
            "disk": _disk,
            "letters_quota": letters,
        },
    )


def _reachable(part: Database) -> Iterator[Finding]:
    yield ok(f"{NAME}.reachable", f"{without_password(part.url)} answers to the role {part.facts.role}")


def _version(part: Database) -> Iterator[Finding]:
    check, facts = f"{NAME}.version", part.facts
    if facts.major < OLDEST:
        yield error(check, f"Postgres is {facts.version}", f"the store needs {OLDEST} or newer; upgrade the server")
    else:
        yield ok(check, f"Postgres {facts.version}")


def _writable(part: Database) -> Iterator[Finding]:
    check, facts = f"{NAME}.writable", part.facts
    if facts.is_replica:
        yield error(check, "the server is a replica, which takes no write", "let DATABASE_URL name the primary")
    elif facts.is_read_only:
        yield error(
            check,
            f"sessions of {facts.role} are read-only (default_transaction_read_only)",
            f"ALTER ROLE {facts.role} RESET default_transaction_read_only, or reset it for the database or the server",
        )
    else:
        yield ok(check, "the server takes writes")


def _encoding(part: Database) -> Iterator[Finding]:
    check, encoding = f"{NAME}.encoding", part.facts.encoding
    if encoding == "UTF8":
        yield ok(check, "the database's encoding is UTF8")
    else:
        yield error(
            check,
            f"the encoding of the database {part.facts.database} is {encoding}, which lacks characters of names",
            "create a database with ENCODING 'UTF8' and copy the data there",
        )


def _durability(part: Database) -> Iterator[Finding]:
    check, facts = f"{NAME}.durability", part.facts
    if not facts.is_durable:
        yield warning(
            check,
            "fsync or full_page_writes is off: if the machine fails, the database may be damaged",
            "turn both on in the server's configuration",
        )
    elif facts.synchronous_commit == "off":
        yield warning(
            check,
            "synchronous_commit is off: messages are acknowledged up to a second before their rows are on disk",
            f"ALTER ROLE {facts.role} SET synchronous_commit = on",
        )
    else:
        yield ok(check, "a commit is on disk")


def _timeouts(part: Database) -> Iterator[Finding]:
    check, facts = f"{NAME}.timeouts", part.facts
    if 0 < facts.statement_timeout_s < _STATEMENT_S:
        yield warning(
            check,
            f"statement_timeout of {facts.role} is {facts.statement_timeout_s:g} s: a large batch would be "
            "cancelled and tried again",
            f"ALTER ROLE {facts.role} SET statement_timeout = 0, or to {_STATEMENT_S:.0f} s or more",
        )
    else:
        yield ok(check, "no timeout cuts a batch off")


def _vacuum(part: Database) -> Iterator[Finding]:
    if part.facts.vacuums:
        yield ok(f"{NAME}.vacuum", "autovacuum is on")
    else:
        yield warning(
            f"{NAME}.vacuum", "autovacuum is off: tables with updates only grow", "turn autovacuum on in the server"
        )


def _pooler(part: Database) -> Iterator[Finding]:
    way = "through a pooler, with which workers work" if part.is_pooled else "direct"
    yield ok(f"{NAME}.pooler", f"the connection is {way}")


def _migrations(part: Database) -> Iterator[Finding]:
    check, revisions = f"{NAME}.migrations", revisions_of(part.connection)
    if revisions.is_newer:
        yield warning(
            check,
            f"revision {revisions.current} is {revisions.state}",
            "install the version of the package that migrated the database, on every machine",
        )
    elif not revisions.up_to_date:
        yield error(check, f"the schema is at revision {revisions.current or 'none'}", revisions.state)
    else:
        yield ok(check, f"revision {revisions.current} is {revisions.state}")


def _rights(part: Database) -> Iterator[Finding]:
    check, role = f"{NAME}.rights", part.facts.role
    missing = {kind: grants.missing(part.connection, kind) for kind in _WRITING}
    has = [kind for kind, lacks in missing.items() if not lacks]
    if has:
        yield ok(check, f"{role} may do what {', '.join(has)} must")
        return
    # The kind of which it has the largest share; a role without any is told what the worker needs.
    kind, lacks = min(missing.items(), key=lambda each: len(each[1]) / len([*grants.rights(each[0])]))
    named = [f"{right} on {table}" for right, table, _ in lacks]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    yield error(
        check,
        f"{role} lacks what {kind} needs: {', '.join(named[:3])}{more}",
        f'mds grants --{kind} {role} | psql "$ADMIN_DATABASE_URL"',
    )


def _disk(part: Database) -> Iterator[Finding]:
    check, facts = f"{NAME}.disk", part.facts
    said = f"the database has {megabytes(facts.size)}"
    if facts.data_directory is None or not facts.is_local or disk_free(facts.data_directory) is None:
        yield ok(check, f"{said}; the server does not tell how much its disk has left")
    else:
        yield room_in(check, facts.data_directory, f"{said}; its disk", "make room on the disk of Postgres")


def _letters(part: Database, quota: int) -> Iterator[Finding]:
    check, size = f"{NAME}.letters_quota", size_of_files(part.connection)
    if quota and size > _QUOTA_SHARE * quota:
        yield warning(
            check,
            f"the table dead_letters has {megabytes(size)} of the {megabytes(quota)} of MDS_LETTERS_QUOTA_BYTES; "
            "above, only reasons are kept",
            "`mds dead-letters replay` or `purge` some, or raise MDS_LETTERS_QUOTA_BYTES",
        )
    else:
        yield ok(check, f"dead_letters has {megabytes(size)}")
