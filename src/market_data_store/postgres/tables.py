"""The store's own tables, which are not datasets: letters, keys of replays, first takes, job runs, upkeep, contracts.

Importing this module completes `metadata`; a test compares the migrations with it.
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

__all__ = [
    "ADVISORY_LOCK",
    "added_columns",
    "attempts",
    "dead_letters",
    "first_takes",
    "job_runs",
    "leases",
    "metadata",
    "partitions_leaving",
    "partitions_wanted",
    "replay_keys",
    "unknown_fields",
    "upkeep_runs",
]

#: Whoever migrates takes this lock: of two processes the second one waits, and then finds nothing left to do.
ADVISORY_LOCK = 0x6D6473  # "mds"

#: Rows and messages that can never be written, with everything that a replay needs. `row` is `json`, not `jsonb`: a row
#: may be here because it holds what jsonb refuses (\u0000). `body` is a message that is unusable as a whole.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    # When it was last refused: a replay that is refused again keeps its letter.
    Column("refused_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("task_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    # Hash of dataset, row, defaults and body: two messages of other clients may have the same task id.
    Column("content_hash", BigInteger, nullable=False),
    Column("dataset", Text),
    Column("reason", Text, nullable=False),
    Column("sqlstate", Text),
    Column("row", JSON),
    Column("defaults", JSON),
    Column("body", LargeBinary),
    Column(ENQUEUED_AT, DateTime(timezone=True), nullable=False),
    # The reason with … for each value. Letters are counted by it. NULL for letters of version 0.4.
    Column("pattern", Text),
    # Length and hash of the whole body; `body` may hold only its beginning.
    Column("body_bytes", BigInteger),
    Column("body_sha256", LargeBinary),
    # As the message's headers describe its body.
    Column("content_type", Text),
    Column("content_encoding", Text),
    Column("compression", Text),
    # Where a load found the row: the load's run in `job_runs`, file and line.
    Column("job", BigInteger),
    Column("file", Text),
    Column("line", BigInteger),
    # A redelivered message leaves no second letter.
    Index("dead_letters_origin", "task_id", "position", "content_hash", unique=True),
)
#: The keys that sign replays, see `dead_letters.signing`: in hexadecimal.
replay_keys = Table("replay_keys", metadata, Column("key", Text, primary_key=True))
#: Nothing uses it: the broker counts the turns of a message. Workers of version 0.4 need it.
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
#: When a worker first took a message, see the module `first_takes`. Unlogged: a crash of Postgres voids them anyway.
first_takes = Table(
    "first_takes",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("taken_at", DateTime(timezone=True), nullable=False),
    prefixes=["UNLOGGED"],
)
#: The runs of producers' and loaders' jobs, in the predecessor's form.
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
    # A run that is `running` and has not been updated for long is stuck.
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Index("job_runs_started_at", "started_at"),
)
#: Who may do what only one process may do, and until when, see the module `leases`.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
#: What each service of the upkeep did last, see the module `upkeep_runs`.
upkeep_runs = Table(
    "upkeep_runs",
    metadata,
    Column("service", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True), nullable=False),
    Column("settings", JSONB, nullable=False),
    Column("found", JSONB, nullable=False),
    Column("errors", JSONB, nullable=False),
)
#: What was seen of fields that a dataset does not know, see `wire.seen`.
unknown_fields = Table(
    "unknown_fields",
    metadata,
    Column("dataset", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("kinds", ARRAY(Text), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("first_at", DateTime(timezone=True), nullable=False),
    Column("last_at", DateTime(timezone=True), nullable=False),
)
#: The columns that migrations added for such fields.
added_columns = Table(
    "added_columns",
    metadata,
    Column("dataset", Text, primary_key=True),
    # The column, its table, and the name under which rows have it.
    Column("name", Text, primary_key=True),
    Column("relation", Text, nullable=False),
    Column("field", Text, nullable=False),
    # As a declaration has it.
    Column("kind", Text, nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
)
#: The partitions that rows wait for, see the module `partitions_wanted`.
partitions_wanted = Table(
    "partitions_wanted",
    metadata,
    Column("dataset", Text, primary_key=True),
    Column("starts", DateTime(timezone=True), primary_key=True),
    Column("asked_at", DateTime(timezone=True), nullable=False),
    # Why it could not be made.
    Column("trouble", Text),
)
#: The partitions that retention has begun to detach, by the names of their tables, see the module `leaving`.
partitions_leaving = Table(
    "partitions_leaving",
    metadata,
    Column("partition", Text, primary_key=True),
    Column("dataset", Text, nullable=False),
    Column("starts", DateTime(timezone=True), nullable=False),
    Column("ends", DateTime(timezone=True), nullable=False),
    Column("began_at", DateTime(timezone=True), nullable=False),
)
