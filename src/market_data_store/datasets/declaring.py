"""What a declaration file may hold, before it is known whether it makes sense; and the names that it may not use."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from market_data_store.datasets.declaration import Contract

#: A name in SQL: no quoting, no case, and short enough that Postgres keeps all of it.
IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,62}")
IDENTIFIER_RULE = "a name begins with a lower-case letter, and has lower-case letters, digits and _, at most 63"
#: What declarations share a namespace with: words of commands and of metrics (`mds datasets check`), and tables.
RESERVED_DATASETS = frozenset({"all", "check", "dead_letters", "list", "none", "unknown"})
RESERVED_TABLES = frozenset(
    {
        "added_columns",
        "alembic_version",
        "attempts",
        "dead_letters",
        "first_takes",
        "job_runs",
        "leases",
        "partitions_leaving",
        "partitions_wanted",
        "replay_keys",
        "spatial_ref_sys",
        "unknown_fields",
        "upkeep_runs",
    }
)
#: Columns that each dataset has anyway, a name of the defaults of messages, and columns that Postgres has in each
#: table; `n` numbers rows while they are written.
RESERVED_COLUMNS = frozenset(
    {"enqueued_at", "metadata", "n", "time_unit", "cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"}
)
#: What the search for series calls the first and the last time.
RESERVED_IN_KEYS = frozenset({"first", "last"})
MAX_ALIAS_LENGTH = 128

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


def _with_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class ColumnSpec(BaseModel):
    """A column: a kind, or a table with `kind` and what else is to be said of it."""

    model_config = _STRICT

    kind: str
    required: bool = False
    aliases: list[str] = Field(default_factory=list)
    content_hash: list[str] = Field(default_factory=list)


class DatasetSpec(BaseModel):
    """A dataset: the table is called as the dataset where it is not named."""

    model_config = _STRICT

    table: str | None = None
    key: list[str]
    unknown: Contract = "keep"
    partition: Literal["day", "week", "month", "year"] | None = None
    columns: dict[str, Annotated[ColumnSpec, BeforeValidator(_with_kind)]]
