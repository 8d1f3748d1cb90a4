"""How many series each dataset has, and the time of its newest row, at a bounded cost."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psycopg

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres.series import Summary, summary_of

#: Seconds that one look at Postgres may spend on this; Postgres cancels what takes longer. Datasets for which no time
#: was left come first in the next look, a second later.
_BUDGET_S = 0.3
#: At most this many series, or contracts of options, are looked at: they take about 0.1 s.
_MOST = 5_000
#: Seconds before a dataset is looked at again: at least these, and so many times what the last look took.
_REST_S = 5.0
_REST_TIMES = 50.0
_UNKNOWN = Summary(None, None)


class Stored:
    """Looks at one dataset after the other, and keeps what it found. Not thread-safe."""

    def __init__(self) -> None:
        self._found: dict[str, Summary] = {}
        self._due: dict[str, float] = dict.fromkeys(DATASETS, 0.0)

    def look(self, connection: psycopg.Connection[tuple[object, ...]]) -> Mapping[str, Summary]:
        """Return what is known of each dataset; None stands for what is not known, or takes too long to find out."""
        until = time.monotonic() + _BUDGET_S
        for name in sorted(self._due, key=self._due.__getitem__):
            started = time.monotonic()
            left_s = until - started
            if left_s <= 0 or self._due[name] > started:
                break
            self._found[name] = _summary(connection, DATASETS[name], left_s)
            ended = time.monotonic()
            self._due[name] = ended + max(_REST_S, _REST_TIMES * (ended - started))
        return {name: self._found.get(name, _UNKNOWN) for name in DATASETS}


def _summary(connection: psycopg.Connection[tuple[object, ...]], dataset: Dataset, timeout_s: float) -> Summary:
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1_000))}")
            return summary_of(connection, dataset, _MOST)
    except (
        DatasetUnavailable,  # altered by its owner
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.QueryCanceled,  # too large, or locked
        psycopg.DataError,  # a time that Python does not have
    ):
        return _UNKNOWN
