"""The page that people look at (`/`), and the JSON that it shows (`/status.json`).

Both need no token: they tell of levels, counts and reasons, never of a row's values. The page's files stand in `static`
and load nothing from elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from flask import Blueprint, Response, jsonify
from market_data_core.telemetry import HealthStatus

from market_data_store.config import Settings
from market_data_store.coordinator.watermarks import Watermarks
from market_data_store.status.sampler import Sample, Sampler

#: The browser is to load nothing from another host, and to run no script that stands in the page itself.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_page(settings: Settings, health: Callable[[], HealthStatus]) -> Blueprint:
    """The status page, to be registered at the root of an application.

    `health` is called every two seconds from a thread of the page's own, outside of any request; nothing starts before
    the first request. The application keeps the `Sampler` as `extensions["status_sampler"]`; its `close` ends it.
    """
    page = Blueprint("status_page", __name__, static_folder="static", static_url_path="/status-page")
    sampler = Sampler(settings, health)
    page.record(lambda setup: setup.app.extensions.update(status_sampler=sampler))
    watermarks = Watermarks.of(settings)
    queue = {
        "capacity": settings.queue_capacity,
        "watermarks": {
            "soft_above": watermarks.soft_above,
            "hard_from": watermarks.hard_from,
            "hard_until": watermarks.hard_until,
            "ok_at": watermarks.ok_at,
        },
    }
    release = version("market-data-store")

    @page.get("/")
    def show() -> Response:
        return page.send_static_file("page.html")

    @page.get("/status.json")
    def status() -> Response:
        response = jsonify({"ts": time.time(), "version": release, **_shown(sampler.newest(), queue)})
        response.headers["Cache-Control"] = "no-store"
        return response

    @page.after_request
    def protect(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    return page


def _shown(sample: Sample, queue: dict[str, Any]) -> dict[str, Any]:
    look, database = sample.queue, sample.database
    found = None if look is None else look.queue
    return {
        "age_s": None if sample.age_s is None else round(sample.age_s, 3),
        "queue": {
            **queue,
            "depth": None if found is None else found.depth,
            "reserved": None if found is None else found.reserved,
            "utilization": None if found is None else found.depth / queue["capacity"],
            "level": None if look is None else look.level.value,
            "reason": None if look is None else look.reason,
        },
        "workers": None if sample.workers is None else len(sample.workers),
        "rows_per_s": None if database is None or database.rows_per_s is None else round(database.rows_per_s, 1),
        "health": None if sample.health is None else sample.health.model_dump(mode="json"),
        "history": [[round(point.ts, 3), point.depth, point.level] for point in sample.history],
        "events": None
        if sample.events is None
        else [
            {
                "ts": event.ts,
                "level": event.level.value,
                "reason": event.reason,
                "queue_size": event.queue_size,
                "capacity": event.capacity,
            }
            for event in sample.events
        ],
        "dead_letters": {
            "total": None if database is None else database.dead_letters,
            "reasons": None
            if database is None or database.reasons is None
            else [
                {"dataset": each.dataset, "reason": each.reason, "count": each.count, "last_ts": each.last_ts}
                for each in database.reasons
            ],
        },
    }
