"""What a dataset holds that is nearest to what was asked for in vain."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import psycopg

from market_data_store.datasets import Dataset
from market_data_store.postgres.selection import NAMES, listed
from market_data_store.postgres.series import Series, series_of

#: At most this many names or series are named.
_MOST = 5


def what_there_is(connection: psycopg.Connection[Any], dataset: Dataset, criteria: Mapping[str, Any]) -> str:
    """Return a line about what is stored that is nearest to the criteria, which no row meets."""
    left = series_of(connection, dataset, {})
    if not left:
        return f"no {dataset.name} are stored"
    for name in NAMES:
        wanted = listed(criteria.get(name))
        if not wanted or name not in dataset.key:
            continue
        among = [each for each in left if getattr(each, name) in wanted]
        if not among:
            return _no_such(dataset, name, wanted, left)
        left = among
    first, last = min(each.first for each in left), max(each.last for each in left)
    those = f"{_named(left[0])} has" if len(left) == 1 else f"the {len(left):,} series of these names have"
    return f"no {dataset.name} match; {those} rows from {first:%Y-%m-%d %H:%M:%S}Z to {last:%Y-%m-%d %H:%M:%S}Z"


def _no_such(dataset: Dataset, name: str, wanted: list[str], left: list[Series]) -> str:
    """Say which names there are in place of those that were wanted: those that look alike, or some."""
    known = sorted({getattr(each, name) for each in left})
    folded: dict[str, str] = {text.casefold(): text for text in reversed(known)}
    alike = [
        folded[text] for each in wanted for text in get_close_matches(each.casefold(), folded, n=_MOST, cutoff=0.6)
    ]
    those = list(dict.fromkeys(alike)) or known
    more = f" and {len(those) - _MOST:,} more" if len(those) > _MOST else ""
    asked = " or ".join(map(repr, wanted))
    there = ", ".join(those[:_MOST]) + more
    return f"no {dataset.name} have the {name} {asked}; {'the nearest' if alike else 'there'} is {there} (`mds series`)"


def _named(series: Series) -> str:
    return " ".join(filter(None, (series.provider, series.symbol, series.interval)))
