"""The last run of each service of the upkeep, kept in Postgres: for the page, `mds status`, and the next run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from market_data_store.postgres.retention import Expired

#: The service that deletes what is too old.
RETENTION = "retention"

_NOW = "SELECT clock_timestamp()"
_RECORD = """
    INSERT INTO upkeep_runs (service, holder, started_at, ended_at, settings, found, errors)
    VALUES (%s, %s, %s, clock_timestamp(), %s, %s, %s)
    ON CONFLICT (service) DO UPDATE SET holder = excluded.holder, started_at = excluded.started_at,
        ended_at = excluded.ended_at, settings = excluded.settings, found = excluded.found, errors = excluded.errors
"""
_LAST = """
    SELECT started_at, ended_at, settings, found, errors, extract(epoch FROM clock_timestamp() - ended_at)::float8
    FROM upkeep_runs WHERE service = %s
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of retention has done, or would do."""

    started_at: datetime
    #: Whether it deletes; otherwise it only counts.
    automatic: bool
    #: Days by dataset, as in MDS_RETENTION_DAYS.
    days: Mapping[str, int]
    found: Sequence[Expired] = ()
    #: By dataset, why it could not be done there.
    errors: Mapping[str, str] = field(default_factory=dict)
    ended_at: datetime | None = None
    #: Seconds since its end, by Postgres's clock.
    age_s: float = 0.0

    def is_of(self, *, automatic: bool, days: Mapping[str, int]) -> bool:
        """Whether it ran with these settings."""
        return self.automatic == automatic and dict(self.days) == dict(days)

    @property
    def said(self) -> str:
        """What it did, in one sentence for people."""
        if not self.days:
            return "MDS_RETENTION_DAYS is not set: everything is kept"
        some = [str(each) for each in self.found if each.number != 0]
        what = ", ".join(some) or "nothing"
        parts = [f"deleted {what}" if self.automatic else f"would delete {what}"]
        if some and not self.automatic:
            parts.append("MDS_RETENTION_AUTO=1 or `mds retention` deletes it")
        parts += [f"{name} failed: {error}" for name, error in self.errors.items()]
        return "; ".join(parts)


def now(connection: psycopg.Connection[Any]) -> datetime:
    """Return the time of Postgres's clock."""
    ((found,),) = connection.execute(_NOW).fetchall()
    assert isinstance(found, datetime)  # noqa: S101  # for mypy
    return found


def record(connection: psycopg.Connection[Any], service: str, holder: str, run: Run) -> None:
    """Keep a run in the place of the one before."""
    settings = {"automatic": run.automatic, "days": dict(run.days)}
    found = [_plain(each) for each in run.found]
    given = [service, holder, run.started_at, Jsonb(settings), Jsonb(found), Jsonb(dict(run.errors))]
    connection.execute(_RECORD, given)


def _plain(found: Expired) -> dict[str, Any]:
    plain = {**asdict(found), "older_than": found.older_than.isoformat()}
    if found.partitions is None:  # versions before 0.5 read it without
        del plain["partitions"]
    return plain


def last(connection: psycopg.Connection[Any], service: str) -> Run | None:
    """Return the last run; None before the first."""
    rows = connection.execute(_LAST, [service]).fetchall()
    if not rows:
        return None
    started_at, ended_at, settings, found, errors, age_s = rows[0]
    expired = [Expired(**{**each, "older_than": datetime.fromisoformat(each["older_than"])}) for each in found]
    return Run(started_at, settings["automatic"], settings["days"], expired, errors, ended_at, age_s)
