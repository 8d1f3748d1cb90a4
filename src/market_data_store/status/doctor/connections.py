"""Compares the connections that the store's processes open at work with what the servers allow.

docs/deploy.md has the figures, and tests/acceptance/test_connections.py measures them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from market_data_store.coordinator.answers import WorkerAnswer
from market_data_store.postgres.server import ServerFacts
from market_data_store.status.doctor.finding import Finding, counted, ok, skipped, warning
from market_data_store.status.doctor.redis_server import RedisFacts

#: Besides the workers: web, monitor, Flower, `mds status` and a client that confirms; at Postgres web, monitor,
#: `mds status` and this command's two.
_OTHERS_AT_REDIS, _OTHERS_AT_POSTGRES = 1 + 1 + 3 + 1 + 3, 1 + 1 + 1 + 2
#: A worker has these at a Redis, and one more for each of its processes.
_OF_A_WORKER = 4


@dataclass(frozen=True)
class Fleet:
    """The workers that there are, or the one that this machine would start."""

    workers: int
    processes: int

    @classmethod
    def of(cls, answers: Sequence[WorkerAnswer]) -> Fleet:
        """Count them; one that does not tell its processes counts as one of as many as this machine has cores."""
        cores = os.cpu_count() or 1
        return cls(max(len(answers), 1), sum(each.processes or cores for each in answers) or cores)

    def __str__(self) -> str:
        """Return both numbers."""
        return f"{counted(self.workers, 'worker')} (pool size {self.processes} in all)"


def at_postgres(facts: ServerFacts | None, fleet: Fleet) -> Iterator[Finding]:
    """Judge the limits of server, database and role."""
    check = "database.connections"
    if facts is None:
        yield skipped(check, "DATABASE_URL has not answered")
        return
    need = fleet.processes + _OTHERS_AT_POSTGRES
    limits = (
        ("max_connections", facts.most_sessions, facts.sessions),
        (f"CONNECTION LIMIT of the database {facts.database}", facts.most_of_database, facts.of_database),
        (f"CONNECTION LIMIT of the role {facts.role}", facts.most_of_role, facts.of_role),
    )
    tight = [_tight(check, name, most, used - facts.of_store, need, fleet) for name, most, used in limits if most >= 0]
    found = [each for each in tight if each is not None]
    said = f"{fleet}, web, monitor and commands open up to {need} connections; {facts.most_sessions} are allowed"
    yield from found or [ok(check, f"{said}, others have {max(0, facts.sessions - facts.of_store)}")]


def at_redis(check: str, facts: RedisFacts | None, fleet: Fleet) -> Iterator[Finding]:
    """Judge `maxclients`."""
    most = None if facts is None or facts.info is None else facts.info.get("maxclients")
    if facts is None or facts.info is None or most is None:
        yield skipped(check, "the server does not tell its maxclients")
        return
    need = _OTHERS_AT_REDIS + (fleet.processes + _OF_A_WORKER * fleet.workers if facts.is_broker else fleet.processes)
    found = _tight(check, f"maxclients of {facts.variable}", int(most), 0, need, fleet)
    yield found or ok(check, f"{fleet} and the other processes open up to {need} connections; {most} are allowed")


def _tight(check: str, name: str, most: int, others: int, need: int, fleet: Fleet) -> Finding | None:
    if most - max(0, others) >= need:
        return None
    beside = f", and others have {others}" if others > 0 else ""
    return warning(
        check,
        f"{fleet} and the other processes open up to {need} connections; {name} is {most}{beside}",
        "lower CELERY_WORKER_CONCURRENCY, or raise the limit (docs/deploy.md, Connections)",
    )
