"""Remember when a worker first took a message that carries no time of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

#: What `downgrade` deletes: tables, or columns of one.
DROPS: dict[str, tuple[str, ...]] = {"first_takes": ()}


def upgrade() -> None:
    op.create_table(
        "first_takes",
        sa.Column("task_id", sa.Text, primary_key=True),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        prefixes=["UNLOGGED"],
    )


def downgrade() -> None:
    op.drop_table("first_takes")
