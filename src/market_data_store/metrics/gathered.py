"""What the monitor serves for others: the counts of all workers, and the feeds, under the names of `definitions`.

A sum of counts does not fall when a worker ends. A feed that is not there any more has no series any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from market_data_store.coordinator.counted import BOUNDS, NONE, OTHERS, OUTCOMES, buckets, key, parts_of
from market_data_store.datasets import DATASETS
from market_data_store.metrics.definitions import (
    BATCH_ROWS,
    LATENCY,
    PASSING,
    RETRIES,
    ROWS,
    STALE_SECONDS,
    WRITE_SECONDS,
)

_HISTOGRAMS: Mapping[str, MetricWrapperBase] = {
    "batch_rows": BATCH_ROWS,
    "write_s": WRITE_SECONDS,
    "stale_s": STALE_SECONDS,
}
_FEED_LABELS = ["dataset", "provider", "group"]


class FeedSample(NamedTuple):
    """A feed, or all those above the bound together."""

    #: Dataset, provider and group.
    labels: tuple[str, str, str]
    newest_ts: float
    limit_s: float | None
    is_stopped: bool


#: The labels of the feeds above the bound.
OTHER_FEEDS = (OTHERS, OTHERS, OTHERS)


class Gathered(Collector):
    """Makes metrics of the counts that `total` returns, and of `feeds`.

    Counters are there from the beginning, at 0: for Prometheus one that first appears with a count has no increase.
    """

    def __init__(self, total: Callable[[], Mapping[str, float]]) -> None:
        self._total = total
        #: The feeds; empty while they are not known. Set it whole.
        self.feeds: Sequence[FeedSample] = ()
        #: How many feeds there are in each state.
        self.feed_states: Mapping[str, int] = {}

    def registry(self) -> CollectorRegistry:
        """Return a registry of these metrics only."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        total = self._total()
        yield _rows(total)
        yield _retries(total)
        yield _latency(total)
        for family, definition in _HISTOGRAMS.items():
            yield _histogram(total, family, definition)
        yield from self._feeds()

    def _feeds(self) -> Iterator[Metric]:
        newest = GaugeMetricFamily(
            "mds_feed_newest_timestamp_seconds", "Unix time of the newest row of a feed", labels=_FEED_LABELS
        )
        limits = GaugeMetricFamily(
            "mds_feed_limit_seconds", "How old the newest row of a feed may become (MDS_FRESHNESS)", labels=_FEED_LABELS
        )
        stopped = GaugeMetricFamily(
            "mds_feed_stopped",
            "1 if the newest row of a feed with a limit is older than that, else 0",
            labels=_FEED_LABELS,
        )
        states = GaugeMetricFamily(
            "mds_feeds",
            "Feeds: with a limit and within it, stopped, without a limit; others: without series",
            labels=["state"],
        )
        for feed in self.feeds:
            newest.add_metric(feed.labels, feed.newest_ts)
            if feed.limit_s is not None:
                limits.add_metric(feed.labels, feed.limit_s)
                stopped.add_metric(feed.labels, feed.is_stopped)
        for state, number in self.feed_states.items():
            states.add_metric([state], number)
        yield from (newest, limits, stopped, states)


def _described(definition: MetricWrapperBase) -> tuple[str, str]:
    (metric,) = definition.describe()
    return metric.name, metric.documentation


def _rows(total: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(*_described(ROWS), labels=["dataset", "outcome"])
    found = {(name, outcome): 0.0 for name in DATASETS for outcome in OUTCOMES} | {(NONE, "rejected"): 0.0}
    for dataset, outcome, number in parts_of(total, "rows"):
        if outcome in OUTCOMES:
            found[dataset, outcome] = number
    for labels, number in found.items():
        family.add_metric(labels, number)
    return family


def _retries(total: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(*_described(RETRIES), labels=["sqlstate_class"])
    for sqlstate_class, number in (
        dict.fromkeys(PASSING, 0.0) | {p: n for _, p, n in parts_of(total, "retries")}
    ).items():
        family.add_metric([sqlstate_class], number)
    return family


def _latency(total: Mapping[str, float]) -> Metric:
    family = HistogramMetricFamily(*_described(LATENCY))
    family.add_metric([], *_buckets(total, "latency_s", ""))
    return family


def _histogram(total: Mapping[str, float], name: str, definition: MetricWrapperBase) -> Metric:
    family = HistogramMetricFamily(*_described(definition), labels=["dataset"])
    datasets = {dataset for dataset, _, _ in parts_of(total, name)}
    for dataset in sorted(datasets | (set(DATASETS) if name == "stale_s" else set())):
        family.add_metric([dataset], *_buckets(total, name, dataset))
    return family


def _buckets(total: Mapping[str, float], name: str, label: str) -> tuple[list[tuple[str, float]], float]:
    """Return the cumulated buckets of a histogram, and its sum."""
    bounds = [*map(floatToGoString, BOUNDS[name]), "+Inf"]
    numbers = accumulate(buckets(total, name, label))
    return list(zip(bounds, numbers, strict=True)), total.get(key(name, label, "sum"), 0.0)
