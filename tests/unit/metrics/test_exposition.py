"""`GET /metrics` of an application in a single process, asked properly and otherwise."""

from __future__ import annotations

from itertools import product

from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from market_data_core.telemetry import BackpressureLevel
from prometheus_client.parser import text_string_to_metric_families

from market_data_store.coordinator.queue import Reading
from market_data_store.metrics.definitions import set_backfill_gauges, set_queue_gauges
from market_data_store.service.metrics import install


def application() -> Flask:
    app = Flask("exposition")
    install(app)

    @app.get("/rows/<int:number>")
    def rows(number: int) -> str:
        return str(1 // number)

    return app


def samples(app: Flask, query: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = app.test_client().get(f"/metrics{query}")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def requests(app: Flask) -> dict[tuple[str, str, str], float]:
    """By method, endpoint and status."""
    found = {}
    for (name, labels), value in samples(app).items():
        if name == "mds_http_request_duration_seconds_count":
            label = dict(labels)
            found[label["method"], label["endpoint"], label["status"]] = value
    return found


def test_requests_are_counted_by_rule_and_status() -> None:
    app = application()
    client = app.test_client()
    for number in range(5):
        client.get(f"/rows/{number}")
    for path in ("/no", "/such", "/page/../1"):
        client.get(path)
    client.post("/rows/1")
    for number in range(50):
        client.open("/rows/1", method=f"WORD{number}")
    assert requests(app) == {
        ("GET", "/rows/<int:number>", "200"): 4,
        ("GET", "/rows/<int:number>", "500"): 1,
        ("GET", "none", "404"): 3,
        ("POST", "none", "405"): 1,
    }


def test_a_second_application_counts_its_own() -> None:
    first, second = application(), application()
    first.test_client().get("/rows/1")
    assert requests(first) == {("GET", "/rows/<int:number>", "200"): 1}
    assert requests(second) == {}


def test_the_queue_is_shown_and_names_are_picked() -> None:
    app = application()
    set_queue_gauges(2_000, Reading(1_234, None, None), BackpressureLevel.soft)
    picked = samples(app, "?name[]=mds_queue_depth&name[]=mds_backpressure_level&name[]=none")
    assert picked == {("mds_queue_depth", frozenset()): 1_234, ("mds_backpressure_level", frozenset()): 1}


def test_the_backfill_lane_has_gauges_of_its_own() -> None:
    app = application()
    set_queue_gauges(2_000, Reading(1_234, None, 3, {"bars": 1}), BackpressureLevel.ok)
    set_backfill_gauges(100, Reading(80, None, 2, {"bars": 5}), BackpressureLevel.hard)
    set_backfill_gauges(100, Reading(None, None, None), BackpressureLevel.hard)
    found = {
        name: value
        for (name, labels), value in samples(app).items()
        if name.startswith("mds_") and labels <= {("dataset", "bars")}
    }
    names = ("depth", "capacity", "level", "workers", "held_messages")
    assert [found[f"mds_backfill_{name}"] for name in names] == [80, 100, 2, 2, 5]
    live = ("mds_queue_depth", "mds_queue_capacity", "mds_backpressure_level", "mds_workers", "mds_held_messages")
    assert [found[name] for name in live] == [1_234, 2_000, 0, 3, 1]


@given(names=st.lists(st.text(), max_size=3))
@settings(max_examples=50, deadline=None)
def test_any_name_in_a_scrape_is_answered(names: list[str]) -> None:
    text = [name.encode("utf-8", "replace").decode() for name in names]
    assert application().test_client().get("/metrics", query_string={"name[]": text}).status_code == 200


def test_any_accept_header_is_answered() -> None:
    client = application().test_client()
    kinds = ("text/plain", "application/openmetrics-text", "*/*", "")
    versions = ("", "x", "1", "1.0.0", "2.x.y", "9", "=", "١")
    for kind, version, escaping in product(kinds, versions, ("", "x", "allow-utf-8", "dots", "values")):
        accept = f"{kind}; version={version}; escaping={escaping}".encode().decode("latin-1")
        answer = client.get("/metrics", headers={"Accept": accept})
        assert answer.status_code == 200, accept
        assert "mds_queue_depth" in answer.text.replace("__", "_"), accept
