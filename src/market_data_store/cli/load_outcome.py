"""What became of the rows of a load, in words and as JSON: of one file, and of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from market_data_store.cli.terminal import console
from market_data_store.files.loading import Summary
from market_data_store.files.rejects import MOST_EXAMPLES, Group, lines_of
from market_data_store.protocol import Counts

#: Why rows are stale.
_STALE = (
    "not stored, because rows with these keys that count as sent later are: from another producer, from further down "
    "in the file, or this machine's clock is behind"
)


def total_of(summaries: Sequence[Summary]) -> Summary:
    """Return what became of all files' rows."""
    if len(summaries) == 1:
        return summaries[0]
    groups: dict[str, Group] = {}
    for group in (group for summary in summaries for group in summary.rejects):
        total = groups.setdefault(group.pattern, Group(group.pattern))
        total.rows += group.rows
        total.examples = [*total.examples, *group.examples][:MOST_EXAMPLES]
    return Summary(
        sent=sum(summary.sent for summary in summaries),
        counts=sum((summary.counts for summary in summaries), Counts()),
        seconds=sum(summary.seconds for summary in summaries),
        rejects=sorted(groups.values(), key=lambda group: -group.rows),
        is_cut=any(summary.is_cut for summary in summaries),
        unlocated=next((summary.unlocated for summary in summaries if summary.unlocated), ""),
        skipped=sum(summary.skipped for summary in summaries),
        earlier_rejects=sum(summary.earlier_rejects for summary in summaries),
    )


def done(summary: Summary) -> str:
    """Return what a load that is ended has done."""
    if not summary.sent:
        return "no row was sent"
    pending = summary.sent - summary.settled
    more = f", {pending:,} more were sent and will be" if pending else ""
    others = {"stale": summary.stale, "rejected": summary.rejected}
    not_stored = "".join(f", {number:,} were {name}" for name, number in others.items() if number)
    return f"{summary.stored:,} rows were stored{not_stored}{more}; run it again to go on"


def outcome(summary: Summary) -> dict[str, Any]:
    """Return the outcome as JSON has it."""
    counts = summary.counts
    return {
        "sent": summary.sent,
        "written": counts.written,
        "unchanged": counts.unchanged,
        "stale": counts.stale,
        "superseded_in_messages": counts.superseded,
        "rejected": counts.rejected,
        "sent_before": summary.skipped,
        "rejected_before": summary.earlier_rejects,
        "seconds": round(summary.seconds, 3),
        "stopped_early": summary.is_cut,
        "rejects": [
            {"reason": group.pattern, "rows": group.rows, "first": [list(example) for example in group.examples]}
            for group in summary.rejects
        ],
    }


def show_many(summary: Summary, file: Path, unit: str) -> None:
    """Print one line of one of several files, and its rejects."""
    counts = summary.counts
    others = {"stale": counts.stale, "superseded": counts.superseded, "dead letters": summary.rejected}
    others["sent before"] = summary.skipped
    more = "".join(f", {number:,} {name}" for name, number in others.items() if number)
    line = f"{file.name}: {counts.written:,} written, {counts.unchanged:,} unchanged{more}, {summary.seconds:.2f} s"
    _print([*(f"{file.name}: {line}" for line in lines_of(summary.rejects, unit)), line])


def show_one(summary: Summary, file: Path | None, unit: str, *, of: int = 1) -> None:
    """Print what became of one file, or of all."""
    counts = summary.counts
    if file is not None:
        _print(lines_of(summary.rejects, unit))
    name = f"{of:,} files" if file is None else file.name
    lines = [
        f"{name}: {summary.seconds:.2f} s, {summary.rate:,.0f} rows/s",
        f"rows sent     {summary.sent:,}",
        f"rows stored   {summary.stored:,} ({counts.written:,} written, {counts.unchanged:,} unchanged)",
    ]
    if summary.skipped:
        lines.append(f"sent before   {summary.skipped:,} (by the run that was interrupted)")
    if counts.superseded:
        lines.append(f"superseded    {counts.superseded:,} (a later row of the file has the same key)")
    lines.append(f"stale         {counts.stale:,}{f' ({_STALE})' if counts.stale else ''}")
    before = f" ({summary.earlier_rejects:,} of the run that was interrupted)" if summary.earlier_rejects else ""
    lines.append(f"dead letters  {summary.rejected:,}{before}")
    if summary.unlocated:
        lines.append(f"their lines could not be noted: {summary.unlocated}")
    if summary.is_cut:
        lines.append("stopped early: there were more rejects than --max-errors allows")
    _print(lines)


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
