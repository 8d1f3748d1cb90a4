"""The backpressure loop without servers: producers, a queue and a worker in simulated time.

There are two kinds of producers. `StoreClient`s look at the queue themselves and run the shipped `Throttle`. Followers
act on the monitor's events as market-data-pipeline does (rate 1, 1/2 or 0 at ok, soft or hard).

    python benchmarks/backpressure_simulation.py --plot docs/backpressure.png
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from market_data_store.coordinator.watermarks import HARD, OK, SOFT, Watermarks
from market_data_store.producer.throttle import Throttle

SCALE = {OK: 1.0, SOFT: 0.5, HARD: 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The parameters of a run: rates in messages per second, times in seconds."""

    capacity: int
    producers: int
    #: How often a client looks at the queue, or, for followers, how often the monitor does.
    interval_s: float
    #: The rate that all producers together offer, as a multiple of the worker's rate.
    overload: float = 3.0
    worker_rate: float = 200.0
    duration_s: float = 60.0
    #: Whether producers follow events instead of looking at the queue themselves.
    follow: bool = False
    watermarks: Watermarks = field(default_factory=Watermarks)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run."""

    #: (time, depth), once every tenth of a second.
    depths: list[tuple[float, int]]
    sent: int
    stored: int
    #: Producers' mean rate over the second half, as a share of the worker's.
    settled: float

    @property
    def peak(self) -> int:
        """The greatest depth."""
        return max(depth for _, depth in self.depths)


def simulate(setup: Setup, *, seed: int = 0) -> Outcome:
    """Run the loop; the result is deterministic for a seed."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    events: list[tuple[float, int, str, int]] = []
    number = itertools.count()

    def at(time: float, what: str, who: int = 0) -> None:
        heapq.heappush(events, (time, next(number), what, who))

    period = setup.producers / (setup.overload * setup.worker_rate)
    throttles = [Throttle(setup.capacity, setup.watermarks, setup.interval_s) for _ in range(setup.producers)]
    level = OK
    for producer in range(setup.producers):
        at(chance.uniform(0, period), "make", producer)
    for what in ("drain", "sample", "monitor"):
        at(0.0, what)
    depth = sent = stored = late = 0
    depths: list[tuple[float, int]] = []
    while events:
        now, _, what, who = heapq.heappop(events)
        if now > setup.duration_s:
            break
        if what == "sample":
            depths.append((now, depth))
            at(now + 0.1, "sample")
        elif what == "drain":
            if depth:
                depth, stored = depth - 1, stored + 1
            at(now + chance.expovariate(setup.worker_rate), "drain")
        elif what == "monitor":
            level = setup.watermarks.level(level, depth / setup.capacity)
            at(now + setup.interval_s, "monitor")
        elif what == "make":  # the producer has a message
            at(now, "offer", who)
        else:
            throttle = throttles[who]
            if setup.follow:
                if SCALE[level] == 0:
                    at(now + setup.interval_s / 5, "offer", who)
                    continue
                pause = 0.0 if what == "go" else period * (1 / SCALE[level] - 1)
            else:
                if throttle.wants_look(now):
                    throttle.looked(now, depth)
                pause = 0.0 if what == "go" and not throttle.must_stop else throttle.pause_s(now)
                if throttle.must_stop:
                    at(now + max(pause, 1e-6), "offer", who)
                    continue
            if pause:
                at(now + pause, "go", who)
                continue
            depth, sent = depth + 1, sent + 1
            late += now > setup.duration_s / 2
            throttle.sent(now)
            at(now + chance.expovariate(1 / period), "make", who)
    return Outcome(depths, sent, stored, late / (setup.duration_s / 2) / setup.worker_rate)


def grid() -> Iterator[Setup]:
    """Yield the runs that are reported."""
    for follow, capacity, producers in itertools.product((False, True), (200, 1_000, 10_000), (1, 10, 100)):
        for interval_s in (0.5,) if follow else (0.25,):
            yield Setup(capacity=capacity, producers=producers, interval_s=interval_s, follow=follow, duration_s=120.0)
    for interval_s in (0.1, 2.0):
        yield Setup(capacity=1_000, producers=10, interval_s=interval_s, follow=True)
        yield Setup(capacity=1_000, producers=10, interval_s=interval_s)


def _plot(path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    titles = ("StoreClient, looks every 0.25 s", "followers of events, monitor every 0.5 s")
    for axis, follow, title in zip(axes, (False, True), titles, strict=True):
        for producers in (1, 10, 100):
            interval_s = 0.5 if follow else 0.25
            setup = Setup(capacity=1_000, producers=producers, interval_s=interval_s, follow=follow)
            axis.plot(*zip(*simulate(setup).depths, strict=True), label=f"{producers} producers", linewidth=1)
        for mark, style in ((0.4, ":"), (0.5, "--"), (0.65, ":"), (0.8, "--"), (1.0, "-")):
            axis.axhline(mark * 1_000, color="grey", linestyle=style, linewidth=0.7)
        axis.set(title=title, xlabel="seconds")
        axis.legend(loc="lower right")
    axes[0].set(ylabel="messages waiting (capacity 1,000)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print a table; with --plot, also draw the depths over time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="write the depths over time to this PNG")
    options = parser.parse_args()
    print(f"{'producers':>22} {'capacity':>9} {'interval':>9} {'peak':>7} {'of capacity':>12} {'settled rate':>13}")
    for setup in grid():
        outcome = simulate(setup)
        kind = f"{setup.producers} {'followers' if setup.follow else 'clients'}"
        share = outcome.peak / setup.capacity
        print(
            f"{kind:>22} {setup.capacity:>9,} {setup.interval_s:>8}s {outcome.peak:>7,} {share:>12.0%} "
            f"{outcome.settled:>13.2f}"
        )
    if options.plot:
        _plot(options.plot)


if __name__ == "__main__":
    main()
