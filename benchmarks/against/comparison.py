"""A comparison from the builds to the verdicts: who takes part, where it runs, and what was found."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.against.builds import Build, build_commit, build_working_tree, differing
from benchmarks.against.drains import CASES, Drains
from benchmarks.against.starts import starts
from benchmarks.against.verdict import AGAIN, PRESENT, Comparison, Sample, comparisons
from benchmarks.servers import RABBITMQ, REDIS, servers

STARTS = ("import", "help")
PARTS = (*CASES, *STARTS)
BROKERS = (REDIS, RABBITMQ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured, and how much."""

    commit: str
    parts: tuple[str, ...]
    brokers: tuple[str, ...]
    rows: int
    rounds: int
    launches: int


@dataclass(slots=True)
class Results:
    """What was found."""

    options: Options
    about: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def found(self) -> list[Comparison]:
        """What the samples come to."""
        return comparisons(self.samples, self.options.commit)

    @property
    def holds(self) -> bool:
        """Whether all that was asked for was measured, and holds."""
        return not self.not_measured and all(comparison.holds for comparison in self.found)

    def to_json(self) -> bytes:
        """For a file: the comparisons with their verdicts, then every sample."""
        found = [
            {**msgspec.to_builtins(comparison), "limit": comparison.limit, "holds": comparison.holds}
            for comparison in self.found
        ]
        raw = msgspec.json.encode({"comparisons": found, **msgspec.to_builtins(self)})
        return msgspec.json.format(raw, indent=1) + b"\n"


def measure(results: Results, directory: Path, show: Callable[[str], None]) -> None:
    """Build both versions and let them take turns; `results` grows while it goes on.

    `directory` holds the servers' data for a while: no memory file system. Raises `MarketDataStoreError` when a version
    cannot be built, or a server does not start.
    """
    options, started = results.options, time.monotonic()
    show(f"building {options.commit} and the working tree; a minute for each that is not there yet")
    builds = _builds(options.commit)
    results.about |= _about(builds, options)
    with tempfile.TemporaryDirectory(dir=directory, prefix="servers-") as name:
        for sample in _samples(builds, results, Path(name).resolve(), show):
            results.samples.append(sample)
            results.about["took"] = f"{time.monotonic() - started:.0f} s"


def _builds(commit: str) -> dict[str, Build]:
    """The contenders in the order of their turns."""
    other, present = build_commit(commit), build_working_tree()
    return {commit: other, PRESENT: present, AGAIN: present}


def _samples(
    builds: Mapping[str, Build], results: Results, scratch: Path, show: Callable[[str], None]
) -> Iterator[Sample]:
    """The starts first: nothing else of ours runs then."""
    options = results.options
    if parts := [part for part in STARTS if part in options.parts]:
        yield from starts(builds, parts, options.launches, scratch, show)
    if cases := [part for part in CASES if part in options.parts]:
        with ExitStack() as stack:
            show("starting servers")
            found = stack.enter_context(servers(scratch, database_url="", redis_url="", rabbitmq_url=""))
            if RABBITMQ in options.brokers:
                results.not_measured |= found.skipped
            drains = Drains(found, builds, options.commit, scratch, show)
            brokers = [broker for broker in options.brokers if broker in found.brokers]
            yield from drains.run(cases, brokers, options.rows, options.rounds)
            results.not_measured |= drains.failed


def _about(builds: Mapping[str, Build], options: Options) -> dict[str, str]:
    packages = differing(builds[options.commit].packages(), builds[PRESENT].packages())
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}",
        "machine": f"{os.cpu_count()} cores, {platform.system()}, load before {os.getloadavg()[0]:.1f}",
        "rounds": f"{options.rounds} of {options.rows:,} rows, {options.launches} starts of each process",
        "other packages": ", ".join(f"{name} {a} and {b}" for name, (a, b) in packages.items()) or "none",
    }
