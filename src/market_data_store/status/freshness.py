"""Which feeds there are, how old each may become, and which of them have stopped.

A feed is what one provider sends to one dataset for one group of symbols. The groups are patterns of symbols
(MDS_SYMBOL_GROUPS); without any, all symbols are one group. MDS_FRESHNESS has the limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from market_data_store.config import Settings
from market_data_store.config.feeds import Limit, SymbolGroup

#: The most feeds that are shown, and that have metrics of their own.
MOST_FEEDS = 100
#: The group without MDS_SYMBOL_GROUPS, and that of symbols that are in none.
ALL, OTHER = "all", "other"
#: Minutes of a feed's `spark`.
MINUTES = 15


class FeedName(NamedTuple):
    """What tells feeds apart."""

    dataset: str
    provider: str
    group: str

    def __str__(self) -> str:
        """Return dataset, provider and group with colons between, as MDS_FRESHNESS has them."""
        return ":".join(self)


class Feed(NamedTuple):
    """A feed as it was seen last."""

    name: FeedName
    #: The time of its newest row, in epoch seconds.
    newest_ts: float
    #: How old that was when it was looked for, by Postgres's clock; below 0 for a time in the future.
    age_s: float
    #: None if it may become as old as it likes.
    limit_s: float | None
    #: Rows per minute of the last 15 whole minutes by their times, oldest first; None for minutes that are unknown.
    spark: Sequence[int | None] | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether it is older than its limit."""
        return self.limit_s is not None and self.age_s > self.limit_s


class Feeds(NamedTuple):
    """All feeds that were seen, those that have stopped first."""

    every: tuple[Feed, ...] = ()

    @property
    def shown(self) -> tuple[Feed, ...]:
        """The first ones, up to the bound."""
        return self.every[:MOST_FEEDS]

    @property
    def others(self) -> tuple[Feed, ...]:
        """Those above the bound."""
        return self.every[MOST_FEEDS:]

    @property
    def stopped(self) -> list[Feed]:
        """Those that have stopped."""
        return [feed for feed in self.every if feed.is_stopped]


NO_FEEDS = Feeds()


def ordered(feeds: Iterable[Feed]) -> Feeds:
    """Return feeds in the order in which one looks at them: what has stopped, what has a limit, then by name."""
    return Feeds(tuple(sorted(feeds, key=lambda feed: (not feed.is_stopped, feed.limit_s is None, feed.name))))


@dataclass(frozen=True)
class Rules:
    """The groups and the limits of the settings."""

    groups: Sequence[SymbolGroup] = ()
    limits: Sequence[Limit] = ()
    _known: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Take them from the settings."""
        return cls(settings.symbol_groups, settings.freshness)

    def group(self, symbol: str | None) -> str:
        """Return the first group with a pattern that fits the symbol."""
        if not self.groups:
            return ALL
        if symbol is None:
            return OTHER
        found = self._known.get(symbol)
        if found is None:
            if len(self._known) > _MOST_REMEMBERED:
                self._known.clear()
            found = next((group.name for group in self.groups if group.has(symbol)), OTHER)
            self._known[symbol] = found
        return found

    def limit_s(self, name: FeedName) -> float | None:
        """Return the limit that says the most about this feed; of two that say as much, the later one."""
        fitting = [limit for limit in self.limits if limit.fits(*name)]
        return max(enumerate(fitting), key=lambda each: (each[1].weight, each[0]))[1].seconds if fitting else None


_MOST_REMEMBERED = 100_000
