"""Leave room on the pages of tables whose rows are updated, so that a row's new version fits on its page (HOT).

Such an update changes no index. Pages that are full already stay full until the table is rewritten.
"""

import logging
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

#: What `downgrade` deletes: tables, or columns of one.
DROPS: dict[str, tuple[str, ...]] = {}

logger = logging.getLogger("market_data_store.migrations")

#: Not ticks and quotes: their keys have what tells two of them apart, so their rows are hardly ever updated.
TABLES = ("bars_ohlcv", "options_snap", "fundamentals", "news", "signals")
FILLFACTOR = 80
#: The lock lets everybody read and write. It waits for VACUUM, CREATE INDEX and other ALTERs.
LOCK_TIMEOUT = "2s"
TRIES = 10
LOCK_NOT_AVAILABLE = "55P03"

#: The tables and their partitions or chunks.
PARTS = """
    WITH RECURSIVE parts (oid) AS (
        SELECT to_regclass(name)::oid FROM unnest(CAST(:tables AS text[])) AS name
        UNION
        SELECT inhrelid FROM pg_inherits JOIN parts ON inhparent = parts.oid
    )
    SELECT oid::regclass::text, relkind::text, array_to_string(reloptions, ' ')
    FROM parts JOIN pg_class USING (oid) ORDER BY 1
"""
#: Relations without pages, by `relkind`.
KINDS = {"p": "a partitioned table", "v": "a view", "m": "a materialized view", "f": "a foreign table"}


def parts() -> Iterator[tuple[str, str]]:
    """The quoted name and the storage options of each table that has pages; logs a line for each other one."""
    for name, kind, options in op.get_bind().execute(sa.text(PARTS), {"tables": list(TABLES)}).fetchall():
        if kind == "r":
            yield name, options or ""
        else:
            logger.warning("%s is %s: its fillfactor is not set", name, KINDS.get(kind, f"of kind {kind!r}"))


def alter(name: str, action: str) -> None:
    """Alter a table, and try again if another session has the lock."""
    bind = op.get_bind()
    for tries_left in reversed(range(TRIES)):
        try:
            with bind.begin_nested():
                bind.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                bind.execute(sa.text(f"ALTER TABLE {name} {action}"))
                return
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE or not tries_left:
                raise


def upgrade() -> None:
    for name, options in parts():
        if "fillfactor=" not in options:  # otherwise the owner has chosen one
            alter(name, f"SET (fillfactor = {FILLFACTOR})")


def downgrade() -> None:
    for name, options in parts():
        if f"fillfactor={FILLFACTOR}" in options.split():
            alter(name, "RESET (fillfactor)")
