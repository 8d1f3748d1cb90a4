"""Create the datasets' tables, dead letters, attempts and job runs."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

#: Hypertables if TimescaleDB is installed: table -> length of a chunk.
HYPERTABLES = {
    "bars_ohlcv": "7 days",
    "tick_data": "1 day",
    "quotes": "1 day",
    "options_snap": "7 days",
    "fundamentals": "365 days",
    "news": "30 days",
    "signals": "7 days",
}


def text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(collation="C"), nullable=nullable)


def number(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, pg.DOUBLE_PRECISION, nullable=nullable)


def integer(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=nullable, autoincrement=False)


def moment(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def now(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def upgrade() -> None:
    op.create_table(
        "bars_ohlcv",
        *(text("provider"), text("symbol"), text("interval"), moment("ts")),
        *(number(name, nullable=False) for name in ("open", "high", "low", "close")),
        *(number("volume"), number("vwap"), integer("trade_count"), moment("enqueued_at")),
        sa.PrimaryKeyConstraint("provider", "symbol", "interval", "ts"),
    )
    op.create_table(
        "tick_data",
        *(text("provider"), text("symbol"), moment("ts"), integer("seq", nullable=False)),
        *(number("price", nullable=False), number("size"), number("bid"), number("ask"), moment("enqueued_at")),
        sa.PrimaryKeyConstraint("provider", "symbol", "ts", "seq"),
    )
    op.create_table(
        "quotes",
        *(text("provider"), text("symbol"), moment("ts"), integer("seq", nullable=False)),
        *(number(name) for name in ("bid", "ask", "last", "bid_size", "ask_size", "volume")),
        moment("enqueued_at"),
        sa.PrimaryKeyConstraint("provider", "symbol", "ts", "seq"),
    )
    op.create_table(
        "options_snap",
        *(text("provider"), text("symbol"), sa.Column("expiry", pg.DATE, nullable=False)),
        *(number("strike", nullable=False), text("option_type"), moment("ts")),
        *(number(name) for name in ("bid", "ask", "last")),
        *(integer("volume"), integer("open_interest")),
        *(number(name) for name in ("implied_volatility", "delta", "gamma", "theta", "vega", "spot")),
        moment("enqueued_at"),
        sa.PrimaryKeyConstraint("provider", "symbol", "expiry", "strike", "option_type", "ts"),
    )
    op.create_table(
        "fundamentals",
        *(text("provider"), text("symbol"), moment("ts")),
        *(number(name) for name in ("total_assets", "total_liabilities", "net_income", "eps")),
        *(sa.Column("metadata", pg.JSONB), moment("enqueued_at")),
        sa.PrimaryKeyConstraint("provider", "symbol", "ts"),
    )
    op.create_table(
        "news",
        *(text("provider"), moment("ts"), text("id"), text("title"), text("symbol", nullable=True)),
        *(text("url", nullable=True), number("sentiment_score")),
        *(sa.Column("metadata", pg.JSONB), moment("enqueued_at")),
        sa.PrimaryKeyConstraint("provider", "ts", "id"),
    )
    op.create_table(
        "signals",
        *(text("provider"), text("symbol"), moment("ts"), text("name"), number("value"), number("score")),
        *(sa.Column("metadata", pg.JSONB), moment("enqueued_at")),
        sa.PrimaryKeyConstraint("provider", "symbol", "ts", "name"),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        *(now("created_at"), now("refused_at")),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        integer("content_hash", nullable=False),
        sa.Column("dataset", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("sqlstate", sa.Text),
        *(sa.Column(name, sa.JSON) for name in ("row", "defaults")),
        sa.Column("body", sa.LargeBinary),
        moment("enqueued_at"),
    )
    op.create_index("dead_letters_origin", "dead_letters", ["task_id", "position", "content_hash"], unique=True)
    op.create_table(
        "attempts",
        sa.Column("task_id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("deaths", "backend")),
        *(moment(name) for name in ("backend_start", "server_start", "opened_at")),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "job_runs",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("job_name", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text) for name in ("dataset_name", "provider")),
        sa.Column("mode", sa.Text, nullable=False, server_default=sa.text("'live'")),
        sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'running'")),
        *(sa.Column(name, sa.Text) for name in ("config_fingerprint", "pipeline_version")),
        *(
            sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))
            for name in ("rows_written", "rows_failed")
        ),
        sa.Column("symbols", pg.ARRAY(sa.Text)),
        *(moment("min_ts", nullable=True), moment("max_ts", nullable=True)),
        sa.Column("error_message", sa.Text),
        sa.Column("metadata", pg.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        *(now("started_at"), moment("completed_at", nullable=True)),
        sa.Column(
            "elapsed_ms",
            sa.BigInteger,
            sa.Computed("(extract(epoch from completed_at - started_at) * 1000)::bigint", persisted=True),
        ),
    )
    op.create_index("job_runs_started_at", "job_runs", ["started_at"])
    make_hypertables()


def make_hypertables() -> None:
    """Make hypertables if TimescaleDB is installed in this database; else do nothing."""
    installed = op.get_bind().scalar(sa.text("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'"))
    if not installed:
        return
    for table, chunk in HYPERTABLES.items():
        # The keys begin with the columns that queries select by, so a separate index on ts is not needed.
        op.get_bind().execute(
            sa.text(
                "SELECT create_hypertable(:table, 'ts', chunk_time_interval => CAST(:chunk AS interval), "
                "create_default_indexes => false)"
            ),
            {"table": table, "chunk": chunk},
        )


#: What `downgrade` deletes: tables, or columns of one.
DROPS: dict[str, tuple[str, ...]] = dict.fromkeys(("job_runs", "attempts", "dead_letters", *reversed(HYPERTABLES)), ())


def downgrade() -> None:
    for table in DROPS:
        op.drop_table(table)
