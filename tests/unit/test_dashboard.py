"""Dashboard, alerts and documentation ask for definitions that exist, by labels and values that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from market_data_core.telemetry import BackpressureLevel
from prometheus_client.parser import text_string_to_metric_families

from market_data_store.coordinator.queue import Reading
from market_data_store.metrics import definitions
from market_data_store.protocol import Counts
from market_data_store.service.metrics import install
from market_data_store.signals import batch_written, rows_rejected, write_retried

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "grafana/market-data-store.json").read_text())
ALERTS = yaml.safe_load((ROOT / "grafana/alerts.yml").read_text())
DOCUMENT = (ROOT / "docs/monitoring.md").read_text()

#: Functions of PromQL that are asked here; the second ones make sense of counters alone.
FUNCTIONS = {"abs", "absent", "histogram_quantile", "max", "min_over_time", "sum", "time"}
OF_COUNTERS = {"increase", "rate"}
OPERATORS = {"and", "or", "unless"}

GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
#: A word, and what makes it a function or a selector.
WORD = re.compile(r"\b(?P<word>[A-Za-z_]\w*)\s*(?P<call>\()?(?:\{(?P<matchers>[^}]*)\})?(?:\[[^]]*\])?")
MATCHER = re.compile(r'\s*(?P<label>\w+)\s*(?P<comparison>=~|!~|!=|=)\s*"(?P<value>[^"]*)"\s*(?:,|$)')


@dataclass(frozen=True)
class Family:
    """A metric as it is scraped; `samples` holds the label values of each of its series, by the series' name."""

    type: str
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    @property
    def labels(self) -> set[str]:
        return {name for series in self.samples.values() for labels in series for name in labels} - {"le"}


@cache
def served() -> dict[str, Family]:
    """Our definitions as a scrape gets them, each with all its outcomes."""
    app = Flask("served")
    install(app)

    @app.get("/rows/<int:number>")
    def rows(number: int) -> str:
        return str(1 // number)

    client = app.test_client()
    for path in ("/rows/1", "/rows/0"):
        client.get(path)
    app.testing = True  # lets the exception out, which the exporter counts then
    with pytest.raises(ZeroDivisionError):
        client.get("/rows/0")
    definitions.start_at_zero()
    definitions.init_delivery_counters(["redis", "http"])
    definitions.set_monitor_gauges(100, Reading(1, 1, 1, {"bars": 1}, None, {"deaf": 1}, 1), BackpressureLevel.ok)
    definitions.set_backfill_gauges(100, Reading(1, 1, 1, {"bars": 1}), BackpressureLevel.ok)
    definitions.UPKEEP_LEADS.set(1)
    definitions.set_letters_gauges(1, 1.0)
    definitions.set_retention_gauges(1.0, 0)
    definitions.set_room_gauges(is_writable=True, is_full=False)
    definitions.set_clock_gauges({"broker": 0.1})
    definitions.count_expired("ticks", "rows", 1)
    batch_written.send(sender="test", dataset="bars", counts=Counts(written=1), messages=1, seconds=1.0, late=[1.0])
    rows_rejected.send(sender="test", dataset=None, rows=1)
    write_retried.send(sender="test", sqlstate_class="40")
    found: dict[str, Family] = {}
    for metric in text_string_to_metric_families(client.get("/metrics").text):
        if metric.name.startswith("mds_"):
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            family = found.setdefault(name, Family(metric.type))
            for sample in metric.samples:
                if not sample.name.endswith("_created"):
                    family.samples.setdefault(sample.name, []).append(sample.labels)
    return {name: family for name, family in found.items() if not name.endswith("_created")}


@cache
def series() -> dict[str, list[dict[str, str]]]:
    """The labels of each of a name's series, by the name as it is scraped (`_bucket`, `_sum`, ... included)."""
    return {name: labels for family in served().values() for name, labels in family.samples.items()}


@cache
def counters() -> set[str]:
    countable = [family for family in served().values() if family.type in ("counter", "histogram")]
    return {name for family in countable for name in family.samples}


def problems(query: str) -> Iterator[str]:
    """What is wrong with a query: unknown names, labels, values, or a rate of what is no counter."""
    if query.count("(") != query.count(")"):
        yield "parentheses"
    words = list(WORD.finditer(GROUPING.sub("", query)))
    names = [match["word"] for match in words if not match["call"] and match["word"] not in OPERATORS]
    for match, following in pairwise([*words, None]):
        assert match is not None
        word = match["word"]
        if word in OF_COUNTERS and following is not None and following["word"] not in counters():
            yield f"{word} of {following['word']}, which is no counter"
        elif match["call"] and word not in FUNCTIONS | OF_COUNTERS | OPERATORS:
            yield f"{word} is no function"
        elif word in names and word not in series():
            yield f"{word} is not served"
        elif word in names:
            yield from _wrong_matchers(word, match["matchers"] or "")
    if not names:
        yield "no metric"
    for label in grouped_by(query):
        yield from (f"{name} has no label {label}" for name in names if label not in _labels(name))


def grouped_by(query: str) -> set[str]:
    return {label.strip() for labels in GROUPING.findall(query) for label in labels.split(",") if label.strip()}


def _wrong_matchers(name: str, text: str) -> Iterator[str]:
    if MATCHER.sub("", text):
        yield f"{{{text}}} cannot be read"
    for match in MATCHER.finditer(text):
        label, comparison, value = match.group("label", "comparison", "value")
        known = {labels.get(label, "") for labels in series().get(name, ())}
        if label not in _labels(name):
            yield f"{name} has no label {label}"
        elif (comparison == "=" and value not in known) or (
            comparison == "=~" and "$" not in value and not any(re.fullmatch(value, k) for k in known)
        ):
            yield f"{name} has no {label} {value}"


def _labels(name: str) -> set[str]:
    return {label for labels in series().get(name, ()) for label in labels}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", [])


TARGETS = [(panel["title"], target) for panel in panels() for target in panel.get("targets", [])]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sum(rate(mds_rows_total[5m]))", None),
        ("max(mds_queue_depht)", "mds_queue_depht is not served"),
        ("rate(mds_rows[5m])", "rate of mds_rows, which is no counter"),
        ("mds_write_seconds", "mds_write_seconds is not served"),
        ("mds_write_seconds_bucket", None),
        ("rate(mds_queue_depth[5m])", "rate of mds_queue_depth, which is no counter"),
        ("sum by (le, provider) (rate(mds_batch_rows_bucket[5m]))", "mds_batch_rows_bucket has no label provider"),
        ("sum by (le) (rate(mds_batch_rows_sum[5m]))", "mds_batch_rows_sum has no label le"),
        ('mds_rows_total{provider="x"}', "mds_rows_total has no label provider"),
        ('mds_rows_total{dataset=~"$dataset",outcome="writen"}', "mds_rows_total has no outcome writen"),
        ('mds_http_request_total{status=~"5.."}', None),
        ('mds_http_request_total{status=~"6.."}', "mds_http_request_total has no status 6.."),
        ("sun(mds_queue_depth)", "sun is no function"),
        ("sum(mds_queue_depth", "parentheses"),
        ('mds_rows_total{outcome: "written"}', '{outcome: "written"} cannot be read'),
        ("time() > 5", "no metric"),
    ],
)
def test_a_wrong_query_is_found(query: str, problem: str | None) -> None:
    assert (problem in problems(query)) if problem else not list(problems(query))


def test_every_metric_was_served_with_a_sample() -> None:
    assert [name for name, family in served().items() if not family.samples] == []


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{title} {target['refId']}" for title, target in TARGETS])
def test_every_query_of_the_dashboard_asks_for_what_is_served(title: str, target: dict[str, Any]) -> None:
    assert list(problems(target["expr"])) == []
    assert set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"])) <= grouped_by(target["expr"])


def test_the_dashboard_shows_every_metric() -> None:
    """But the exporter's version."""
    queries = " ".join(target["expr"] for _, target in TARGETS)
    asked = {name for name, family in served().items() if any(series in queries for series in family.samples)}
    assert served().keys() - asked == {"mds_exporter_info"}


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    assert all(panel["title"] for panel in panels())
    assert all(panel["description"] and panel["targets"] for panel in panels() if panel["type"] != "row")
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(DASHBOARD["panels"]))) == variables.keys()
    name, label = re.findall(r"\w+", variables["dataset"]["query"]["query"])[1:]
    assert label in _labels(name)
    places = [(p["gridPos"]["x"] + p["gridPos"]["w"]) for p in panels()]
    assert max(places) <= 24


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_asks_for_what_is_served_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert list(problems(rule["expr"])) == []
    assert rule["for"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    text = " ".join(rule["annotations"][name] for name in ("summary", "description"))
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= grouped_by(rule["expr"])
    assert f"`{rule['alert']}`" in DOCUMENT


def test_the_documentation_lists_every_metric() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in DOCUMENT.splitlines() if "| `mds_" in line
    ]
    listed = {name.strip("`"): (kind, set(filter(None, labels.split(", ")))) for name, kind, labels, *_ in rows}
    assert listed == {name: (family.type, family.labels) for name, family in served().items()}
    assert all(unit and process for *_, unit, process in rows)
