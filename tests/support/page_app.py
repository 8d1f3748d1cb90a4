"""The smallest application with a status page: `gunicorn "page_app:create()"`."""

from __future__ import annotations

from flask import Flask

from market_data_store.config import settings
from market_data_store.service.page import create_page
from market_data_store.status.sampler import Sampler


def create() -> Flask:
    app = Flask("page_app")
    app.register_blueprint(create_page(settings(), Sampler(settings())))
    return app
