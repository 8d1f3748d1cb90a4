"""The store's own tables, which are not datasets: dead letters, attempts, job runs.

Importing this module completes `metadata`, which the migrations are compared with.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Computed,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from market_data_store.datasets.declaration import ENQUEUED_AT, metadata

__all__ = ["attempts", "dead_letters", "job_runs", "metadata"]

#: Rows and messages that can never be written, with all that a replay needs. `row` is `json`, not `jsonb`: a row may
#: be here just because it holds what jsonb refuses (\u0000). `body` is a message that is unusable as a whole.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    # When it was refused last: a replay that is refused again leaves the letter where it is.
    Column("refused_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("task_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    # Of dataset, row, defaults and body: two foreign messages may have one task id.
    Column("content_hash", BigInteger, nullable=False),
    Column("dataset", Text),
    Column("reason", Text, nullable=False),
    Column("sqlstate", Text),
    Column("row", JSON),
    Column("defaults", JSON),
    Column("body", LargeBinary),
    Column(ENQUEUED_AT, DateTime(timezone=True), nullable=False),
    # The reason without values, by which letters are counted; NULL for letters of version 0.4.
    Column("pattern", Text),
    # Of the whole body, of which `body` may be the beginning only.
    Column("body_bytes", BigInteger),
    Column("body_sha256", LargeBinary),
    # What the message says of its body.
    Column("content_type", Text),
    Column("content_encoding", Text),
    Column("compression", Text),
    # Where a load found the row: its run in `job_runs`, and the place in a file.
    Column("job", BigInteger),
    Column("file", Text),
    Column("line", BigInteger),
    # A message that is delivered again leaves no second letter.
    Index("dead_letters_origin", "task_id", "position", "content_hash", unique=True),
)
#: Messages that a pool process deals with alone, see `attempts`. Unlogged: a crash of Postgres makes them void anyway.
attempts = Table(
    "attempts",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("deaths", Integer, nullable=False),
    Column("backend", Integer, nullable=False),
    Column("backend_start", DateTime(timezone=True), nullable=False),
    Column("server_start", DateTime(timezone=True), nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    prefixes=["UNLOGGED"],
)
#: The runs of producers' and loaders' jobs, as the predecessor keeps them.
job_runs = Table(
    "job_runs",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_name", Text, nullable=False),
    Column("dataset_name", Text),
    Column("provider", Text),
    Column("mode", Text, nullable=False, server_default=text("'live'")),
    Column("status", Text, nullable=False, server_default=text("'running'")),
    Column("config_fingerprint", Text),
    Column("pipeline_version", Text),
    Column("rows_written", BigInteger, nullable=False, server_default=text("0")),
    Column("rows_failed", BigInteger, nullable=False, server_default=text("0")),
    Column("symbols", ARRAY(Text)),
    Column("min_ts", DateTime(timezone=True)),
    Column("max_ts", DateTime(timezone=True)),
    Column("error_message", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("completed_at", DateTime(timezone=True)),
    Column(
        "elapsed_ms",
        BigInteger,
        Computed("(extract(epoch from completed_at - started_at) * 1000)::bigint", persisted=True),
    ),
    # A run that is `running` and has not changed for long is stuck.
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Index("job_runs_started_at", "started_at"),
)
