"""The smallest application with a status page: `gunicorn "page_app:create()"`."""

from __future__ import annotations

import time

from flask import Flask
from market_data_core.telemetry import HealthComponent, HealthStatus

from market_data_store.config import settings
from market_data_store.service.page import create_page


def health() -> HealthStatus:
    components = [
        HealthComponent(name="database", state="healthy", details={"revision": "0001"}),
        HealthComponent(name="workers", state="degraded", details={"found": "0"}),
    ]
    return HealthStatus(
        service="market-data-store", state="degraded", components=components, version="1", ts=time.time()
    )


def create() -> Flask:
    app = Flask("page_app")
    app.register_blueprint(create_page(settings(), health))
    return app
