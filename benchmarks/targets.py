"""The targets of the store, each with the value that was reached. Pure."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contender import COPY, LIMIT, Label
from benchmarks.results import Results, Run, versus

OURS, WRITE_TABLE, EXECUTEMANY = "our worker", "our worker, write_table", "Celery + executemany"
WRITE_COORDINATOR, STORE_CLIENT = "WriteCoordinator 0.6", "StoreClient.write"

_COMPARE = {"at least": operator.ge, "at most": operator.le, "below": operator.lt}
_BROKERS = ("redis", "rabbitmq")
#: The least ratio of a drain to the bare COPY, by kind of rows.
_TO_COPY = {"fresh": 1.25, "replayed": 1.1, "half": 1.0, "updated": 0.9}


@dataclass(frozen=True, slots=True)
class Target:
    """A target; `reached` is None if it was not measured."""

    name: str
    #: "at least", "at most" or "below".
    sense: str
    wanted: float
    reached: float | None
    unit: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target was reached, in a word or two."""
        if self.reached is None:
            return "not measured"
        is_met = _COMPARE[self.sense](self.reached, self.wanted)
        return "reached" if is_met else "missed"


def targets(results: Results) -> list[Target]:
    """Return all targets in the order in which they were set."""
    return [*_throughput(results.runs), *_latency(results), *_memory(results), *_growth(results)]


def _throughput(runs: Sequence[Run]) -> Iterator[Target]:
    def ratio(name: str, wanted: float, one: Label, other: Label = COPY) -> Target:
        found = versus(runs, one, other)
        return Target(name, "at least", wanted, median(found) if found else None, "x")

    redis, rabbitmq = Label(OURS, "redis"), Label(OURS, "rabbitmq")
    single = {broker: Label(OURS, broker, "fresh", 1) for broker in _BROKERS}
    plain = {broker: Label(EXECUTEMANY, broker, "fresh", 1) for broker in _BROKERS}
    tables = {broker: Label(WRITE_TABLE, broker, "fresh", 5_000) for broker in _BROKERS}
    for kind, wanted in _TO_COPY.items():
        for broker in _BROKERS:
            yield ratio(f"drain, {kind}, 500 a message, {broker}, to bare COPY", wanted, Label(OURS, broker, kind))
    for broker in _BROKERS:
        yield ratio(f"drain of tables, {broker}, to bare COPY", 1.8, tables[broker])
    yield ratio("drain, fresh, 500 a message, redis, to the machine's limit", 0.45, redis, LIMIT)
    yield ratio("drain of tables, redis, to the machine's limit", 0.65, tables["redis"], LIMIT)
    for broker in _BROKERS:
        yield _pool(runs, "drain, fresh, 500 a message", Label(OURS, broker), 3.0)
        yield _pool(runs, "drain of tables", tables[broker], 1.2)
    yield ratio(
        "drain, 500 a message, Redis, to the predecessor's WriteCoordinator", 4, redis, Label(WRITE_COORDINATOR)
    )
    yield ratio("drain, 500 a message, to Celery + executemany, Redis", 2.5, redis, Label(EXECUTEMANY, "redis"))
    yield ratio(
        "drain, 500 a message, to Celery + executemany, RabbitMQ", 2.5, rabbitmq, Label(EXECUTEMANY, "rabbitmq")
    )
    yield ratio("drain, 1 a message, to Celery + executemany, Redis", 8, single["redis"], plain["redis"])
    yield ratio("drain, 1 a message, to Celery + executemany, RabbitMQ", 3, single["rabbitmq"], plain["rabbitmq"])
    rates = [run.rate for run in runs if run.label.contender == STORE_CLIENT]
    name = "StoreClient.write, rows per second of one core, without the broker's time"
    yield Target(name, "at least", 150_000, median(rates) if rates else None, "rows/s")


def _pool(runs: Sequence[Run], name: str, label: Label, wanted: float) -> Target:
    """Return the target of the pool processes' CPU microseconds per row."""
    used = [run.timing.facts["cpu_us_children"] for run in runs if run.label == label]
    return Target(
        f"{name}, {label.broker}, CPU of the pool", "at most", wanted, median(used) if used else None, "us/row"
    )


def _latency(results: Results) -> Iterator[Target]:
    for broker in _BROKERS:
        found = [latency.p99_ms for latency in results.latencies if (latency.broker, latency.load) == (broker, 0.5)]
        yield Target(f"p99 from write() to commit at 50 % load, {broker}", "below", 250, max(found, default=None), "ms")


def _memory(results: Results) -> Iterator[Target]:
    growth = max((100 * memory.growth for memory in results.memory), default=None)
    most = max((memory.most_mb for memory in results.memory), default=None)
    yield Target("memory, growth of the process that grew most", "below", 5, growth, "%")
    yield Target("memory, the largest process", "below", 150, most, "MB")


def _growth(results: Results) -> Iterator[Target]:
    grown = max(results.growth, default=0)
    label = Label(OURS, "redis")
    rates = {
        rows: median(found)
        for rows in (0, grown)
        if (found := [run.rate for run in results.growth.get(rows, ()) if run.label == label])
    }
    reached = rates[grown] / rates[0] if grown and len(rates) == 2 else None
    name = f"drain with {grown / 1e6:g} million rows in the table, to an empty one" if grown else "drain, large table"
    yield Target(name, "at least", 0.7, reached, "x")
