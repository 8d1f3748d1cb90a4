"""The screen of `mds top`: it fits the terminal, a colour means what it says, and what is known is shown."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from market_data_store.cli.plots import bar, plot
from market_data_store.cli.screen import Screen, line_of

NOW = 1_772_616_600.0
MARKS = {"soft_above": 0.5, "hard_from": 0.8, "hard_until": 0.65, "ok_at": 0.4}
LANE: dict[str, Any] = {
    "depth": 6_000,
    "reserved": 128,
    "refusal": None,
    "malformed": 0,
    "capacity": 10_000,
    "utilization": 0.6,
    "level": "soft",
    "reason": "rising",
    "workers": 2,
    "watermarks": MARKS,
}
#: As version 0.4 and later give it.
PLAIN: dict[str, Any] = {
    "ts": NOW,
    "version": "0.5.0",
    "headline": "soft: the queue fills",
    "severity": "warning",
    "age_s": 0.2,
    "queue": LANE,
    "backfill": {**LANE, "depth": 10, "utilization": 0.001, "level": "ok", "reason": None, "problem": None},
    "workers": 2,
    "workers_in_trouble": [],
    "held": [],
    "stalled_s": 0.0,
    "rows_per_s": 1234.5,
    "health": {},
    "history": [[NOW - 600 + n, n, "ok" if n < 300 else "soft"] for n in range(600)],
    "events": [{"ts": NOW - 60, "level": "soft", "reason": "rising", "queue_size": 6_000, "capacity": 10_000}] * 10,
    "stored": {"bars": {"series": 12, "newest": "2026-03-04T09:29:00+00:00"}, "news": {"series": 0, "newest": None}},
    "retention": None,
    "dead_letters": {
        "total": 3,
        "oldest_ts": NOW - 7_260,
        "reasons": [{"dataset": "bars", "reason": "ts: missing", "count": 3, "last_ts": NOW}],
    },
}
FULL: dict[str, Any] = {
    **PLAIN,
    "flow": {
        "rows_per_s": {"written": 9_876.0, "unchanged": 5.0, "stale": 0.0, "superseded": 0.0, "rejected": 2.0},
        "latency_ms": {"p50": 12.0, "p99": 80.4},
        "history": [[NOW - 600 + n, n, 0, 0, 0, int(n > 590), 10.0, 20.0] for n in range(600)],
    },
    "worker_list": [
        {
            "name": f"worker{n}@host",
            "version": "0.5.0",
            "since_ts": NOW - 3_700,
            "lanes": ["live", "backfill"],
            "processes": 2,
            "holds": 64,
            "rows_per_s": 4_900.0,
            "rss_bytes": 180_000_000,
            "trouble": "stalled" if n == 1 else None,
        }
        for n in range(40)
    ],
    "feeds": [
        {
            "dataset": "bars",
            "provider": "CME",
            "group": None if n else "6E",
            "newest_ts": NOW - 30,
            "age_s": 30.0 if n else 4_000.0,
            "limit_s": 120.0,
            "stopped": n == 30,
            "spark": [0, 4, 2, None, 8],
        }
        for n in range(60)
    ],
    "feeds_total": 70,
}
SIZES = [(80, 24), (120, 40), (200, 60), (40, 12), (20, 5)]


def shown(document: dict[str, Any], width: int = 80, height: int = 24, trouble: str = "") -> list[Text]:
    return Screen(width, height).lines(document, "postgresql://postgres@host/market_data", trouble)


def text_of(document: dict[str, Any], size: tuple[int, int] = (80, 24), trouble: str = "") -> str:
    return "\n".join(line.plain for line in shown(document, *size, trouble))


def style_of(lines: list[Text], words: str) -> str:
    (line,) = [line for line in lines if words in line.plain]
    at = line.plain.index(words) + len(words) - 1
    return " ".join(str(span.style) for span in line.spans if span.start <= at < span.end) or str(line.style)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("document", [PLAIN, FULL], ids=["plain", "full"])
def test_it_fits_its_terminal(document: dict[str, Any], width: int, height: int) -> None:
    lines = shown(document, width, height)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width


def test_at_80_by_24_each_part_is_there() -> None:
    text = text_of(FULL)
    for part in ("mds top 0.5.0", "soft: the queue fills", "live", "backfill", "rows/s", "depth", "workers", "feeds"):
        assert part in text
    for fact in (
        "6,000 of 10,000, 128 at work",
        "9,876 written",
        "2 rejected",
        "p50 12 ms, p99 80 ms",
        "up 1 h 1 min  holds 64  4,900 rows/s",
    ):
        assert fact in text
    for fact in ("70, 1 stopped", "letters   3, the oldest kept 2 h 1 min ago", "ts: missing", "soft (rising)", "more"):
        assert fact in text
    assert "unknown" not in text
    assert "stopped: newest 30 s ago, limit 2 min" in text, "the one that has stopped comes first of sixty"


def test_what_only_an_older_document_knows_is_shown() -> None:
    text = text_of(PLAIN)
    assert "1,234 written" in text
    assert "bars                      12 series, newest 2026-03-04T09:29:00+00:00" in text
    assert "unknown" not in text
    assert "news" not in text


def test_what_nobody_knows_is_unknown() -> None:
    document = deepcopy(FULL)
    lane = {
        **LANE,
        "depth": None,
        "reserved": None,
        "utilization": None,
        "level": "hard",
        "reason": "broker_unreachable",
    }
    document |= {"queue": lane, "workers": None, "worker_list": None, "events": None, "feeds": None, "stored": None}
    document |= {"rows_per_s": None, "history": [[NOW, None, "hard"]], "age_s": None}
    document["flow"] = {
        "rows_per_s": dict.fromkeys(("written", "unchanged", "stale", "superseded", "rejected")),
        "latency_ms": {"p50": None, "p99": None},
        "history": [[NOW, *[None] * 7]],
    }
    document["dead_letters"] = {"total": None, "oldest_ts": None, "reasons": None}
    document["severity"] = "critical"
    text = text_of(document)
    for part in ("unknown of 10,000, unknown at work", "rows/s    unknown written", "workers   unknown"):
        assert part in text
    for part in ("stored    unknown", "letters   unknown", "no stream is read; set REDIS_URL"):
        assert part in text
    assert "unknown" in line_of(document)


def test_a_colour_says_how_things_are() -> None:
    lines = shown(FULL, 120, 60)
    assert "yellow" in style_of(lines, "soft: the queue fills")
    assert "red" in style_of(lines, "2 rejected")
    assert "green" in style_of(lines, "9,876 written")
    assert "yellow" in style_of(lines, "worker1@host ")
    assert "red" in style_of(lines, "stopped: newest")
    assert "red" in style_of(shown({**PLAIN, "workers": 0}), "workers   0")
    held = [{"dataset": "bars", "messages": 12, "reason": "the table is gone", "sqlstate": "42P01"}]
    assert "red" in style_of(shown({**PLAIN, "held": held}), "the table is gone")


def test_a_document_that_is_not_new_is_not_shown_as_one() -> None:
    trouble = "https://store.example.com does not answer (refused)"
    assert trouble in text_of(FULL, trouble=trouble)
    assert "looked 12 s ago  09:30:00Z" in text_of({**FULL, "age_s": 12.0})


def test_a_foreign_text_cannot_change_the_terminal() -> None:
    document = deepcopy(FULL)
    document["worker_list"][0]["name"] = "evil\x1b[2J\x07"
    document["dead_letters"]["reasons"][0]["reason"] = "\x1b]0;title\x07[red]not markup[/red]"
    console = Console(width=120, force_terminal=True, color_system=None)
    with console.capture() as capture:
        for line in shown(document, 120, 60):
            console.print(line)
    assert "\x1b" not in capture.get()
    assert "\x07" not in capture.get()
    assert "[red]not markup[/red]" in capture.get()


def test_one_line_says_the_same() -> None:
    line = line_of(FULL)
    assert line.startswith(
        "09:30:00Z soft: the queue fills; live 6,000, backfill 10, rows/s 9,876 written, 5 unchanged"
    )
    assert line.endswith("2 rejected, workers 2, letters 3")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(None, ".....|..|."), (0.0, ".....|..|."), (0.001, "#....|..|."), (0.6, "#####|..|."), (1.5, "#####|##|#")],
)
def test_a_bar_shows_its_share_and_its_marks(share: float | None, drawn: str) -> None:
    assert bar(share, 10, [0.5, 0.8], ["green", "yellow", "red"], ascii_only=True).plain == drawn


def test_a_plot_has_the_means_of_its_values() -> None:
    assert plot([0, 0, 4, 4, 8, 8], 3, ascii_only=False).plain == "▁▅█"
    assert plot([8], 3, ascii_only=False).plain == "  █"
    assert plot([None, 0], 2, ascii_only=False).plain == " ▁"
    assert plot([], 2, ascii_only=False).plain == "  "
