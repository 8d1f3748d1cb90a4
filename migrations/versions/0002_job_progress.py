"""Add the time at which a job run last reported; other programs read and write it by SQL as `updated_at`."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

#: What `downgrade` deletes: tables, or columns of one.
DROPS = {"job_runs": ("updated_at",)}


def upgrade() -> None:
    op.add_column(
        "job_runs",
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    )
    op.execute("UPDATE job_runs SET updated_at = coalesce(completed_at, started_at)")


def downgrade() -> None:
    op.drop_column("job_runs", "updated_at")
