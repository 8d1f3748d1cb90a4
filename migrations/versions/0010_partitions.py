"""Add the partitions that workers ask for, and those that retention has begun to detach."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

#: What `downgrade` deletes: tables, or columns of one.
DROPS: dict[str, tuple[str, ...]] = {"partitions_wanted": (), "partitions_leaving": ()}


def upgrade() -> None:
    op.create_table(
        "partitions_wanted",
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("starts", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trouble", sa.Text),
    )
    op.create_table(
        "partitions_leaving",
        sa.Column("partition", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("starts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends", sa.DateTime(timezone=True), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("partitions_leaving")
    op.drop_table("partitions_wanted")
