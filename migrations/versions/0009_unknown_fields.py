"""Count the fields that datasets do not know, and note the columns that are added for them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

#: What `downgrade` deletes: tables, or columns of one. Columns that were added for fields stay.
DROPS: dict[str, tuple[str, ...]] = {"unknown_fields": (), "added_columns": ()}


def upgrade() -> None:
    op.create_table(
        "unknown_fields",
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("kinds", ARRAY(sa.Text), nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "added_columns",
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("relation", sa.Text, nullable=False),
        sa.Column("field", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    )


def downgrade() -> None:
    op.drop_table("added_columns")
    op.drop_table("unknown_fields")
