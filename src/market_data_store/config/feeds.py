"""The groups of symbols and the limits of feeds: reading MDS_SYMBOL_GROUPS and MDS_FRESHNESS."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_LIMITS = "write dataset[:provider[:group]]=duration, such as bars=5m,ticks:polygon=30s,ticks:*:futures=1h,news=off"
_GROUPS = "write group=pattern|pattern, such as futures=ES*|NQ*,crypto=*USDT"
#: Stands for any provider or group.
_ANY = "*"
#: The most groups: each is a feed of its own of each provider.
_MOST_GROUPS = 50


class SymbolGroup(NamedTuple):
    """Symbols that are one feed of each provider."""

    name: str
    #: As of file names (`*`, `?`, `[...]`), in the case of the symbols.
    patterns: tuple[str, ...]

    def has(self, symbol: str) -> bool:
        """Whether a symbol is in the group."""
        return any(fnmatchcase(symbol, pattern) for pattern in self.patterns)


class Limit(NamedTuple):
    """How old the newest row of a feed may become."""

    dataset: str
    #: `*` for any.
    provider: str
    group: str
    #: None for no limit.
    seconds: float | None

    def fits(self, dataset: str, provider: str, group: str) -> bool:
        """Whether it is the limit of such a feed."""
        return dataset == self.dataset and self.provider in (_ANY, provider) and self.group in (_ANY, group)

    @property
    def weight(self) -> int:
        """How much it says: of several limits that fit, that with the largest weight counts."""
        return 2 * (self.provider != _ANY) + (self.group != _ANY)


def limits(value: Any) -> Any:
    """Read `dataset[:provider[:group]]=duration,...`; raises `ValueError`."""
    if not isinstance(value, str):
        return value
    return tuple(_limit(each.strip()) for each in value.split(",") if each.strip())


def groups(value: Any) -> Any:
    """Read `group=pattern|pattern,...`; raises `ValueError`."""
    if not isinstance(value, str):
        return value
    found = tuple(_group(each.strip()) for each in value.split(",") if each.strip())
    names = [group.name for group in found]
    if len(set(names)) < len(names) or len(names) > _MOST_GROUPS:
        raise ValueError(f"has a group twice, or more than {_MOST_GROUPS}; {_GROUPS}")
    return found


def _limit(text: str) -> Limit:
    feed, equals, duration = text.rpartition("=")
    dataset, *narrower = feed.strip().split(":")
    if not equals or not dataset or len(narrower) > 2 or "" in narrower:
        raise ValueError(f"{text!r} is not a limit; {_LIMITS}")
    provider, group = [*narrower, _ANY, _ANY][:2]
    if duration.strip() == "off":
        return Limit(dataset, provider, group, None)
    found = _DURATION.fullmatch(duration.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        raise ValueError(f"{duration.strip()!r} is not a duration above 0; {_LIMITS}")
    return Limit(dataset, provider, group, seconds)


def _group(text: str) -> SymbolGroup:
    name, _, patterns = text.partition("=")
    found = tuple(pattern.strip() for pattern in patterns.split("|") if pattern.strip())
    if not _NAME.fullmatch(name.strip()) or not found or name.strip() in ("all", "other"):
        raise ValueError(f"{text!r} is not a group; {_GROUPS}")
    return SymbolGroup(name.strip(), found)
