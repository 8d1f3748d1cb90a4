"""Which letters are new, in words without values."""

from __future__ import annotations

from market_data_store.dead_letters.summary import NEW_S, ReasonCount, newly_kept

NOW = 1_700_000_000.0


def kept(dataset: str | None, pattern: str, count: int, age_s: float) -> ReasonCount:
    return ReasonCount(dataset, pattern, count, NOW - age_s)


def test_letters_of_the_last_seconds_are_new() -> None:
    old, new = kept("bars", "ts: missing", 5_000, NEW_S + 1), kept("ticks", "price: … is not a number", 1_200, 1.0)
    assert newly_kept([old, new], NOW) == "dead letters grow: ticks: price: … is not a number (1,200 kept)"
    assert newly_kept([old], NOW) is None
    assert newly_kept([], NOW) is None
    assert newly_kept(None, NOW) is None


def test_the_newest_reason_is_named_and_others_are_counted() -> None:
    found = [kept("bars", "ts: missing", 5, 4.0), kept(None, "task: … is unknown here", 1, 2.0)]
    assert newly_kept(found, NOW) == (
        "dead letters grow: unusable messages: task: … is unknown here (1 kept, and 1 more reason)"
    )
