"""The status page (`/`), the JSON that it shows (`/status.json`), and the documents that it leads to.

They need no token: they show levels, counts and reasons, never a row's values. The page's files are in `static` and
load nothing from another host.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from market_data_store.config import Settings
from market_data_store.service.documents import add_documents
from market_data_store.status.document import document_of
from market_data_store.status.sampler import Sampler

#: The browser loads nothing from another host, and runs no inline script.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_page(settings: Settings, sampler: Sampler) -> Blueprint:
    """Make the blueprint of the status page, to be registered at the root of an application."""
    page = Blueprint("status_page", __name__, static_folder="static", static_url_path="/status-page")

    @page.get("/")
    def show() -> Response:
        return page.send_static_file("page.html")

    @page.get("/status.json")
    def status() -> Response:
        response = jsonify(document_of(sampler.newest(), settings))
        response.headers["Cache-Control"] = "no-store"
        return response

    add_documents(page)

    @page.after_request
    def protect(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    return page
