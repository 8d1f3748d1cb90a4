"""Add the keys by which workers know a replay of dead letters from a message that anybody can send."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

#: What `downgrade` deletes: tables, or columns of one.
DROPS: dict[str, tuple[str, ...]] = {"replay_keys": ()}


def upgrade() -> None:
    op.create_table("replay_keys", sa.Column("key", sa.Text, primary_key=True))


def downgrade() -> None:
    op.drop_table("replay_keys")
