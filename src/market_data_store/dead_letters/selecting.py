"""Which letters are meant: by id, dataset, reason, job, task, and the time at which they were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

#: What each criterion means. A column that none of them asks for is not named: an older schema may lack it.
_MEANINGS = {
    "ids": sql.SQL("id = ANY(%(ids)s::bigint[])"),
    "dataset": sql.SQL("dataset = %(dataset)s"),
    "reason": sql.SQL("strpos(lower(concat_ws(' ', reason, pattern)), lower(%(reason)s)) > 0"),
    "job": sql.SQL("job = %(job)s"),
    "task": sql.SQL("task_id = %(task)s"),
    "since": sql.SQL("created_at >= %(since)s"),
    "until": sql.SQL("created_at < %(until)s"),
    "pattern": sql.SQL("coalesce(pattern, '') = %(pattern)s"),
    "whole": sql.SQL("(dataset IS NULL) = %(whole)s"),
    "above": sql.SQL("id > %(above)s"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What letters have in common, besides their dataset; None says nothing."""

    #: A part of the reason or of its pattern, in upper or lower case.
    reason: str | None = None
    #: The id of the load's run in `job_runs`.
    job: int | None = None
    #: The id of their message's task, as it is stored (`stored_id`).
    task: str | None = None
    #: Kept at this time or later, and before that one.
    since: datetime | None = None
    until: datetime | None = None
    #: The whole pattern of the reason; an empty one for letters of version 0.4, which have none.
    pattern: str | None = None
    #: Whether they hold a message that is unusable as a whole, which has no dataset.
    whole: bool | None = None
    #: The id after which they come.
    above: int | None = None


#: All letters.
EVERY = Where()


def selection(
    query: sql.SQL, ids: Sequence[int] | None, dataset: str | None, where: Where = EVERY, **places: sql.SQL
) -> tuple[sql.Composed, dict[str, Any]]:
    """Return a query about these letters, and its parameters; its place `{selected}` becomes FROM and WHERE."""
    given = {"ids": None if ids is None else list(ids), "dataset": dataset, **asdict(where)}
    chosen = {name: value for name, value in given.items() if value is not None}
    conditions = sql.SQL(" AND ").join([_MEANINGS[name] for name in chosen] or [sql.SQL("true")])
    return query.format(selected=sql.SQL("FROM dead_letters WHERE {}").format(conditions), **places), chosen
