"""Runs families of checks at the same time, each with a deadline: a server that hangs costs only its own checks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psycopg
from redis.exceptions import NoPermissionError, RedisError

from market_data_store.errors import MarketDataStoreError
from market_data_store.postgres.connection import first_line
from market_data_store.status.doctor.finding import Finding, error, skipped

T = TypeVar("T")

#: Seconds after which a family counts as unanswered; a connection alone may take five.
DEADLINE_S = 10.0
#: The check of a family that says whether the part answers.
REACHABLE = "reachable"


@dataclass(frozen=True)
class Family(Generic[T]):
    """Checks of one part, which is opened once for all of them."""

    name: str
    #: Raises a `MarketDataStoreError` if the part does not answer.
    opened: Callable[[], AbstractContextManager[T]]
    #: What to do if it does not.
    remedy: str
    checks: Mapping[str, Callable[[T], Iterable[Finding]]]

    def only(self, names: Collection[str]) -> Family[T]:
        """Return the same family with only those of its checks whose `family.check` is among these."""
        kept = {name: check for name, check in self.checks.items() if f"{self.name}.{name}" in names}
        return Family(self.name, self.opened, self.remedy, kept)

    def findings(self) -> Iterator[Finding]:
        """Open the part and run one check after the other; a check that fails leaves the others alone."""
        try:
            with self.opened() as part:
                for name, check in self.checks.items():
                    yield from _findings_of(f"{self.name}.{name}", check, part)
        except MarketDataStoreError as unavailable:
            yield error(f"{self.name}.{REACHABLE}", str(unavailable), self.remedy)
            yield from self.skipped(f"{self.name}.{REACHABLE} has failed", [REACHABLE])

    def skipped(self, why: str, but: Collection[str] = ()) -> Iterator[Finding]:
        """Say of each check, but these, that it could not run."""
        return (skipped(f"{self.name}.{name}", why) for name in self.checks if name not in but)


def _findings_of(name: str, check: Callable[[T], Iterable[Finding]], part: T) -> Iterator[Finding]:
    try:
        yield from check(part)
    except (psycopg.errors.InsufficientPrivilege, NoPermissionError) as refused:
        words = first_line(refused) if isinstance(refused, psycopg.Error) else str(refused)
        yield skipped(name, f"the user of the URL may not ask for it ({words})")
    except psycopg.Error as failed:
        yield error(name, f"Postgres: {first_line(failed)}", "look into the log of Postgres")
    except (MarketDataStoreError, RedisError) as failed:
        yield error(name, str(failed), "look into the log of the server")
    except Exception as failed:  # noqa: BLE001  # one check that fails must not hide what the others find
        yield error(
            name,
            f"the check itself has failed ({type(failed).__name__}: {failed})",
            "report it, with what `mds doctor --bundle` writes",
        )


class _Running:
    """A family at work in a thread of its own."""

    def __init__(self, family: Family[Any]) -> None:
        self._family = family
        self._found: list[Finding] = []
        self._until = time.monotonic() + DEADLINE_S
        # A daemon, because a thread that hangs must not keep the process.
        self._thread = threading.Thread(target=self._run, name=f"doctor-{family.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for finding in self._family.findings():
            self._found.append(finding)

    def findings(self) -> Iterator[Finding]:
        """Wait for the end or the deadline, and yield what there is."""
        self._thread.join(max(0.0, self._until - time.monotonic()))
        found = list(self._found)
        yield from found
        if self._thread.is_alive():
            names = {finding.check for finding in found}
            left = [name for name in self._family.checks if f"{self._family.name}.{name}" not in names]
            late = left[0] if left else REACHABLE
            yield error(f"{self._family.name}.{late}", f"no answer within {DEADLINE_S:.0f} s", self._family.remedy)
            done = [name for name in self._family.checks if name not in left or name == late]
            yield from self._family.skipped(f"{self._family.name}.{late} had no answer", done)


def examined(families: Sequence[Family[Any]]) -> Iterator[Finding]:
    """Run all families at once, and yield their findings in this order, each as soon as it is known."""
    running = [_Running(family) for family in families]
    for each in running:
        yield from each.findings()
