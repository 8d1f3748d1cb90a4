"""What the owner of a dataset's table does to it, for the length of a block, while workers write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql


@dataclass(frozen=True)
class Trouble:
    """Statements on `{table}`, its `{column}` and the workers' `{role}`, and those that undo them."""

    name: str
    begin: str
    end: str = ""
    #: No row can be written meanwhile.
    holds: bool = True


#: The lock is gone with its transaction.
LOCK = Trouble("table locked", "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
TROUBLES = {
    trouble.name: trouble
    for trouble in (
        LOCK,
        Trouble("table renamed", "ALTER TABLE {table} RENAME TO away", "ALTER TABLE away RENAME TO {table}"),
        Trouble(
            "column renamed",
            "ALTER TABLE {table} RENAME {column} TO away",
            "ALTER TABLE {table} RENAME away TO {column}",
        ),
        Trouble(
            "check that nothing fulfils",
            "ALTER TABLE {table} ADD CONSTRAINT nothing CHECK ({column} IS NULL) NOT VALID",
            "ALTER TABLE {table} DROP CONSTRAINT nothing",
        ),
        Trouble(
            "column of the owner's without a default",
            "ALTER TABLE {table} ADD owners integer NOT NULL DEFAULT 0; ALTER TABLE {table} ALTER owners DROP DEFAULT",
            "ALTER TABLE {table} DROP owners",
        ),
        Trouble(
            "trigger that refuses all",
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'refused'; END $$; "
            "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()",
            "DROP TRIGGER refuse ON {table}",
        ),
        Trouble("right revoked", "REVOKE INSERT, UPDATE ON {table} FROM {role}", "GRANT ALL ON {table} TO {role}"),
        Trouble(
            "altered to numeric",
            "ALTER TABLE {table} ALTER {column} TYPE numeric",
            "ALTER TABLE {table} ALTER {column} TYPE double precision",
            holds=False,
        ),
        Trouble(
            "altered to bigint",
            "ALTER TABLE {table} ALTER {column} TYPE bigint",
            "ALTER TABLE {table} ALTER {column} TYPE double precision",
            holds=False,
        ),
    )
}


@contextmanager
def in_trouble(url: str, trouble: Trouble, table: str, column: str, role: str) -> Iterator[None]:
    """A table in this trouble for the length of a block, within which Postgres may be restarted."""
    names = {"table": sql.Identifier(table), "column": sql.Identifier(column), "role": sql.Identifier(role)}
    connection = psycopg.connect(url, autocommit=trouble is not LOCK)
    try:
        connection.execute(sql.SQL(trouble.begin).format(**names))
        yield
    finally:
        connection.close()
    if trouble.end:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL(trouble.end).format(**names))
