"""Dead letters by reason, fit to be shown to anyone: what a reason repeats of a row is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

_SUMMARY = """
    SELECT dataset, reason, count(*), extract(epoch FROM max(created_at))::float8
    FROM (
        SELECT dataset, created_at, CASE
            WHEN sqlstate IS NULL THEN left(regexp_replace(regexp_replace(regexp_replace(
                reason, %(values)s, '…'), %(unclosed)s, '…'), %(numbers)s, '…', 'g'), 300)
            ELSE 'Postgres refuses the row (SQLSTATE ' || sqlstate || ')'
        END AS reason
        FROM dead_letters
        ORDER BY id DESC
        LIMIT %(newest)s
    ) AS letters
    GROUP BY dataset, reason
    ORDER BY count(*) DESC, dataset, reason
    LIMIT %(limit)s
"""
#: What a reason repeats of a row. A value may itself hold quotes, and its end may be cut off (`fields.shown`): so from
#: the first quote or bracket to the last one, or to the last `... (1,000 characters)`, whichever comes later.
_HIDDEN = {
    "values": r"""['"{\[].*(?:['"}\]]|\.\.\. \([0-9,]+ characters\))""",
    "unclosed": r"""['"{\[].*""",
    # The numbers of our own sentences stay: beyond 64 bits, ISO 8601, from year 1 to 9999.
    "numbers": r"(?<!beyond |ISO |year | to |[[:alnum:]._])[-+]?[0-9][[:alnum:].,+-]*(?: \([0-9,]+ characters\))?",
}
#: Letters that a summary looks at: each costs Postgres three regular expressions.
_SUMMARIZED = 10_000


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many letters have one reason, which holds no value of a row (… stands for it)."""

    #: None for messages that are unusable as a whole.
    dataset: str | None
    reason: str
    count: int
    #: Of the newest, epoch seconds.
    last_ts: float


def summary(connection: psycopg.Connection[Any], *, limit: int = 20) -> list[ReasonCount]:
    """The most frequent reasons of the newest 10,000 letters, fit to be shown to anyone: no values, symbols, numbers.

    Of what Postgres refused only the SQLSTATE is told: its messages come in any language and from anybody's triggers.
    """
    parameters = {**_HIDDEN, "newest": _SUMMARIZED, "limit": limit}
    return [ReasonCount(*row) for row in connection.execute(_SUMMARY, parameters)]
