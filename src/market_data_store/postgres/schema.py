"""The schema's revisions: upgrades, downgrades and reports on a database. The steps themselves are in `migrations`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from market_data_store.config import resource, settings_without_local_servers
from market_data_store.datasets import DATASETS
from market_data_store.datasets.registry import spans
from market_data_store.errors import ConfigurationError, MigrationFailed
from market_data_store.postgres.added_columns import add_columns, due_columns
from market_data_store.postgres.connection import connect
from market_data_store.postgres.declared_tables import due, upgrade_tables
from market_data_store.postgres.dropping import Dropped, dropped
from market_data_store.postgres.partitioned_tables import due_partitions, partition_tables

#: Alembic's context is global to the process.
_one_at_a_time = threading.Lock()

_EXISTS = "SELECT to_regclass('alembic_version') IS NOT NULL"
_CURRENT = "SELECT version_num FROM alembic_version"


@dataclass(frozen=True, slots=True)
class Revisions:
    """A database's revision (None before the first migration), and the one that this version of the package needs."""

    current: str | None
    head: str
    #: Whether a newer version of this package has migrated the database, as in a rolling change.
    is_newer: bool = False

    @property
    def up_to_date(self) -> bool:
        """Whether no migration is due."""
        return self.current == self.head or self.is_newer

    @property
    def state(self) -> str:
        """`up to date`, or what to do."""
        if self.is_newer:
            return f"of a newer version; this one knows revisions up to {self.head}"
        return "up to date" if self.up_to_date else f"revision {self.head} is due; run `mds migrate`"


def revisions(url: str) -> Revisions:
    """Read a database's revision; raises `DatabaseUnavailable`."""
    with connect(url) as connection:
        return revisions_of(connection)


def revisions_of(connection: psycopg.Connection[Any]) -> Revisions:
    """Read a database's revision over an open connection; raises psycopg's errors."""
    exists = connection.execute(_EXISTS).fetchall()[0][0]
    found = connection.execute(_CURRENT).fetchall() if exists else []
    current = found[0][0] if found else None
    head, known = _revisions()
    return Revisions(current, head, is_newer=current is not None and current not in known)


@cache
def _revisions() -> tuple[str, frozenset[str]]:
    """The newest revision, and all."""
    scripts = ScriptDirectory.from_config(_config(""))
    return scripts.get_current_head() or "", frozenset(script.revision for script in scripts.walk_revisions())


def upgrade(url: str, say: Callable[[str], None] = lambda line: None) -> tuple[Revisions, Revisions]:
    """Run the migrations that are due, make the declared tables, and add columns for fields that were seen.

    Returns the revisions before and after.

    `say` gets a line for each step of the latter. Safe to call again, and in several processes at once. Raises
    `DatabaseUnavailable`, and `MigrationFailed` when a migration has failed and was rolled back, or a declared dataset
    does not fit its table.
    """
    own = DATASETS.declared.values()
    before = revisions(url)
    with _migrating():
        command.upgrade(_config(url), "head")
    if own:
        upgrade_tables(url, own, say)
    if adding := [dataset for dataset in DATASETS.values() if dataset.unknown == "add"]:
        add_columns(url, adding, say)
    partition_tables(url, say)
    return before, revisions(url)


def due_tables(url: str) -> list[str]:
    """Return a line for each step that is due for declared datasets, columns to be added, and partitions.

    Raises `DatabaseUnavailable`.
    """
    own = DATASETS.declared.values()
    adding = [dataset for dataset in DATASETS.values() if dataset.unknown == "add"]
    if not own and not adding and not spans():
        return []
    with connect(url) as connection:
        return [*due(connection, own), *due_columns(connection, adding), *due_partitions(connection)]


def downgrade(url: str) -> tuple[Revisions, Revisions]:
    """Undo the newest migration; returns the revisions before and after.

    Deletes the data of the tables and columns that the migration made. Raises as `upgrade`.
    """
    before = revisions(url)
    if before.current is not None:
        with _migrating():
            command.downgrade(_config(url), "-1")
    return before, revisions(url)


def to_be_dropped(url: str) -> list[Dropped]:
    """Say what `downgrade` deletes; takes at most `dropping.COUNT_MS` a table. Raises as `upgrade`."""
    current = revisions(url).current
    if current is None:
        return []
    with _migrating(), connect(url) as connection:
        revision = ScriptDirectory.from_config(_config(url)).get_revision(current)
        drops = {} if revision is None else revision.module.DROPS
        return list(dropped(connection, drops))


@contextmanager
def _migrating() -> Iterator[None]:
    try:
        with _one_at_a_time:
            yield
    except CommandError as error:
        raise MigrationFailed(f"{error}; a newer version of this package may have migrated the database") from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise MigrationFailed(f"a migration failed and was rolled back: {reason}") from error


def _config(url: str) -> Config:
    given = settings_without_local_servers().alembic_ini
    path = Path(given) if given else resource("alembic.ini")
    if not path.is_file():
        raise ConfigurationError(f"ALEMBIC_INI={str(path)!r}: no such file")
    config = Config(path)
    config.attributes["url"] = url
    return config
