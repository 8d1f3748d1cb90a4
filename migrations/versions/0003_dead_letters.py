"""Add to dead letters the reason's pattern, the body's description, and the place in a loaded file."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: All nullable and without a default: Postgres changes only its catalogue, however many letters there are.
COLUMNS = {
    "pattern": sa.Text,
    "body_bytes": sa.BigInteger,
    "body_sha256": sa.LargeBinary,
    "content_type": sa.Text,
    "content_encoding": sa.Text,
    "compression": sa.Text,
    "job": sa.BigInteger,
    "file": sa.Text,
    "line": sa.BigInteger,
}
#: What `downgrade` deletes: tables, or columns of one.
DROPS = {"dead_letters": tuple(COLUMNS)}


def upgrade() -> None:
    for name, type_ in COLUMNS.items():
        op.add_column("dead_letters", sa.Column(name, type_))


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("dead_letters", name)
