"""Feeds as samples of metrics: one of each feed up to the bound, and one of all others together."""

from __future__ import annotations

from collections import Counter

from market_data_store.metrics.gathered import OTHER_FEEDS, FeedSample
from market_data_store.status.freshness import Feeds


def samples_of(feeds: Feeds) -> list[FeedSample]:
    """Return the samples; the newest row of the others is that of the one that has been quiet for the longest."""
    samples = [
        FeedSample(tuple(feed.name), feed.newest_ts, feed.limit_s, feed.is_stopped)  # type: ignore[arg-type]
        for feed in feeds.shown
    ]
    if feeds.others:
        oldest = min(feeds.others, key=lambda feed: feed.newest_ts)
        limits = [feed.limit_s for feed in feeds.others if feed.limit_s is not None]
        is_stopped = any(feed.is_stopped for feed in feeds.others)
        samples.append(FeedSample(OTHER_FEEDS, oldest.newest_ts, min(limits, default=None), is_stopped))
    return samples


def states_of(feeds: Feeds) -> dict[str, int]:
    """Count the feeds that are within their limit, have stopped or have no limit, and those without a sample."""
    states = Counter(
        "stopped" if feed.is_stopped else "going" if feed.limit_s is not None else "unlimited" for feed in feeds.every
    )
    return {name: states[name] for name in ("going", "stopped", "unlimited")} | {"others": len(feeds.others)}
