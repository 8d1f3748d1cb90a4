"""Add the leases of monitors, and what their upkeep did last."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

#: What `downgrade` deletes: tables, or columns of one.
DROPS: dict[str, tuple[str, ...]] = {"leases": (), "upkeep_runs": ()}


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "upkeep_runs",
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settings", JSONB, nullable=False),
        sa.Column("found", JSONB, nullable=False),
        sa.Column("errors", JSONB, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("upkeep_runs")
    op.drop_table("leases")
