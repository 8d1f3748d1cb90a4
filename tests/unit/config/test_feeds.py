"""Limits and groups of feeds: which counts, and what is refused."""

from __future__ import annotations

import pytest

from market_data_store.config import feeds
from market_data_store.config.feeds import Limit, SymbolGroup
from market_data_store.status.freshness import ALL, MOST_FEEDS, OTHER, Feed, FeedName, Rules, ordered


def test_the_limit_that_says_the_most_counts() -> None:
    limits = feeds.limits("ticks=1h, ticks:poly=30s,ticks:*:fut=90s,ticks:poly:fut=2m,ticks:old=off,bars=1.5d")
    rules = Rules(feeds.groups("fut=ES*"), limits)
    assert {
        feed: rules.limit_s(FeedName(*feed))
        for feed in (
            ("ticks", "x", OTHER),
            ("ticks", "poly", OTHER),
            ("ticks", "x", "fut"),
            ("ticks", "poly", "fut"),
            ("ticks", "old", "fut"),
            ("bars", "x", "fut"),
            ("news", "x", OTHER),
        )
    } == {
        ("ticks", "x", OTHER): 3_600.0,
        ("ticks", "poly", OTHER): 30.0,
        ("ticks", "x", "fut"): 90.0,
        ("ticks", "poly", "fut"): 120.0,
        ("ticks", "old", "fut"): None,
        ("bars", "x", "fut"): 129_600.0,
        ("news", "x", OTHER): None,
    }


def test_a_symbol_is_in_the_first_group_that_fits() -> None:
    rules = Rules(feeds.groups("fut=ES*|NQ[HMUZ]?, crypto=*USDT,more=ES1"))
    assert [rules.group(symbol) for symbol in ("ES1", "NQZ4", "NQA4", "BTCUSDT", "es1", None)] == [
        *("fut", "fut", OTHER, "crypto", OTHER, OTHER)
    ]
    assert Rules().group("ES1") == Rules().group(None) == ALL


def test_what_is_read_already_stays() -> None:
    assert feeds.limits((Limit("bars", "*", "*", 1.0),)) == (Limit("bars", "*", "*", 1.0),)
    assert feeds.groups((SymbolGroup("a", ("b",)),)) == (SymbolGroup("a", ("b",)),)


@pytest.mark.parametrize(
    "text", ["bars", "bars=", "bars=5", "bars=0s", "bars=5 minutes", "=5m", "a:b:c:d=5m", "a::b=5m"]
)
def test_a_wrong_limit_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"write dataset\[:provider\[:group\]\]=duration"):
        feeds.limits(f"ticks=5m,{text}")


@pytest.mark.parametrize("text", ["fut", "fut=", "=ES*", "a b=ES*", "all=ES*", "other=ES*", "fut=ES*,fut=NQ*"])
def test_a_wrong_group_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"write group=pattern\|pattern"):
        feeds.groups(text)


def test_what_has_stopped_comes_first_and_what_is_too_much_is_counted() -> None:
    going = [Feed(FeedName("bars", f"p{n}", ALL), 0.0, 5.0, 10.0) for n in range(MOST_FEEDS + 20)]
    stopped = Feed(FeedName("ticks", "z", ALL), 0.0, 11.0, 10.0)
    free = Feed(FeedName("bars", "a", ALL), 0.0, 1e9, None)
    found = ordered([free, *going, stopped])
    assert found.every[0] == stopped
    assert found.every[-1] == free
    assert found.stopped == [stopped]
    assert (len(found.shown), len(found.others)) == (MOST_FEEDS, 22)
