"""Formats the results as Markdown, ratios first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.contender import COPY, Label
from benchmarks.results import Results, summaries
from benchmarks.targets import targets

#: Columns with CPU microseconds per row, and the names of these figures in the results.
_CPU = {
    "parent": "cpu_us_parent",
    "children": "cpu_us_children",
    "Postgres": "cpu_us_postgres",
    "Redis": "cpu_us_redis",
    "RabbitMQ": "cpu_us_rabbitmq",
}


def markdown(results: Results) -> str:
    """Return all tables that have results."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    yield from ("# Benchmark", "", *(f"- {name}: {value}" for name, value in results.about.items()), "")
    yield "## Targets"
    yield from table(
        ("target", "wanted", "reached", ""),
        (
            (
                target.name,
                f"{target.sense} {_number(target.wanted)} {target.unit}",
                "" if target.reached is None else f"{_number(target.reached)} {target.unit}",
                target.verdict,
            )
            for target in targets(results)
        ),
    )
    if results.runs:
        yield from _throughput(results)
    if results.latencies:
        yield "## Latency from write() to the commit"
        yield from table(
            ("broker", "load", "rows/s sustained", "p50 ms", "p99 ms"),
            (
                (la.broker, f"{la.load:.0%}", f"{la.sustained:,.0f}", f"{la.p50_ms:.0f}", f"{la.p99_ms:.0f}")
                for la in results.latencies
            ),
        )
    if results.memory:
        first = results.memory[0]
        yield "## Resident memory, MB"
        yield from table(
            ("process", f"at {first.early_rows:,} rows", f"at {first.rows:,} rows", "growth", "most"),
            (
                (m.process, f"{m.early_mb:.0f}", f"{m.mb:.0f}", f"{m.growth:+.1%}", f"{m.most_mb:.0f}")
                for m in results.memory
            ),
        )
    if results.growth:
        yield from _growth(results)
    if results.skipped:
        yield from ("## Not measured", "", *(f"- {name}: {reason}" for name, reason in results.skipped.items()), "")


def _throughput(results: Results) -> Iterator[str]:
    found = summaries(results.runs)
    yield "## Throughput"
    yield from table(
        ("contender", "broker", "rows", "a message", "to bare COPY", "least to most", "rows/s", "enqueued rows/s"),
        (
            (
                *_names(s.label),
                f"**{s.ratio:.3g}**",
                f"{s.least:.2g} to {s.most:.2g}",
                f"{s.rate:,.0f}",
                f"{s.facts['enqueued_a_second']:,.0f}" if "enqueued_a_second" in s.facts else "",
            )
            for s in found
        ),
    )
    drained = [s for s in found if _CPU["parent"] in s.facts]
    if drained:
        yield "## Where the time goes: CPU microseconds per drained row"
        yield from table(
            ("contender", "broker", "rows", "a message", *_CPU),
            (
                (*_names(s.label), *(f"{s.facts[c]:.1f}" if c in s.facts else "" for c in _CPU.values()))
                for s in drained
            ),
        )


def _growth(results: Results) -> Iterator[str]:
    labels = list(dict.fromkeys(run.label for runs in results.growth.values() for run in runs))
    by_size = {rows: {s.label: s for s in summaries(runs)} for rows, runs in results.growth.items()}
    yield "## Rows per second by rows already in the table (ratio to bare COPY there)"
    yield from table(
        ("contender", *(f"{rows:,}" for rows in by_size)),
        ((str(label), *(f"{s[label].rate:,.0f} ({s[label].ratio:.2f})" for s in by_size.values())) for label in labels),
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a Markdown table, with empty lines around it."""
    yield ""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _names(label: Label) -> tuple[str, str, str, str]:
    sizes = f"{label.per_message:,}" if label.broker else ""
    return label.contender, label.broker, "" if label == COPY else label.kind, sizes


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
