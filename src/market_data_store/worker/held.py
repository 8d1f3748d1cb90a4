"""The datasets whose tables take no row now, as one worker knows them: which, why, and when to try each again.

The table of dead letters is among them (`errors.LETTERS`): the messages wait that need a letter. Of a dataset
whose rows lack a partition, only their messages wait, in the same queue, until the monitor has made it.

Their messages wait in queues beside those of the lanes (`protocol.held_queue`), which outlive the worker. Every 2 s at
first, and then less and less often, but at least every MDS_HELD_PROBE_S, each worker takes the first message of each
dataset, live rows before history, and tries it, one after the other. When one is written, the messages of both lanes
flow back, each to its own lane and in portions, so that they do not fill its queue at once.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from market_data_store.causes import Cause, fields_of
from market_data_store.coordinator.queue import holdable
from market_data_store.errors import LETTERS
from market_data_store.protocol import LANES, QUEUE, held_queue
from market_data_store.worker.envelope import Hold

logger = logging.getLogger(__name__)

#: Seconds between two rounds of probes: this part of the time since a dataset was held that had not been, but so many
#: times what the last probe took, since a probe occupies a pool process; within these seconds and MDS_HELD_PROBE_S.
#: Most troubles are short: a table that somebody alters.
_PAUSE_PART = 1 / 8
_PAUSE_TIMES = 10.0
_LEAST_PAUSE_S = 2.0
#: A row that lacks a partition is written within so many seconds, if a monitor makes it.
_MADE_WITHIN_S = 10.0


class HeldDataset(NamedTuple):
    """Why a dataset is held, or some of its messages."""

    sqlstate: str | None
    #: The first line of what Postgres said.
    reason: str


class HeldDatasets:
    """What one worker knows. It forgets nothing at a new connection to the broker."""

    def __init__(self, probe_s: float) -> None:
        self._probe_s = probe_s
        self.known: dict[str, HeldDataset] = {}
        #: Those that are held, for jobs: without those of which only messages wait that lack a partition.
        self.names: frozenset[str] = frozenset()
        #: Since when only messages wait that lack a partition.
        self._partly: dict[str, float] = {}
        #: Those whose messages flow back.
        self.flowing: set[str] = set()
        self._probe_at = float("-inf")
        self._newest_at = float("-inf")
        self._probes: deque[str] = deque()
        #: When the probes that are at work began, and how long the last one took.
        self._began: dict[str, float] = {}
        self._took_s = 0.0

    def note(self, hold: Hold, lane: str = QUEUE) -> None:
        """Note that a dataset's rows could not be written, of a message of this lane; says so once."""
        if hold.reason is None:  # it was known, and nothing was tried
            return
        now = time.monotonic()
        is_probe = hold.dataset in self._began
        is_new = hold.dataset not in self.known
        if is_probe:
            self._took_s = now - self._began.pop(hold.dataset)
            self._rest()
        if is_new or (hold.partly and not is_probe):  # perhaps for another partition, which is made soon
            self._newest_at, self._took_s = now, 0.0
            self._rest()
        if is_new:
            code = f" (SQLSTATE {hold.sqlstate})" if hold.sqlstate else ""
            what = "has rows that wait" if hold.partly else "is held"
            logger.log(
                logging.INFO if hold.partly else logging.WARNING,
                "%s %s: %s%s; %s messages wait in %s, and one of them is tried at least every %g s",
                *(_named(hold.dataset), what, hold.reason, code, "these" if hold.partly else "its"),
                *(held_queue(hold.dataset, lane), self._probe_s),
                extra={"event": "trouble", **fields_of(Cause.DATASET_HELD)},
            )
        self.known[hold.dataset] = HeldDataset(hold.sqlstate, hold.reason)
        if hold.partly:
            self._partly.setdefault(hold.dataset, now)
        else:
            self._partly.pop(hold.dataset, None)
        self._find_names()
        self.flowing.discard(hold.dataset)

    def release(self, dataset: str) -> None:
        """Note that the dataset's table takes rows."""
        if self.known.pop(dataset, None) is not None:
            text = "%s is written again; its held messages flow back"
            level = logging.INFO if dataset in self._partly else logging.WARNING
            over = {"event": "trouble_over", "cause": Cause.DATASET_HELD.value}
            logger.log(level, text, _named(dataset), extra=over)
        self._partly.pop(dataset, None)
        self._find_names()
        self.flowing.add(dataset)
        self._began.pop(dataset, None)

    @property
    def troubles(self) -> dict[str, HeldDataset]:
        """Those of `known` that somebody should know of: a partition that is made within seconds is no trouble."""
        until = time.monotonic() - _MADE_WITHIN_S
        return {name: why for name, why in self.known.items() if self._partly.get(name, until) <= until}

    def _find_names(self) -> None:
        self.names = frozenset(self.known.keys() - self._partly.keys())

    @property
    def is_due(self) -> bool:
        """Whether it is time for a round of probes."""
        return not self._probes and time.monotonic() >= self._probe_at

    def begin_round(self, waiting: Mapping[str, int]) -> None:
        """Begin a round, given how many messages wait in which queue."""
        self._rest()
        waits = {name for name in holdable() for lane in LANES.values() if waiting.get(held_queue(name, lane))}
        held = [name for name in holdable() if name in self.known or name in waits]
        self._probes.extend(name for name in held if name not in self.flowing)

    def next_probe(self) -> str | None:
        """The dataset to try next; None if all were tried in this round."""
        if not self._probes:
            return None
        self._rest()
        dataset = self._probes.popleft()
        self._began[dataset] = time.monotonic()
        return dataset

    def _rest(self) -> None:
        now = time.monotonic()
        pause_s = max(_LEAST_PAUSE_S, _PAUSE_PART * (now - self._newest_at), _PAUSE_TIMES * self._took_s)
        self._probe_at = now + min(pause_s, self._probe_s)


def held_queues(lane: str = QUEUE) -> list[str]:
    """The queues in which messages of a lane wait while their dataset is held."""
    return [held_queue(name, lane) for name in holdable()]


def _named(dataset: str) -> str:
    return f"The table {dataset}" if dataset == LETTERS else f"The dataset {dataset}"
