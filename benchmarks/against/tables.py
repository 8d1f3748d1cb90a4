"""A comparison as Markdown whose columns are aligned, so that it reads well as it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.against.verdict import NOISY, PRESENT, Comparison

#: Whose CPU a row is noted, and what it is called in the samples.
_CPU = {
    "worker's parent": ("cpu_us_parent",),
    "pool processes": ("cpu_us_children",),
    "Postgres": ("cpu_us_postgres",),
    "broker": ("cpu_us_redis", "cpu_us_rabbitmq"),
}


def markdown(about: Mapping[str, str], found: Sequence[Comparison], other: str, not_measured: Mapping[str, str]) -> str:
    """All tables for which there is something."""
    return "\n".join(_lines(about, found, other, not_measured))


def _lines(
    about: Mapping[str, str], found: Sequence[Comparison], other: str, not_measured: Mapping[str, str]
) -> Iterator[str]:
    yield from (f"# Against {other}", "", *(f"- {name}: {value}" for name, value in about.items()), "")
    if found:
        head = (other, "present", "ratio", "least to most", "present to itself", "wanted", "")
        yield from _table(("median of", *head), [_line(comparison) for comparison in found])
    if noisy := [comparison.measure.name for comparison in found if comparison.spread > NOISY]:
        yield f"Measure these again when the machine is quiet: two runs of one version differ by more than {NOISY:.0%}:"
        yield f"{'; '.join(noisy)}."
        yield ""
    drained = [comparison for comparison in found if comparison.facts[other]]
    if drained:
        yield "## Microseconds of CPU for each row drained"
        rows = [row for comparison in drained for row in _cpu(comparison, other)]
        yield from _table(("median of", "version", *_CPU, "together", "ratio"), rows)
    if not_measured:
        yield from ("## Not measured", "", *(f"- {name}: {reason}" for name, reason in not_measured.items()), "")


def _line(found: Comparison) -> tuple[str, ...]:
    sign = ">=" if found.measure.is_rate else "<="
    return (
        found.measure.name,
        f"{found.other:,.0f} {found.measure.unit}",
        f"{found.present:,.0f} {found.measure.unit}",
        f"{found.ratio:.3f}",
        f"{found.least:.2f} to {found.highest:.2f}",
        f"{found.itself:.3f}",
        f"{sign} {found.limit:.3f}",
        "holds" if found.holds else "misses",
    )


def _cpu(found: Comparison, other: str) -> Iterator[tuple[str, ...]]:
    total = sum(_used(found.facts[other]))
    for version in (other, PRESENT):
        used = _used(found.facts[version])
        values = (f"{value:.2f}" for value in (*used, sum(used)))
        yield (found.measure.name, version, *values, f"{sum(used) / total:.3f}" if version == PRESENT else "")


def _used(facts: Mapping[str, float]) -> list[float]:
    return [sum(facts.get(name, 0.0) for name in names) for names in _CPU.values()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    yield ""
    for row in (head, ["-" * width for width in widths], *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(cells)} |"
    yield ""
