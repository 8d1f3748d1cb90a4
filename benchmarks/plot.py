"""Draws the ratios as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.contender import COPY
from benchmarks.results import Results, summaries

_OURS, _PEERS, _YARDSTICK = "#1f6f8b", "#b0b7bd", "#30343a"


def draw(results: Results, path: Path) -> None:
    """Draw a bar for each contender: the median of its ratios to the bare COPY, and a line from least to most."""
    found = [s for s in summaries(results.runs) if not s.label.contender.startswith("StoreClient.write")][::-1]
    figure, axes = pyplot.subplots(figsize=(10, 1.2 + 0.27 * len(found)), layout="constrained")
    for place, summary in enumerate(found):
        is_ours = summary.label.contender.startswith("our ")
        colour = _YARDSTICK if summary.label == COPY else _OURS if is_ours else _PEERS
        span = [[summary.ratio - summary.least], [summary.most - summary.ratio]]
        axes.barh(place, summary.ratio, color=colour, xerr=span, ecolor="#888888", capsize=2)
        axes.text(summary.most, place, f"  {summary.ratio:.3g}   {summary.rate:,.0f}/s", va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [str(summary.label) for summary in found], fontsize=8)
    axes.set_xlim(0, 1.25 * max(summary.most for summary in found))
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.axvline(1.0, color=_YARDSTICK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("rows per second, bare binary COPY of the same round = 1 (bar: median; line: least to most)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("From the queue into Postgres", loc="left")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
