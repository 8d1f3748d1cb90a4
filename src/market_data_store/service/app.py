"""The Flask application: `gunicorn 'market_data_store.service.app:create_app()'`.

Assembles the endpoints, and answers every error as JSON with one line.
"""

from __future__ import annotations

import logging
from importlib.metadata import version

from flask import Flask, Response, jsonify, make_response
from flask_openapi3 import Info, OpenAPI, Tag
from market_data_core.telemetry import HealthStatus
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from market_data_store.app import app as celery_app
from market_data_store.config import settings
from market_data_store.coordinator.cluster import refuse_cluster
from market_data_store.coordinator.watermarks import LevelAndReason
from market_data_store.errors import InvalidMessage, InvalidRead, MarketDataStoreError
from market_data_store.metrics.definitions import set_backfill_level_gauge, set_letters_gauges, set_level_gauge
from market_data_store.service import metrics
from market_data_store.service.admin import create_admin
from market_data_store.service.dead_letters import create_letters
from market_data_store.service.guard import Answer, Guard, Problem, problem
from market_data_store.service.page import create_page
from market_data_store.service.protection import protect
from market_data_store.service.series import create_series
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.health import is_ready
from market_data_store.status.sampler import Sampler

_HEALTH = Tag(name="health")


def create_app() -> Flask:
    """Make the application from the environment's settings; raises `ConfigurationError` for a wrong one.

    Health, page, metrics and admin endpoints read one `Sampler`, which is `extensions["status_sampler"]`. Its threads
    start with the first request, and its `close` stops them.
    """
    configured = settings()
    configured.require_database_url()
    configured.require_broker_url()
    refuse_cluster(celery_app)
    app = OpenAPI(
        __name__,
        info=Info(title="market-data-store", version=version("market-data-store")),
        security_schemes={"token": {"type": "http", "scheme": "bearer"}},
        validation_error_model=Problem,
        validation_error_callback=_wrong_request,
        doc_ui=False,
        static_folder=None,
    )
    sampler = Sampler(configured, on_level=_set_level_gauges, on_database=_set_letters_gauges)
    app.extensions["status_sampler"] = sampler
    metrics.install(app)
    guard = Guard(configured)
    protect(app, configured, guard)
    app.before_request(sampler.start)

    @app.get("/healthz", tags=[_HEALTH], responses={"200": HealthStatus})
    @app.get("/health", tags=[_HEALTH], responses={"200": HealthStatus})
    def health_status() -> Answer:
        """Report the store's health; the status is 200 while this process serves."""
        return sampler.newest().health.model_dump()

    @app.get("/readyz", tags=[_HEALTH], responses={"200": HealthStatus, "503": HealthStatus})
    def readiness() -> Answer:
        """Report whether rows can be accepted and written: 200 if so, else 503."""
        status = sampler.newest().health
        return status.model_dump(), 200 if is_ready(status) else 503

    @app.get("/openapi.json", doc_ui=False)
    def document() -> Answer:
        return jsonify(app.api_doc)

    app.register_api(create_admin(configured, sampler, guard))
    app.register_api(create_letters(configured, guard))
    app.register_api(create_series(configured, guard))
    app.register_blueprint(create_page(configured, sampler))
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(MarketDataStoreError, _own_error)
    app.register_error_handler(Exception, _unexpected)
    return app


def _set_level_gauges(live: LevelAndReason, backfill: LevelAndReason) -> None:
    set_level_gauge(live.level)
    set_backfill_level_gauge(backfill.level)


def _set_letters_gauges(found: DatabaseStatus) -> None:
    oldest = found.oldest_letter
    set_letters_gauges(found.dead_letters, None if oldest is None else oldest.timestamp())


def _wrong_request(error: ValidationError) -> Response:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or "body"
    return problem(f"{name}: {first['msg'][:1].lower()}{first['msg'][1:]}, got {str(first['input'])[:80]!r}", 422)


def _http_error(error: HTTPException) -> Response:
    if error.response is not None:  # flask-openapi3 aborts with the response of `_wrong_request`
        return make_response(error.response)
    response = problem(f"{error.name.lower()}: {error.description}", error.code or 500)
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def _own_error(error: MarketDataStoreError) -> Response:
    return problem(str(error), 422 if isinstance(error, (InvalidMessage, InvalidRead)) else 503)


def _unexpected(error: Exception) -> Response:
    logging.getLogger(__name__).error("A request failed", exc_info=error)
    return problem("internal error; see the log of the web process", 500)
