"""What a process remembers of a dataset: what its batches are likely to hold, and how they failed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from market_data_store.dead_letters import Origin
from market_data_store.postgres.failures import MANY_TRIES, MANY_TRIES_S, Cause

#: How many batches are upserted before it is asked again whether a batch's rows are new: this many, doubled each time
#: up to the most.
_FIRST_UPSERTS = 4
_MOST_UPSERTS = 64
#: More than there are.
_ALL_UPSERTS = 2**31
#: How many refused rows without a letter are remembered.
_MOST_REFUSED = 100_000
#: How many batches that failed are remembered.
_MOST_FAILING = 50
#: A reason for which rows are refused is logged once in this time.
_SAID_FOR_S = 3_600.0


@dataclass(slots=True)
class Novelty:
    """What a dataset's next batch is likely to hold.

    Rows are copied as new ones until a copy fails. From then on a few keys of a batch are looked for first: of every
    batch while each upsert writes all of its rows, which were new or have changed, and otherwise rarely.
    """

    #: Whether the last upsert wrote every row; then the next one is likely to.
    changing: bool = False
    #: Whether a copy failed since the last one that did not.
    doubted: bool = False
    #: Whether it failed although none of the keys looked for was stored.
    _misled: bool = False
    _upserts_left: int = 0
    _upserts_next: int = _FIRST_UPSERTS

    @property
    def may_be_new(self) -> bool:
        """Whether every row may be new; if `doubted`, a few of the keys tell."""
        return self._upserts_left == 0

    def resumed(self) -> None:
        """Note that the next rows are likely to be stored, until an upsert has written every row."""
        self.changing = self._misled = False
        self.doubted = True
        self._upserts_left = _ALL_UPSERTS

    def copied(self) -> None:
        """Note that a batch was copied."""
        self.doubted = self._misled = False
        self._upserts_next = _FIRST_UPSERTS

    def seen(self) -> None:
        """Note that keys of a batch were looked for, and one is stored."""
        self._misled = False
        if not self.changing:
            self._upsert_some()

    def upserted(self, *, every_row: bool) -> None:
        """Note that a batch was upserted, and whether every row was written."""
        self.changing = every_row
        self._upserts_left = 0 if every_row and not self._misled else max(self._upserts_left - 1, 0)

    def refuted(self) -> None:
        """Note that a copy failed."""
        self._misled = self.doubted
        self.doubted = True
        self._upsert_some()

    def _upsert_some(self) -> None:
        self._upserts_left = self._upserts_next
        self._upserts_next = min(self._upserts_next * 2, _MOST_UPSERTS)


@dataclass(slots=True)
class Suspects:
    """Rows of a batch of which one may end its session."""

    rows: Sequence[int]
    #: Whether they are known to hold such a row.
    guilty: bool = False
    #: Whether they are if the suspects before them are not.
    guilty_if_not_before: bool = False
    #: How often a single row has failed.
    tries: int = 0


@dataclass(slots=True)
class Tries:
    """How often a batch has failed like in an outage, though there was a session."""

    failures: int = 0
    _since: float = 0.0
    #: What is still to be searched for rows that are the cause; the next is the last.
    suspects: list[Suspects] = field(default_factory=list)

    def failed(self) -> None:
        """Note that it has failed."""
        if not self.failures:
            self._since = time.monotonic()
        self.failures += 1

    @property
    def are_many(self) -> bool:
        """Whether it has failed so often that one of its rows may be the cause."""
        return self.failures >= MANY_TRIES and time.monotonic() - self._since >= MANY_TRIES_S

    def began_before(self, moment: float) -> bool:
        """Whether it failed first before that moment of the monotonic clock."""
        return self.failures > 0 and self._since < moment


@dataclass(slots=True)
class Memory:
    """How a dataset's batches went, for one process."""

    novelty: Novelty = field(default_factory=Novelty)
    #: Why no row of the dataset was written when it was tried last; None if one was.
    trouble: Cause | None = None
    #: Rows that Postgres refuses, until their letters are committed.
    refused: dict[Origin, Cause] = field(default_factory=dict)
    #: The task ids of the batch that is being written, and how its tries went.
    task_ids: frozenset[str] = frozenset()
    tries: Tries = field(default_factory=Tries)
    #: Those of the batches that failed and were not written since, the last one at the end.
    _failing: dict[frozenset[str], Tries] = field(default_factory=dict)
    _wrote_at: float = float("-inf")
    _said: dict[tuple[str | None, ...], float] = field(default_factory=dict)

    def begin(self, task_ids: Iterable[str]) -> None:
        """Note that this batch is tried."""
        self.task_ids = frozenset(task_ids)
        self.tries = self._failing.get(self.task_ids) or Tries()

    def failed(self) -> None:
        """Note that the batch has failed like in an outage."""
        self.tries.failed()
        self._failing[self.task_ids] = self.tries
        if len(self._failing) > _MOST_FAILING:
            del self._failing[next(iter(self._failing))]

    def wrote_all(self) -> None:
        """Note that the batch is done."""
        self._failing.pop(self.task_ids, None)

    def wrote(self) -> None:
        """Note that a row was written."""
        self._wrote_at = time.monotonic()
        self.trouble = None

    @property
    def others_went_in(self) -> bool:
        """Whether a row of the dataset was written since the batch failed first."""
        return self.tries.began_before(self._wrote_at)

    def refuse(self, rows: dict[Origin, Cause]) -> None:
        """Remember refused rows, and forget the oldest of too many."""
        self.refused |= rows
        for origin in list(islice(self.refused, max(len(self.refused) - _MOST_REFUSED, 0))):
            del self.refused[origin]

    def settled(self, origins: Iterable[Origin]) -> None:
        """Forget refused rows, whose letters are committed."""
        for origin in origins:
            self.refused.pop(origin, None)

    def is_news(self, cause: Cause) -> bool:
        """Whether this reason was not logged lately; it is now."""
        now = time.monotonic()
        if now - self._said.get(cause.kind, float("-inf")) < _SAID_FOR_S:
            return False
        self._said[cause.kind] = now
        return True
