"""Add the columns that feeds carry, and `metadata` where a dataset has none.

All are nullable and without a default: Postgres changes only its catalogue, however many rows there are. Partitions and
chunks get the columns from their parents.
"""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

logger = logging.getLogger("market_data_store.migrations")

TEXT = 'text COLLATE "C"'
#: In the order in which the datasets declare them.
COLUMNS = {
    "bars_ohlcv": {"final": "boolean", "metadata": "jsonb"},
    "tick_data": {
        "trade_id": TEXT,
        "side": TEXT,
        "venue": TEXT,
        "conditions": "text[]",
        "received_at": "timestamp with time zone",
        "nanos": "integer",
        "metadata": "jsonb",
    },
    "quotes": {
        "venue": TEXT,
        "received_at": "timestamp with time zone",
        "nanos": "integer",
        "metadata": "jsonb",
    },
    "options_snap": {"metadata": "jsonb"},
}
#: What `downgrade` deletes: tables, or columns of one.
DROPS = {table: tuple(columns) for table, columns in COLUMNS.items()}
#: The lock stops everybody, and whoever comes after it waits behind it: wait only for a short time, and try again.
LOCK_TIMEOUT = "2s"
TRIES = 10
#: SQLSTATEs: lock not available, deadlock detected.
BUSY = ("55P03", "40P01")
FOREIGN_TABLE, VIEWS = "f", "vm"

FOUND = """
    SELECT relkind::text, attname::text, format_type(atttypid, atttypmod)
    FROM pg_class LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
    WHERE pg_class.oid = to_regclass(:name)
"""


def alter(table: str, kind: str, actions: list[str]) -> None:
    """Alter a table once for all actions, and try again if another session has the lock."""
    bind = op.get_bind()
    what = "FOREIGN TABLE" if kind == FOREIGN_TABLE else "TABLE"
    for tries_left in reversed(range(TRIES)):
        try:
            with bind.begin_nested():
                bind.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                bind.execute(sa.text(f"ALTER {what} {table} {', '.join(actions)}"))
                return
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in BUSY or not tries_left:
                raise


def found(table: str) -> tuple[str, dict[str, str]]:
    """A relation's kind, and the types of its columns; the kind is empty for one that does not exist."""
    rows = op.get_bind().execute(sa.text(FOUND), {"name": table}).fetchall()
    return rows[0][0] if rows else "", {name: type_ for _, name, type_ in rows}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        kind, present = found(table)
        for name, type_ in columns.items():
            if name in present and present[name] != type_.partition(" COLLATE")[0]:
                raise sa.exc.InvalidRequestError(f"{table}.{name} exists with the type {present[name]}; rename it")
        missing = {name: type_ for name, type_ in columns.items() if name not in present}
        if kind and kind in VIEWS and missing:
            logger.warning("%s is a view: add %s to it, or rows cannot be written", table, ", ".join(missing))
        elif kind and missing:
            alter(table, kind, [f"ADD COLUMN {name} {type_}" for name, type_ in missing.items()])


def downgrade() -> None:
    for table, columns in COLUMNS.items():
        kind, present = found(table)
        dropped = [name for name in reversed(columns) if name in present]
        if kind and kind not in VIEWS and dropped:
            alter(table, kind, [f"DROP COLUMN {name}" for name in dropped])
